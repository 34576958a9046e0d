"""Aggregator and devices when things go wrong: bad updates, bad links, restarts."""

from __future__ import annotations

import asyncio
import threading
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pytest

from fedmq.aggregator.settings import Encoding, Federation
from fedmq.codecs import parse
from fedmq.device.outbox import DiskOutbox
from fedmq.errors import ConnectionLost
from fedmq.protocol.messages import DELTA, Facts, Receipt, Task, TaskKind, Update, Verdict
from fedmq.protocol.policy import Policy, StopWhen
from fedmq.testing.federation import SMALL, Rig, ShiftTrainer, rig
from fedmq.transport.interface import Outgoing, Profile
from fedmq.transport.mailbox import Faults
from fedmq.transport.memory import MemoryBroker
from fedmq.wire.envelope import decode, encode
from fedmq.wire.topics import Topics

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fedmq.transport.interface import Connection

TOPICS = Topics("test")
ONES = np.ones(SMALL.size, np.float32)
PATIENT = Policy(min_devices=1, quorum=1, soft_deadline_s=60, hard_deadline_s=60)


def settings(rounds: int = 1, policy: Policy = PATIENT, **changes: object) -> Federation:
    return Federation("test", policy=policy, stop=StopWhen(rounds=rounds), **changes)  # type: ignore[arg-type]


