"""Error feedback in whole federations: whatever the link does, what was trained is in the model or on the device.

Deltas are whole numbers, and one device of two sends zeros: so the model is half of what was counted of the other, with
no rounding anywhere but in the codec.
"""

from __future__ import annotations

import threading
from itertools import chain, combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from fedmq.aggregator.settings import Encoding, Federation
from fedmq.codecs import parse
from fedmq.device import settling
from fedmq.device.keepsakes import DiskKeepsakes
from fedmq.device.outbox import DiskOutbox
from fedmq.protocol.policy import Policy, StopWhen
from fedmq.rules import Rule, Uniform
from fedmq.testing.federation import Rig, ShiftTrainer, rig
from fedmq.testing.proxy import Proxy
from fedmq.transport.address import Credentials, open_transport
from fedmq.transport.mailbox import Faults
from fedmq.transport.memory import MemoryBroker
from fedmq.transport.mosquitto import private_mosquitto
from fedmq.vectors import Layout, Variable, Vector

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fedmq.protocol.messages import Chunk
    from fedmq.protocol.participation import Send
    from fedmq.transport.interface import Connection, Transport

SMALL = Layout((Variable("w", (20,)), Variable("mean", (4,), "statistic")))
LARGE = Layout((Variable("w", (200_000,)),))


CUT_AT = 9  # of 26 chunks


def federation(rounds: int, soft_s: float, chunk_bytes: int = 100_000) -> Federation:
    # Without a grace, for what is cut in the middle is to come too late.
    policy = Policy(min_devices=1, quorum=1, soft_deadline_s=soft_s, hard_deadline_s=60, grace_s=0)
    encoding = Encoding(up=parse("feedback | float16"), chunk_bytes=chunk_bytes)
    return Federation(
        "test", rule=Rule(weigh=Uniform()), policy=policy, stop=StopWhen(rounds=rounds), encoding=encoding
    )


class Learner:
    """A trainer of whole numbers that adds up what it has trained, and trains as often as it is let to."""

    def __init__(self, layout: Layout, turns: int) -> None:
        self.turns = threading.Semaphore(turns)
        self.trained = np.zeros(layout.size, np.float32)
        self.trainer = ShiftTrainer(layout, become=self._become, gate=lambda: self.turns.acquire(timeout=20))

    def _become(self, model: Vector) -> Vector:
        chance = np.random.default_rng(self.trainer.trainings)
        delta = 2 * chance.integers(-3000, 3000, model.size).astype(np.float32)
        self.trained += delta
        return model + delta


def idle(layout: Layout, turns: threading.Semaphore) -> ShiftTrainer:
    return ShiftTrainer(layout, shift=0, gate=lambda: turns.acquire(timeout=20))


def on_disk(folder: Path) -> dict[str, Any]:
    return {"outbox": DiskOutbox(folder / "outbox"), "keepsakes": DiskKeepsakes(folder / "keepsakes")}


def residual(keepsakes: DiskKeepsakes, run: bytes, layout: Layout) -> Vector:
    total = np.zeros(layout.size, np.float32)
    for piece in keepsakes.owed(run):
        total += piece.vector
    return total


def in_doubt(keepsakes: DiskKeepsakes) -> Iterator[Vector]:
    """Give what may still come back, as the federation ended before the device heard of it: every way."""
    changes = [keepsakes._read_change(update) for update in keepsakes.waiting()]
    backs = [change.back for change in changes if change is not None and change.back is not None]
    for some in chain.from_iterable(combinations(backs, count) for count in range(len(backs) + 1)):
        yield sum(some, np.zeros(1, np.float32))


@pytest.mark.parametrize("seed", range(3))
async def test_updates_and_receipts_are_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(settling, "PATIENCE_S", 0.05)
    broker, learner, folder = MemoryBroker(seed=seed), Learner(SMALL, 100), tmp_path / "device"
    broker.faults = Faults(drop=0.3, duplicate=0.2, topics="fedmq/v1/test/+/device-0/#")
    async with rig(federation(10, soft_s=0.1), lambda: broker, tmp_path / "aggregator", SMALL) as running:
        running.start_device("device-0", learner.trainer, **on_disk(folder))
        running.start_device("device-1", idle(SMALL, threading.Semaphore(100)))
        running.start_aggregator()
        await running.ended()
        run = running.devices["device-0"]._participant.run
    keepsakes = DiskKeepsakes(folder / "keepsakes")
    gap = learner.trained - 2 * running.model - residual(keepsakes, run, SMALL)
    assert any(np.array_equal(gap, doubt + np.zeros_like(gap)) for doubt in in_doubt(keepsakes))
    assert learner.trained.any()


@pytest.mark.broker
@pytest.mark.slow
async def test_a_link_that_breaks_in_mid_upload_and_a_restart(tmp_path: Path) -> None:
    """The update that was on its way comes too late; after that the residual is right to the last bit."""
    learner, turns, folder = Learner(LARGE, 1), threading.Semaphore(1), tmp_path / "device"
    async with private_mosquitto(["max_packet_size 20000"]) as broker, Proxy(broker.port) as proxy:
        settings = federation(5, soft_s=60, chunk_bytes=16_000)
        near, far = broker.address, f"mqtt://127.0.0.1:{proxy.port}"
        async with rig(settings, lambda: _open(near), tmp_path / "aggregator", LARGE) as running:
            running.start_aggregator()
            running.start_device("device-1", idle(LARGE, turns))
            running.transport = lambda: _open(far)
            running.start_device("device-0", learner.trainer, **on_disk(folder))
            await running.until(lambda: len(running.reports) >= 1)
            await _broken_in_mid_upload(running, learner, proxy)
            turns.release(2)
            await running.until(lambda: len(running.reports) >= 3)
            assert [report.accepted for report in running.reports] == [2, 1, 1]
            device = running.start_device("device-0", learner.trainer, **on_disk(folder))
            learner.turns.release(2)
            await running.until(lambda: learner.trainer.trainings >= 3)
            turns.release(2)
            await running.ended(60)
            run = device._participant.run
    assert [report.accepted for report in running.reports] == [2, 1, 1, 2, 2]
    left = residual(DiskKeepsakes(folder / "keepsakes"), run, LARGE)
    assert left.any()
    assert left.tobytes() == (learner.trained - 2 * running.model + 0.0).astype(np.float32).tobytes()


async def _broken_in_mid_upload(running: Rig, learner: Learner, proxy: Proxy) -> None:
    """Cut the link for good when a part of the update is through, and the device's power when it has noticed."""
    device = running.devices["device-0"]
    publish = device._sending._send_chunk

    async def cutting(connection: Connection, effect: Send, chunk: Chunk) -> None:
        if chunk.index == CUT_AT:
            proxy.cut()
            proxy.hold()
        await publish(connection, effect, chunk)

    device._sending._send_chunk = cutting  # type: ignore[method-assign]
    learner.turns.release()
    await running.until(lambda: device._connection is None)
    await running.stop("device-0")
    proxy.release()


def _open(address: str) -> Transport:
    return open_transport(address, Credentials())
