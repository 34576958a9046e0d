"""What devices of one process share of the models that they hold, and what they do not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from fedmq.aggregator.downlink import Downlink
from fedmq.aggregator.modelling import Modelling
from fedmq.aggregator.settings import Encoding, Federation
from fedmq.codecs import parse
from fedmq.device import computing
from fedmq.device.computing import Alone, Shared, Together
from fedmq.device.replica import Replica
from fedmq.errors import DecodeError, MessageError
from fedmq.protocol.messages import Frame, Manifest, Task
from fedmq.testing.federation import SMALL
from fedmq.wire.envelope import decode, encode

if TYPE_CHECKING:
    from fedmq.protocol.frames import Step

RUN = b"run-0001"
ENCODING = Encoding(down=parse("int8"), keyframe_every=10, key=parse("half"))
Frames = list[tuple["Step", bytes]]


class Counting(Replica):
    """Counts how often it has to decode."""

    decoded = 0

    def advance(self, manifest: Manifest, frames: Iterable[tuple[Step, bytes]]) -> None:
        type(self).decoded += 1
        super().advance(manifest, frames)


@pytest.fixture
def courses() -> list[tuple[Manifest, Frames]]:
    """Return the first three versions, each with its manifest and all frames that lead there."""
    downlink, chance = Downlink(ENCODING, RUN, SMALL.sizes), np.random.default_rng(1)
    weights, found = downlink.first(chance.normal(size=SMALL.size).astype(np.float32)), []
    for version in (2, 3, 4):
        modelling = Modelling(Federation("f", encoding=ENCODING), RUN, SMALL, weights)
        found.append((modelling.manifest(), [(each.step, each.body) for each in weights.frames]))
        moved = weights.vector + chance.normal(size=SMALL.size).astype(np.float32)
        weights = downlink.then(weights, version, moved, {})
    Counting.decoded = 0
    return found


def copied(frames: Frames) -> Frames:
    """Return the same frames in other memory, as each session receives its own."""
    return [(step, bytes(bytearray(body))) for step, body in frames]


async def test_a_model_is_decoded_once_and_held_once(courses: list[tuple[Manifest, Frames]]) -> None:
    models, replicas = Shared(), [Counting(SMALL.sizes) for _ in range(20)]
    for manifest, frames in (courses[0], (courses[1][0], courses[1][1][1:])):  # a key-frame, then a delta
        await asyncio.gather(*(models.advance(each, manifest, copied(frames)) for each in replicas))
        assert {(each.run, each.version) for each in replicas} == {(RUN, manifest.version)}
        assert len({id(each.vector) for each in replicas}) == 1
    assert Counting.decoded == 2


async def test_who_stands_elsewhere_decodes_for_itself(courses: list[tuple[Manifest, Frames]]) -> None:
    models, late, usual = Shared(), Counting(SMALL.sizes), Counting(SMALL.sizes)
    manifest, frames = courses[1]
    await models.advance(usual, *courses[0])
    await models.advance(usual, manifest, frames[1:])
    await models.advance(late, manifest, frames)  # from nothing, by the key-frame too
    assert Counting.decoded == 3
    assert late.vector is not usual.vector
    np.testing.assert_array_equal(late.vector, usual.vector)
    with pytest.raises(DecodeError, match="does not follow on"):
        await models.advance(Counting(SMALL.sizes), manifest, frames[1:])


async def test_another_manifest_or_other_sizes_find_nothing(courses: list[tuple[Manifest, Frames]]) -> None:
    models, (manifest, frames) = Shared(), courses[0]
    await models.advance(Counting(SMALL.sizes), manifest, frames)
    with pytest.raises(DecodeError, match="another digest"):
        await models.advance(Counting(SMALL.sizes), replace(manifest, replica=bytes(8)), frames)
    with pytest.raises(DecodeError):
        await models.advance(Counting((SMALL.size - 1,)), manifest, frames)
    damaged = [(frames[0][0], frames[0][1][:-1] + b"?")]
    with pytest.raises(DecodeError):
        await models.advance(Counting(SMALL.sizes), manifest, damaged)
    assert Counting.decoded == 4


async def test_a_device_alone_comes_to_the_same_model(courses: list[tuple[Manifest, Frames]]) -> None:
    alone, together = Replica(SMALL.sizes), Replica(SMALL.sizes)
    manifest, frames = courses[2]
    await Alone().advance(alone, manifest, frames)
    await Together().advance(together, manifest, frames)
    assert alone.vector is not together.vector
    np.testing.assert_array_equal(alone.vector, together.vector)


async def test_a_message_is_decoded_once_until_others_took_its_place(
    courses: list[tuple[Manifest, Frames]], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[bytes] = []

    def counted(payload: bytes, kind: type) -> object:
        decoded.append(payload)
        return decode(payload, kind)

    monkeypatch.setattr(computing, "decode", counted)
    shared, payload = Shared(), encode(courses[0][0])
    assert shared.read(payload, Manifest) is shared.read(bytes(bytearray(payload)), Manifest)
    assert (
        shared.read(payload, Manifest)
        == Alone().read(payload, Manifest)
        == Together().read(payload, Manifest)
    )
    with pytest.raises(MessageError, match="a Manifest instead of a Task"):
        shared.read(payload, Task)
    decoded.clear()
    for version in range(1, computing.MESSAGES + 1):
        shared.read(encode(replace(courses[0][0], version=version + 10, key=version + 10)), Manifest)
    shared.read(payload, Manifest)
    assert decoded.count(payload) == 1
    long = encode(Frame("float32", "", bytes(computing.SHORT_BYTES)))
    assert shared.read(long, Frame) is not shared.read(long, Frame)
