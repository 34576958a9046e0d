"""Asynchronous federations with the real shells: a slow device among fast ones, staleness, restarts, mosquitto."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from fedmq.aggregator.modelling import Modelling
from fedmq.aggregator.settings import Federation
from fedmq.protocol.messages import DELTA, Facts, Update, Verdict
from fedmq.protocol.policy import Policy, StopWhen
from fedmq.rules import ExamplesBound, Finite, Rule, StalenessBound, StalenessDiscount
from fedmq.testing.federation import SMALL, Rig, ShiftTrainer, rig
from fedmq.transport.address import Credentials, open_transport
from fedmq.transport.memory import MemoryBroker
from fedmq.transport.mosquitto import private_mosquitto
from fedmq.wire.envelope import encode
from tests.federation.test_faults import Attacker
from tests.unit.protocol.stage import task

if TYPE_CHECKING:
    from pathlib import Path

    from fedmq.vectors import Vector

ONES = np.ones(SMALL.size, np.float32)
DISCOUNT = Rule(guards=(Finite(), ExamplesBound(), StalenessDiscount()))


def settings(buffer: int, rounds: int, devices: int, **changes: object) -> Federation:
    policy = Policy(
        min_devices=devices, soft_deadline_s=60, hard_deadline_s=60, buffer=buffer, max_staleness=16
    )
    given = {"policy": policy, "rule": DISCOUNT, **changes}
    return Federation("test", stop=StopWhen(rounds=rounds), **given)  # type: ignore[arg-type]


class Gate:
    """Lets so many trainings through as it was told to."""

    def __init__(self, permits: int = 0) -> None:
        self._permits = threading.Semaphore(permits)

    def let(self, trainings: int = 1) -> None:
        for _ in range(trainings):
            self._permits.release()

    def __call__(self) -> None:
        assert self._permits.acquire(timeout=30)


def let_go(*gates: Gate) -> None:
    """Let all trainings end, so that the devices can."""
    for gate in gates:
        gate.let(9)


def told(running: Rig, name: str, trainer: ShiftTrainer) -> list[tuple[int, str, str]]:
    """Start a device and return the list to which its verdicts will be added."""
    verdicts: list[tuple[int, str, str]] = []
    running.start_device(name, trainer, on_verdict=lambda *verdict: verdicts.append(verdict))
    return verdicts


async def a_slow_device_among_three(running: Rig) -> None:
    """Let buffers of three fill without the slow device, then have its update counted."""
    gate = Gate()
    running.start_aggregator()
    verdicts = told(running, "slow", ShiftTrainer(shift=8, gate=gate))
    running.start_devices([ShiftTrainer(shift=1) for _ in range(3)])
    await running.until(lambda: len(running.reports) >= 4)
    assert [report.accepted for report in running.reports[:4]] == [3] * 4
    gate.let()
    await running.until(lambda: verdicts)
    assert verdicts[0][:2] == (1, "accepted")
    await running.until(lambda: any(report.metrics["staleness_max"] >= 4 for report in running.reports))
    gate.let(100)
    await running.ended()


async def test_a_slow_device_holds_nobody_up_and_its_update_counts(tmp_path: Path) -> None:
    broker = MemoryBroker()
    async with rig(settings(3, 40, 4), lambda: broker, tmp_path) as running:
        await a_slow_device_among_three(running)
    assert all(report.accepted <= 3 for report in running.reports)


@pytest.mark.broker
async def test_a_slow_device_holds_nobody_up_over_a_real_broker(tmp_path: Path) -> None:
    async with (
        private_mosquitto() as broker,
        rig(settings(3, 40, 4), lambda: open_transport(broker.address, Credentials()), tmp_path) as running,
    ):
        await a_slow_device_among_three(running)


async def test_a_stale_update_is_discounted_by_its_staleness(tmp_path: Path) -> None:
    broker, slow, fast = MemoryBroker(), Gate(), Gate(3)
    async with rig(settings(1, 4, 2), lambda: broker, tmp_path) as running:
        running.start_aggregator()
        running.start_device("slow", ShiftTrainer(shift=8, gate=slow))
        running.start_device("fast", ShiftTrainer(shift=1, gate=fast))
        await running.until(lambda: len(running.reports) == 3)
        slow.let()
        await running.until(lambda: len(running.reports) == 4)
        let_go(fast, slow)
        await running.ended()
    # Three steps of 1, then 8 / sqrt(1 + 3); the statistic is not discounted.
    np.testing.assert_allclose(running.model[:-2], np.full(SMALL.size - 2, 7.0), rtol=1e-6)
    assert running.reports[3].metrics["staleness_max"] == 3.0


def test_an_older_update_is_decoded_with_the_seed_of_its_own_round(monkeypatch: pytest.MonkeyPatch) -> None:
    federation = settings(1, 3, 2)
    rounds: list[int] = []

    def noted(_: bytes, number: int, __: bytes) -> int:
        rounds.append(number)
        return 0

    modelling = Modelling.found(federation, b"run-one.", SMALL, np.zeros(SMALL.size, np.float32))
    monkeypatch.setattr("fedmq.aggregator.modelling.update_seed", noted)
    modelling.begin(task(5))
    update = Update(b"run-one.", b"update-1", 1, SMALL.digest, Facts(1, 1), {DELTA: ONES.tobytes()})
    modelling.absorb(update, 3)
    modelling.absorb(replace(update, update=b"update-2"))
    assert rounds == [3, 5]


async def test_a_guard_may_refuse_what_is_too_stale_and_the_device_hears_why(tmp_path: Path) -> None:
    broker, slow, fast = MemoryBroker(), Gate(), Gate(3)
    federation = settings(1, 4, 2, rule=Rule(guards=(StalenessBound(most=2),)))
    async with rig(federation, lambda: broker, tmp_path) as running:
        running.start_aggregator()
        verdicts = told(running, "slow", ShiftTrainer(shift=8, gate=slow))
        running.start_device("fast", ShiftTrainer(shift=1, gate=fast))
        await running.until(lambda: len(running.reports) == 3)
        slow.let()
        await running.until(lambda: verdicts)
        let_go(fast, slow)
        await running.ended()
    assert verdicts[0][:2] == (1, "rejected")
    assert "3 models ago" in verdicts[0][2]


async def test_an_update_beyond_the_bound_is_late_and_a_device_drops_it_unsent(tmp_path: Path) -> None:
    broker, slow, fast = MemoryBroker(), Gate(), Gate(3)
    policy = Policy(min_devices=2, soft_deadline_s=60, hard_deadline_s=60, buffer=1, max_staleness=1)
    async with rig(settings(1, 4, 2, policy=policy), lambda: broker, tmp_path) as running:
        running.start_aggregator()
        verdicts = told(running, "slow", ShiftTrainer(shift=8, gate=slow))
        running.start_device("fast", ShiftTrainer(shift=1, gate=fast))
        await running.until(lambda: len(running.reports) == 3)
        attacker = await Attacker.join(broker)
        await attacker.send(encode(attacker.update()), 1)
        receipt = await attacker.verdict()
        await attacker.leave()
        slow.let()
        await running.until(lambda: verdicts)
        let_go(fast, slow)
        await running.ended()
    assert receipt.verdict is Verdict.LATE
    assert verdicts[0][:2] == (1, "dropped")


async def filled_by_a_stale_update_and_a_fresh_one(folder: Path, *, restart: bool) -> Vector:
    """Fill the first buffer with fast devices, the second with a stale update, a restart, and a fresh one."""
    broker, slow, fast, other = MemoryBroker(), Gate(), Gate(1), Gate(1)
    async with rig(settings(2, 2, 3), lambda: broker, folder) as running:
        running.start_aggregator()
        verdicts = told(running, "slow", ShiftTrainer(shift=0.3, gate=slow))
        running.start_device("fast", ShiftTrainer(shift=0.1, gate=fast))
        running.start_device("other", ShiftTrainer(shift=0.7, gate=other))
        await running.until(lambda: len(running.reports) == 1)
        slow.let()
        await running.until(lambda: verdicts)
        assert verdicts[0][:2] == (1, "accepted")
        if restart:
            await running.stop("aggregator")
            running.start_aggregator()
        fast.let()
        await running.until(lambda: len(running.reports) == 2)
        let_go(slow, fast, other)
        await running.ended()
        assert running.reports[1].accepted == 2
        assert running.reports[1].metrics["staleness_max"] == 1.0
        return running.model


async def test_a_restart_in_mid_buffer_gives_the_same_model(tmp_path: Path) -> None:
    straight = await filled_by_a_stale_update_and_a_fresh_one(tmp_path / "a", restart=False)
    broken = await filled_by_a_stale_update_and_a_fresh_one(tmp_path / "b", restart=True)
    assert straight.tobytes() == broken.tobytes()
    assert np.ptp(straight[:-2]) == 0.0


async def test_a_burst_beyond_a_small_buffer_counts_everybody_once(tmp_path: Path) -> None:
    broker, gate = MemoryBroker(), Gate(8)
    async with rig(settings(1, 8, 8, rule=Rule()), lambda: broker, tmp_path) as running:
        running.start_aggregator()
        heard = [told(running, f"d{n}", ShiftTrainer(shift=1, gate=gate)) for n in range(8)]
        await running.until(lambda: len(running.reports) == 8)
        gate.let(99)
        await running.ended()
    np.testing.assert_array_equal(running.model, ONES * 8)
    assert [report.accepted for report in running.reports] == [1] * 8
    assert sum(verdict[1] == "accepted" for verdicts in heard for verdict in verdicts) == 8
