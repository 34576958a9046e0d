"""Devices that come and go as they like hold the aggregator's replica bit by bit, and got there the cheapest way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmq.aggregator.downlink import Downlink
from fedmq.aggregator.modelling import Modelling
from fedmq.aggregator.settings import Encoding, Federation
from fedmq.codecs import parse
from fedmq.device.replica import Replica
from fedmq.protocol.frames import STEP_BYTES, Step, blocks, longest, way
from fedmq.vectors import Layout, Variable
from fedmq.wire.envelope import decode, encode

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fedmq.protocol.messages import Manifest
    from fedmq.store.checkpoint import Encoded, Weights

RUN = b"run-0001"
LAYOUT = Layout((Variable("w", (20, 30)), Variable("b", (7,)), Variable("none", (0,))))
KEYS = ("float32", "float16", "int8")
"""Of the same length whatever they encode, so that the cheapest way can be told from the outside."""

encodings = st.builds(
    Encoding,
    down=st.sampled_from(("int8 | lzma", "int8(stochastic) | huffman", "float16", "float32")).map(parse),
    keyframe_every=st.integers(2, 6),
    key=st.sampled_from(KEYS).map(parse),
    first=st.none() | st.sampled_from(("int8", "float16")).map(parse),
)


def manifest_of(weights: Weights, encoding: Encoding) -> Manifest:
    modelling = Modelling(Federation("f", encoding=encoding), RUN, LAYOUT, weights)
    sent = modelling.manifest()
    assert decode(encode(sent), type(sent)) == sent
    return sent


def price(frames: Iterable[Encoded]) -> int:
    return sum(64 * blocks(len(each.body)) + STEP_BYTES for each in frames)


class Fleet:
    """One aggregator's versions, every delta that it ever published, and devices with what they hold."""

    def __init__(self, encoding: Encoding, devices: int, seed: int) -> None:
        self.encoding, self.random = encoding, np.random.default_rng(seed)
        self.downlink = Downlink(encoding, RUN, LAYOUT.sizes)
        self.weights = self.downlink.first(self._vector(1.0))
        self.deltas: dict[int, Encoded] = {}
        self.devices = [Replica(LAYOUT.sizes) for _ in range(devices)]

    def _vector(self, size: float) -> np.ndarray:
        return (self.random.standard_t(3, LAYOUT.size) * size).astype(np.float32)

    def step(self) -> None:
        """Publish the next version; now and then only a few numbers have changed, and the delta is short."""
        moved = self._vector(0.1) * (self.random.random(LAYOUT.size) < self.random.choice((0.02, 1.0)))
        vector = self.weights.vector + moved.astype(np.float32)
        self.weights = self.downlink.then(self.weights, self.weights.version + 1, vector, {})
        self.deltas |= {each.step.version: each for each in self.weights.frames if not each.step.key}

    def wake(self, replica: Replica) -> None:
        """Let a device catch up, and check the way."""
        manifest = manifest_of(self.weights, self.encoding)
        standing = {each.step: each for each in self.weights.frames}
        fetched = [standing[step] for step in way(manifest, replica.version)]
        assert all(0 <= longest(manifest, each.step) - len(each.body) < 64 for each in fetched)
        assert price(fetched) == self._cheapest(replica.version)
        if fetched:
            replica.advance(manifest, [(each.step, each.body) for each in fetched])
        assert replica.vector is not None
        assert replica.vector.tobytes() == self.weights.replica.tobytes()

    def _cheapest(self, held: int) -> int:
        """Return the price of the cheapest way over all deltas that there ever were."""
        key, version = self.weights.frames[0], self.weights.version
        anew = price([key, *(self.deltas[step] for step in range(key.step.version + 1, version + 1))])
        steps = range(held + 1, version + 1)
        if not held or not all(step in self.deltas for step in steps):
            return anew
        return min(anew, price(self.deltas[step] for step in steps))


@settings(max_examples=40)
@given(
    encodings,
    st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=20),
    st.integers(0, 2**32),
)
def test_whoever_is_there_when(encoding: Encoding, presence: list[list[bool]], seed: int) -> None:
    fleet = Fleet(encoding, 3, seed)
    for present in presence:
        for replica, here in zip(fleet.devices, present, strict=True):
            if here:
                fleet.wake(replica)
        fleet.step()
    for replica in fleet.devices:
        fleet.wake(replica)


@pytest.mark.parametrize("key", KEYS)
def test_the_loop_is_closed(key: str) -> None:
    """What one frame rounds away the next makes good: the replica stays near the model, however long it goes on."""
    encoding = Encoding(down=parse("int8 | lzma"), keyframe_every=4, key=parse(key))
    fleet, gaps = Fleet(encoding, 0, 1), []
    for _ in range(60):
        fleet.step()
        gaps.append(float(np.abs(fleet.weights.vector - fleet.weights.replica).max()))
    assert max(gaps[30:]) <= 1.5 * max(gaps[:30])


def test_versions_of_a_key_frame_are_the_same_by_either_way() -> None:
    encoding = Encoding(down=parse("int8 | lzma"), keyframe_every=3, key=parse("float16"))
    fleet = Fleet(encoding, 2, 5)
    kept_up, joined = fleet.devices
    for _ in range(3):
        fleet.wake(kept_up)
        fleet.step()
    manifest, frames = manifest_of(fleet.weights, encoding), fleet.weights.frames
    assert (frames[0].step, frames[-1].step) == (Step(4, key=True), Step(4))
    kept_up.advance(manifest, [(frames[-1].step, frames[-1].body)])
    joined.advance(manifest, [(frames[0].step, frames[0].body)])
    assert kept_up.vector is not None
    assert joined.vector is not None
    assert kept_up.vector.tobytes() == joined.vector.tobytes()
    assert np.array_equal(kept_up.vector, kept_up.vector.astype(np.float16).astype(np.float32))