class Attacker:
    """A device that speaks the protocol by hand."""

    def __init__(self, connection: Connection, name: str) -> None:
        self.connection, self.name = connection, name
        self.receipts: dict[bytes, Receipt] = {}
        self.task: Task | None = None
        self._reader: asyncio.Task[None] | None = None

    @classmethod
    async def join(cls, broker: MemoryBroker, name: str = "attacker") -> Attacker:
        attacker = cls(await broker.connect(Profile(name)), name)
        await attacker.connection.subscribe(TOPICS.task, TOPICS.receipt(name))
        attacker._reader = asyncio.create_task(attacker._read())
        while attacker.task is None:
            await asyncio.sleep(0.005)
        return attacker

    async def _read(self) -> None:
        while True:
            for message in await self.connection.receive():
                if message.topic == TOPICS.task:
                    self.task = decode(message.payload, Task)
                else:
                    receipt = decode(message.payload, Receipt)
                    self.receipts[receipt.update] = receipt

    def update(self, delta: object = ONES, **changes: object) -> Update:
        assert self.task is not None
        body = np.asarray(delta, np.float32).tobytes()
        fields = {
            "run": self.task.run,
            "update": b"attack-1",
            "model": self.task.model,
            "layout": self.task.layout,
            "facts": Facts(10, 1),
            "sections": {DELTA: body},
        }
        return Update(**{**fields, **changes})  # type: ignore[arg-type]

    async def send(self, payload: bytes, round_: int | None = None) -> None:
        assert self.task is not None
        topic = TOPICS.update(self.name, self.task.round if round_ is None else round_)
        await self.connection.publish(Outgoing(topic, payload))

    async def verdict(self, update: bytes = b"attack-1") -> Receipt:
        async with asyncio.timeout(10):
            while update not in self.receipts:
                await asyncio.sleep(0.005)
        return self.receipts.pop(update)

    async def leave(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
        await self.connection.close()


def spoilt(value: float) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    delta = ONES.copy()
    delta[3] = value
    return delta


BAD: dict[str, tuple[Callable[[Attacker], Update], str]] = {
    "NaN": (lambda a: a.update(spoilt(np.nan)), "not finite"),
    "infinity": (lambda a: a.update(spoilt(-np.inf)), "not finite"),
    "one value too few": (lambda a: a.update(ONES[1:]), "bytes"),
    "a shape that would broadcast": (lambda a: a.update(ONES[:1]), "bytes"),
    "float64": (lambda a: a.update(sections={DELTA: ONES.astype(np.float64).tobytes()}), "bytes"),
    "nothing": (lambda a: a.update(sections={DELTA: b""}), "bytes"),
    "no delta": (lambda a: a.update(sections={"gift": b"x"}), "no section"),
    "no examples": (lambda a: a.update(facts=Facts(0)), "examples"),
    "negative examples": (lambda a: a.update(facts=Facts(-5)), "examples"),
    "a million million examples": (lambda a: a.update(facts=Facts(10**12)), "examples"),
    "another layout": (lambda a: a.update(layout=b"layout-9"), "another model layout"),
    "another model version": (lambda a: a.update(model=77), "starts from model 77"),
    "another run": (lambda a: a.update(run=b"last-run"), "another run"),
}


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_update_is_refused_with_a_reason_and_leaves_no_trace(tmp_path: Path, name: str) -> None:
    make, reason = BAD[name]
    broker, gate = MemoryBroker(), threading.Event()
    async with rig(settings(), lambda: broker, tmp_path) as running:
        running.start_aggregator(first=ONES)
        running.start_device("honest", ShiftTrainer(shift=2, gate=lambda: gate.wait(20)))
        attacker = await Attacker.join(broker)
        await attacker.send(encode(make(attacker)))
        receipt = await attacker.verdict()
        gate.set()
        await running.ended()
        await attacker.leave()
    assert receipt.verdict is Verdict.REJECTED
    assert reason in receipt.reason
    assert running.model.tobytes() == (ONES + 2).tobytes()
    (report,) = running.reports
    assert (report.accepted, report.rejected, report.received) == (1, 1, 2)


async def test_garbage_costs_one_counter_each(tmp_path: Path) -> None:
    broker, gate = MemoryBroker(), threading.Event()
    good = encode(Update(b"8 bytes!", b"8 bytes!", 1, b"8 bytes!", Facts(1), {DELTA: b""}))
    garbage = [b"", b"\x00", b"hello", good[:-1], good + b"x", b"\xdd\xff\xff\xff\xff", b"\xc1" * 100]
    async with rig(settings(), lambda: broker, tmp_path) as running:
        running.start_aggregator()
        running.start_device("honest", ShiftTrainer(gate=lambda: gate.wait(20)))
        attacker = await Attacker.join(broker)
        for payload in garbage:
            await attacker.send(payload)
        await attacker.connection.publish(Outgoing("fedmq/v1/test/up/attacker/update/one", b"x"))
        await attacker.connection.publish(Outgoing("fedmq/v1/test/up/attacker/status", b"x"))
        await running.until(lambda: running.aggregator and running.aggregator.garbled == len(garbage))
        gate.set()
        await running.ended()
        await attacker.leave()
    np.testing.assert_array_equal(running.model, ONES)
    assert running.reports[0].rejected == len(garbage)


async def test_updates_of_other_rounds_are_late_or_refused(tmp_path: Path) -> None:
    broker, gate = MemoryBroker(), threading.Semaphore(0)
    async with rig(settings(rounds=2), lambda: broker, tmp_path) as running:
        running.start_aggregator()
        running.start_device("honest", ShiftTrainer(gate=lambda: gate.acquire(timeout=20)))
        attacker = await Attacker.join(broker)
        old = encode(attacker.update())
        await attacker.send(old, round_=99)
        early = await attacker.verdict()
        gate.release()
        await running.until(lambda: attacker.task and attacker.task.round == 2)
        await attacker.send(old, round_=1)
        late = await attacker.verdict()
        await attacker.send(old, round_=2)
        replayed = await attacker.verdict()
        gate.release()
        await running.ended()
        await attacker.leave()
    assert (early.verdict, late.verdict, replayed.verdict) == (
        Verdict.REJECTED,
        Verdict.LATE,
        Verdict.REJECTED,
    )
    np.testing.assert_array_equal(running.model, 2 * ONES)


async def test_a_repeated_update_counts_once_and_gets_its_verdict_again(tmp_path: Path) -> None:
    broker, gate = MemoryBroker(), threading.Event()
    async with rig(settings(), lambda: broker, tmp_path) as running:
        running.start_aggregator()
        running.start_device("honest", ShiftTrainer(shift=3, gate=lambda: gate.wait(20)))
        attacker = await Attacker.join(broker)
        for _ in range(5):
            await attacker.send(encode(attacker.update()))
            assert (await attacker.verdict()).verdict is Verdict.ACCEPTED
        await attacker.send(encode(attacker.update(update=b"attack-2")))
        second = await attacker.verdict(b"attack-2")
        gate.set()
        await running.ended()
        await attacker.leave()
    assert second.verdict is Verdict.DUPLICATE
    np.testing.assert_array_equal(running.model, 2 * ONES)
    (report,) = running.reports
    assert (report.accepted, report.duplicate, report.received) == (2, 5, 7)


# --- links ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
async def test_bad_links_change_nothing_of_the_result(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedmq.protocol.posting.RECEIPT_PAUSE_S", 0.2)
    monkeypatch.setattr("fedmq.protocol.participant.FETCH_PAUSE_S", 0.1)
    monkeypatch.setattr("fedmq.device.fetching.PATIENCE_S", 0.5)
    monkeypatch.setattr("fedmq.device.presence.REFRESH_S", 0.3)
    monkeypatch.setattr("fedmq.aggregator.aggregator.REFRESH_S", 0.3)
    monkeypatch.setattr("fedmq.transport.backoff.Backoff.delay", lambda *_: 0.02)
    faults = Faults(
        drop=0.05,
        duplicate=0.2,
        reorder=0.2,
        cut=0.03,
        delay_s=(0, 0.005),
        reorder_s=0.05,
        topics="fedmq/v1/test/#",
    )
    broker = MemoryBroker(seed=seed, faults=faults)
    policy = Policy(min_devices=5, quorum=5, soft_deadline_s=60, hard_deadline_s=60)
    async with rig(settings(3, policy), lambda: broker, tmp_path) as running:
        running.start_aggregator()
        running.start_devices([ShiftTrainer(shift=shift) for shift in (1, 2, 3, 4, 5)])
        await running.until(lambda: len(running.reports) == 3, seconds=60)
        broker.faults = Faults()
    np.testing.assert_array_equal(running.model, 9 * ONES)
    for report in running.reports:
        assert report.received == report.accepted + report.duplicate + report.late + report.rejected
        assert report.accepted == 5


async def test_a_device_that_vanishes_is_not_waited_for(tmp_path: Path) -> None:
    broker, gate = MemoryBroker(), threading.Event()
    policy = Policy(min_devices=2, quorum=1, soft_deadline_s=60, hard_deadline_s=60)
    async with rig(settings(1, policy), lambda: broker, tmp_path) as running:
        running.start_aggregator()
        running.start_device("stays", ShiftTrainer(shift=1))
        running.start_device("vanishes", ShiftTrainer(shift=9, gate=lambda: gate.wait(20)))
        await running.until(lambda: running.devices["stays"].counters.verdicts.get("accepted"))
        assert not running.reports
        stopping = asyncio.create_task(running.stop("vanishes"))
        await running.until(lambda: running.reports, seconds=5)
        gate.set()
        await stopping
    np.testing.assert_array_equal(running.model, ONES)


# --- restarts ---------------------------------------------------------------------------------------------------------


async def _half_a_round(running: Rig, gate: threading.Event) -> None:
    """Run until two of three devices have their receipts and the third still trains."""
    running.start_aggregator()
    running.start_device("one", ShiftTrainer(shift=1))
    running.start_device("two", ShiftTrainer(shift=2))
    running.start_device("slow", ShiftTrainer(shift=6, gate=lambda: gate.wait(20)))
    accepted = ("one", "two")
    await running.until(
        lambda: all(running.devices[name].counters.verdicts.get("accepted") for name in accepted)
    )


async def test_an_aggregator_stopped_in_mid_round_goes_on_where_it_was(tmp_path: Path) -> None:
    broker, gate = MemoryBroker(), threading.Event()
    policy = Policy(min_devices=3, quorum=3, soft_deadline_s=60, hard_deadline_s=60)
    async with rig(settings(1, policy), lambda: broker, tmp_path) as running:
        await _half_a_round(running, gate)
        await running.stop("aggregator")
        running.start_aggregator()
        gate.set()
        await running.ended()
    np.testing.assert_array_equal(running.model, 3 * ONES)
    assert running.devices["one"].counters.rounds == 1, "what was receipted is not trained again"
    (report,) = running.reports
    assert (report.round, report.accepted) == (1, 3)


async def test_an_aggregator_started_after_its_end_stays_ended(tmp_path: Path) -> None:
    broker = MemoryBroker()
    async with rig(settings(2), lambda: broker, tmp_path) as running:
        running.start_aggregator()
        running.start_device("device", ShiftTrainer())
        await running.ended()
        running.start_aggregator()
        assert await running.ended() == "2 rounds are done"
    np.testing.assert_array_equal(running.model, 2 * ONES)


async def test_an_aggregator_whose_link_breaks_as_it_ends_tells_devices_before_it_goes(
    tmp_path: Path,
) -> None:
    broker = CutAtTheEnd()
    async with rig(settings(1), lambda: broker, tmp_path) as running:
        running.start_aggregator()
        running.start_device("device", ShiftTrainer())
        await running.ended()
    assert broker.tries == 2, "cut, and told again"


class CutAtTheEnd(MemoryBroker):
    """A broker whose link to the aggregator breaks on the task that ends the federation, the first time."""

    tries = 0

    def route(self, outgoing: Outgoing) -> None:
        if outgoing.topic == TOPICS.task and decode(outgoing.payload, Task).kind is TaskKind.STOP:
            self.tries += 1
            if self.tries == 1:
                self.cut("fedmq:test")
                raise ConnectionLost("cut")
        super().route(outgoing)


def _has_reports(running: Rig, count: int) -> bool:
    return len(running.reports) >= count


async def test_versions_and_rounds_go_forward_over_restarts(tmp_path: Path) -> None:
    broker = MemoryBroker()
    async with rig(settings(6), lambda: broker, tmp_path) as running:
        running.start_aggregator()
        running.start_device("device", ShiftTrainer())
        for done in (1, 3, 5):
            await running.until(partial(_has_reports, running, done))
            await running.stop("aggregator")
            running.start_aggregator()
        await running.ended()
    versions = [report.version for report in running.reports]
    rounds = [report.round for report in running.reports]
    assert versions == sorted(set(versions))
    assert rounds == sorted(set(rounds))
    np.testing.assert_array_equal(running.model, 6 * ONES)


async def test_a_broker_that_forgot_everything_is_told_again(tmp_path: Path) -> None:
    brokers = [MemoryBroker(), MemoryBroker()]
    gate = threading.Event()
    async with rig(settings(2), lambda: brokers[0], tmp_path) as running:
        running.start_aggregator()
        running.start_device("device", ShiftTrainer(gate=lambda: gate.wait(20)))
        await running.until(lambda: brokers[0].retained("fedmq/v1/test/all/task"))
        standing = brokers[0].retained("fedmq/v1/test/all/#")
        for topic in standing:
            wiper = await brokers[0].connect(Profile("wiper"))
            await wiper.publish(Outgoing(topic, b"", retain=True))
            await wiper.close()
        assert not brokers[0].retained("fedmq/v1/test/all/#")
        assert brokers[0].cut("fedmq:test")
        await running.until(lambda: brokers[0].retained("fedmq/v1/test/all/#").keys() == standing.keys())
        gate.set()
        await running.ended()
    np.testing.assert_array_equal(running.model, 2 * ONES)


async def test_a_device_sends_what_its_outbox_kept_and_does_not_train_again(tmp_path: Path) -> None:
    broker = MemoryBroker()
    blocked = Faults(drop=1.0, topics="fedmq/v1/test/up/+/update/#")
    policy = Policy(min_devices=1, quorum=1, soft_deadline_s=60, hard_deadline_s=60)
    async with rig(settings(1, policy), lambda: broker, tmp_path / "aggregator") as running:
        running.start_aggregator()
        broker.faults = blocked
        trainer = ShiftTrainer(shift=4)
        folder = tmp_path / "outbox"
        running.start_device("device", trainer, outbox=DiskOutbox(folder))
        await running.until(lambda: list(folder.glob("*.update")))
        await running.stop("device")
        broker.faults = Faults()
        again = ShiftTrainer(shift=100)
        running.start_device("device", again, outbox=DiskOutbox(folder))
        await running.ended()
        assert (trainer.trainings, again.trainings) == (1, 0)
        assert not list(folder.glob("*.update"))
    np.testing.assert_array_equal(running.model, 4 * ONES)


async def test_a_new_life_of_the_aggregator_has_lost_updates_sent_again_at_once(tmp_path: Path) -> None:
    broker = MemoryBroker()
    async with rig(settings(), lambda: broker, tmp_path) as running:
        running.start_aggregator()
        broker.faults = Faults(drop=1.0, topics="fedmq/v1/test/up/+/update/#")
        device = running.start_device("device", ShiftTrainer(shift=4))
        await running.until(lambda: device.counters.bytes_up)
        await running.stop("aggregator")
        broker.faults = Faults()
        running.start_aggregator()
        await running.until(
            lambda: device.counters.verdicts.get("accepted"), seconds=15
        )  # not the usual 30 s
        await running.ended()
    np.testing.assert_array_equal(running.model, 4 * ONES)


async def test_a_device_that_is_back_before_the_aggregator_sends_again_at_once(tmp_path: Path) -> None:
    """As after a power cut of the whole site: what it sends before somebody listens goes nowhere."""
    broker, folder = MemoryBroker(), tmp_path / "outbox"
    async with rig(settings(), lambda: broker, tmp_path / "aggregator") as running:
        running.start_aggregator()
        broker.faults = Faults(drop=1.0, topics="fedmq/v1/test/up/+/update/#")
        running.start_device("device", ShiftTrainer(shift=4), outbox=DiskOutbox(folder))
        await running.until(lambda: list(folder.glob("*.update")))
        await running.stop("device")
        await running.stop("aggregator")
        broker.wipe()
        broker.faults = Faults()
        device = running.start_device("device", ShiftTrainer(shift=100), outbox=DiskOutbox(folder))
        await running.until(lambda: device.counters.bytes_up)
        running.start_aggregator()
        await running.until(lambda: device.counters.verdicts.get("accepted"), seconds=15)  # not 30 s later
        await running.ended()
    np.testing.assert_array_equal(running.model, 4 * ONES)


async def test_a_full_disk_is_a_pause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import errno
    import os

    monkeypatch.setattr("fedmq.aggregator.intake.DISK_PAUSE_S", 0.02)
    broker, gate = MemoryBroker(), threading.Event()
    async with rig(settings(), lambda: broker, tmp_path) as running:
        running.start_aggregator()
        device = running.start_device("device", ShiftTrainer(gate=lambda: gate.wait(20)))
        await running.until(lambda: broker.retained("fedmq/v1/test/all/task"))

        def full(*_: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, "writev", full)
            gate.set()
            await running.until(lambda: "no receipts are given" in caplog.text)
            assert not device.counters.verdicts
        await running.ended()
    np.testing.assert_array_equal(running.model, ONES)


async def test_int8_updates_survive_the_journal(tmp_path: Path) -> None:
    broker = MemoryBroker()
    async with rig(
        settings(3, encoding=Encoding(up=parse("int8 | lzma"))), lambda: broker, tmp_path
    ) as running:
        running.start_aggregator()
        running.start_device("device", ShiftTrainer(shift=2))
        await running.ended()
    np.testing.assert_allclose(running.model, 6 * ONES, rtol=1e-6)
