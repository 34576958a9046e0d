"""A model's way down over a real mosquitto: whatever happens to a device, its replica is right to the last bit."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pytest

from fedmq.aggregator.downlink import Downlink
from fedmq.aggregator.publication import Publication
from fedmq.aggregator.settings import Encoding, Federation
from fedmq.codecs import parse
from fedmq.device.replica import Replica
from fedmq.errors import ConnectionLost, Refused
from fedmq.protocol.frames import Step, blocks
from fedmq.protocol.messages import Chunk, Frame, Manifest
from fedmq.protocol.policy import Policy, StopWhen
from fedmq.testing.federation import Rig, ShiftTrainer, rig
from fedmq.transport.address import Credentials, open_transport
from fedmq.transport.interface import Outgoing, Profile
from fedmq.vectors import Layout, Variable
from fedmq.wire.chunks import body_digest
from fedmq.wire.envelope import decode, encode
from fedmq.wire.topics import Topics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
    from pathlib import Path

    from fedmq.device.device import Device
    from fedmq.protocol.frames import Step as Steps
    from fedmq.store.checkpoint import Weights
    from fedmq.transport.interface import Connection, Transport
    from fedmq.transport.mosquitto import Mosquitto
    from fedmq.vectors import Vector

    Start = Callable[..., Awaitable[Mosquitto]]

pytestmark = pytest.mark.broker

TOPICS = Topics("test")
LAYOUT = Layout((Variable("w", (200, 100)), Variable("b", (17,))))
ENCODING = Encoding(
    up=parse("float32"), down=parse("int8 | lzma"), keyframe_every=4, key=parse("half"), chunk_bytes=4096
)
START = np.random.default_rng(3).normal(size=LAYOUT.size).astype(np.float32)


def learn(model: Vector) -> Vector:
    """Move a hundred numbers, others each time, as a training in its last rounds does."""
    random = np.random.default_rng(int(np.abs(model).sum() * 1000))
    trained = model.copy()
    trained[random.integers(0, model.size, 100)] += random.normal(size=100).astype(np.float32)
    return trained


def idle(_: Vector) -> Vector:
    """Fetch models, and answer nothing: so that only the others move the model on."""
    raise Refused("no data today")


@dataclass
class Switch:
    """A way to the broker that can be cut, and stays cut until it is switched on again."""

    way: Transport
    on: bool = True
    connection: Connection | None = None

    @property
    def address(self) -> str:
        return self.way.address

    async def connect(self, profile: Profile) -> Connection:
        if not self.on:
            raise ConnectionLost("switched off")
        self.connection = await self.way.connect(profile)
        return self.connection

    async def off(self) -> None:
        self.on = False
        if self.connection is not None:
            await self.connection.close()


@dataclass
class Scene:
    """A federation in which `steady` answers a round for each `step`, while `rover` comes and goes."""

    running: Rig
    link: Switch
    gate: threading.Semaphore
    rover: Device
    published: dict[int, bytes] = field(default_factory=dict)
    held: list[tuple[int, bytes]] = field(default_factory=list)

    @property
    def weights(self) -> Weights:
        assert self.running.aggregator is not None
        return self.running.aggregator.modelling.weights

    async def step(self, count: int = 1) -> None:
        """Let the model move so many versions on."""
        for _ in range(count):
            self.gate.release()
            await self.running.until(partial(self._at_least, self.weights.version + 1), seconds=40)

    def _at_least(self, version: int) -> bool:
        return self.weights.version >= version

    async def caught_up(self) -> None:
        """Wait until the rover holds the newest model, and check it and all that it held on the way."""
        await self.running.until(lambda: self.rover.replica.version == self.weights.version, seconds=40)
        assert self.rover.replica.vector is not None
        assert self.rover.replica.vector.tobytes() == self.weights.replica.tobytes()
        assert all(self.published[version] == vector for version, vector in self.held)

    def fetched(self) -> int:
        return self.rover.counters.bytes_down


@contextlib.asynccontextmanager
async def scene(
    broker: Mosquitto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rounds: int = 30
) -> AsyncIterator[Scene]:
    monkeypatch.setattr("fedmq.transport.backoff.Backoff.delay", lambda *_: 0.05)
    monkeypatch.setattr("fedmq.protocol.participant.FETCH_PAUSE_S", 0.1)
    monkeypatch.setattr("fedmq.protocol.coordinator.CENSUS_S", 1.0)
    policy = Policy(min_devices=1, quorum=1, soft_deadline_s=0.2, hard_deadline_s=60)
    federation = Federation("test", policy=policy, stop=StopWhen(rounds=rounds), encoding=ENCODING)
    gate = threading.Semaphore(0)
    async with rig(
        federation, lambda: open_transport(broker.address, Credentials()), tmp_path, LAYOUT
    ) as running:
        link = Switch(running.transport())
        running.start_aggregator(first=START)
        running.start_device(
            "steady", ShiftTrainer(LAYOUT, become=learn, gate=lambda: gate.acquire(timeout=60))
        )
        plain, running.transport = running.transport, lambda: link
        rover = running.start_device("rover", ShiftTrainer(LAYOUT, become=idle))
        running.transport = plain
        found = Scene(running, link, gate, rover)
        watch(monkeypatch, found)
        await found.caught_up()
        yield found
        gate.release(1000)


def watch(monkeypatch: pytest.MonkeyPatch, found: Scene) -> None:
    """Note every model that is published, and every one that the rover takes for right."""
    then, advance = Downlink.then, Replica.advance

    def noted(self: Downlink, *arguments: object) -> Weights:
        weights = then(self, *arguments)  # type: ignore[arg-type]
        found.published[weights.version] = weights.replica.tobytes()
        return weights

    def advanced(self: Replica, manifest: Manifest, frames: Iterable[tuple[Steps, bytes]]) -> None:
        advance(self, manifest, frames)
        if self is found.rover.replica and self.vector is not None:
            found.held.append((self.version, self.vector.tobytes()))

    found.published[found.weights.version] = found.weights.replica.tobytes()
    monkeypatch.setattr(Downlink, "then", noted)
    monkeypatch.setattr(Replica, "advance", advanced)


async def retained(broker: Mosquitto, *filters: str) -> dict[str, bytes]:
    """Return what stands on the broker under these filters."""
    connection = await open_transport(broker.address, Credentials()).connect(Profile("looker"))
    found: dict[str, bytes] = {}
    try:
        await connection.subscribe(*filters)
        with contextlib.suppress(TimeoutError):
            while True:
                async with asyncio.timeout(0.5):
                    found |= {m.topic: m.payload for m in await connection.receive() if m.payload}
    finally:
        await connection.close()
    return found


def named(manifest: Manifest) -> set[Step]:
    deltas = range(manifest.version - len(manifest.deltas) + 1, manifest.version + 1)
    return {Step(manifest.key, key=True), *map(Step, deltas)}


async def test_who_misses_five_rounds_comes_back_over_the_deltas(
    start_mosquitto: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = await start_mosquitto()
    async with scene(broker, tmp_path, monkeypatch) as found:
        await found.step(2)
        await found.caught_up()
        await found.link.off()
        await found.step(5)
        before, found.link.on = found.fetched(), True
        await found.caught_up()
        key = len(found.weights.frames[0].body)
    assert found.fetched() - before < key / 2, "the deltas are a fraction of the key-frame"
    assert found.rover.counters.healed == 0


async def test_a_link_that_breaks_in_mid_chunk_and_in_mid_round(
    start_mosquitto: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = await start_mosquitto()
    taken = 0
    async with scene(broker, tmp_path, monkeypatch) as found:
        await found.running.stop("rover")
        await found.step(1)
        plain, found.running.transport = found.running.transport, lambda: found.link
        found.rover = found.running.start_device("rover", ShiftTrainer(LAYOUT, become=idle))
        found.running.transport = plain
        take = found.rover._fetching.take

        def counted(message: object) -> bool:
            nonlocal taken
            was_one = take(message)  # type: ignore[arg-type]
            taken += was_one
            if taken in {3, 7, 12} and found.link.connection is not None and was_one:
                asyncio.get_running_loop().create_task(found.link.connection.close())
            return was_one

        monkeypatch.setattr(found.rover._fetching, "take", counted)
        await found.caught_up()  # the key-frame has ten chunks
        for _ in range(6):
            await found.step(1)
            assert found.link.connection is not None
            await (
                found.link.connection.close()
            )  # in mid-round: the task is out, and the rover fetches or trains
            await found.caught_up()
    assert taken > 12
    assert found.rover.counters.healed == 0


async def test_a_replica_of_another_run_is_none_of_this_one(
    start_mosquitto: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = await start_mosquitto()
    async with scene(broker, tmp_path, monkeypatch) as found:
        await found.step(3)
        await found.caught_up()
        await found.link.off()
        await found.running.stop("aggregator")
        found.running.folder = tmp_path / "anew"
        found.running.start_aggregator(first=-START)
        found.published = {found.weights.version: found.weights.replica.tobytes()}
        found.held.clear()
        found.gate.release()  # for the training that was under way
        await found.step(5)  # past the version that the rover holds of the other run
        found.link.on = True
        await found.caught_up()
        await found.step(2)
        await found.caught_up()
    assert found.rover.counters.healed == 0


def damaged(payload: bytes, how: str) -> bytes:
    chunk = decode(payload, Chunk)
    if how == "a chunk":
        return encode(Chunk(chunk.run, chunk.stem, 0, 1, chunk.total, chunk.digest, chunk.data[:-1] + b"?"))
    frame = decode(chunk.data, Frame)
    data = np.frombuffer(frame.data, np.uint8).copy()
    data[2] ^= 1  # a bit of a scale: it decodes, to other numbers
    body = encode(Frame(frame.codec, frame.rounded, data.tobytes()))
    return encode(Chunk(chunk.run, chunk.stem, 0, 1, len(body), body_digest(body), body))


@pytest.mark.parametrize("how", ["a chunk", "a number"])
async def test_a_damaged_delta_is_made_good_by_the_key_frame(
    start_mosquitto: Start,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    how: str,
) -> None:
    broker = await start_mosquitto()
    async with scene(broker, tmp_path, monkeypatch) as found:
        await found.step(1)
        await found.caught_up()
        await found.link.off()
        await found.step(3)
        topic = TOPICS.frame(Step(found.weights.version - 1), 0)
        standing = await retained(broker, topic)
        vandal = await open_transport(broker.address, Credentials()).connect(Profile("vandal"))
        await vandal.publish(Outgoing(topic, damaged(standing[topic], how), retain=True))
        await vandal.close()
        found.link.on = True
        with caplog.at_level("INFO"):
            await found.caught_up()
        await found.step(2)
        await found.caught_up()
    assert found.rover.counters.healed == 1
    assert caplog.text.count("the key-frame makes good what came out wrong") == 1


async def test_frames_that_no_manifest_names_are_cleared_even_by_the_next_process(
    start_mosquitto: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = await start_mosquitto()
    frames = [f"{TOPICS.prefix}/all/{kind}/+/+" for kind in ("model", "delta")]

    async def standing() -> tuple[set[Step], set[Step]]:
        manifest = decode((await retained(broker, TOPICS.manifest))[TOPICS.manifest], Manifest)
        places = map(TOPICS.parse_frame, await retained(broker, *frames))
        return {place[0] for place in places if place is not None}, named(manifest)

    async with scene(broker, tmp_path, monkeypatch) as found:
        await found.step(6)
        await found.caught_up()
        there, wanted = await standing()
        assert there == wanted
        with monkeypatch.context() as patch:
            patch.setattr(Publication, "clear_old_frames", _nothing)
            while len((await standing())[0]) == len(wanted):
                await found.step(1)
                wanted = (await standing())[1]
            await found.running.stop("aggregator")
        assert (await standing())[0] > wanted
        found.running.start_aggregator(first=START)
        await found.step(1)
        await found.caught_up()
        there, wanted = await standing()
    assert there == wanted
    manifest = found.running.aggregator.modelling.manifest()  # type: ignore[union-attr]
    assert [blocks(len(each.body)) for each in found.weights.frames] == [
        manifest.key_blocks,
        *manifest.deltas,
    ]


async def _nothing(_: Publication) -> None:
    """Be killed just before."""
