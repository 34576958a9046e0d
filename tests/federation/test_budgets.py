"""Budgets with the real shells: codecs that are turned while updates of earlier rounds come in, and metered links."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest

from fedmq.aggregator.settings import Encoding, Federation
from fedmq.aggregator.steering import PREFIX, Budget
from fedmq.codecs import parse
from fedmq.codecs.rate import require_dial
from fedmq.config.kept import written
from fedmq.device.metering import Meter
from fedmq.protocol.policy import Policy, StopWhen
from fedmq.protocol.quantities import ByteCount
from fedmq.replay.course import Candidate, Replay
from fedmq.rules import Rule, StalenessBound, preset
from fedmq.simulate.narration import line
from fedmq.simulate.runfolder import RoundRow
from fedmq.store.archive import UPDATES, Archive, read_archive
from fedmq.testing.federation import Rig, ShiftTrainer, rig
from fedmq.transport.memory import MemoryBroker
from fedmq.vectors import Layout, Variable

if TYPE_CHECKING:
    from pathlib import Path

    from fedmq.vectors import Vector

WIDE = Layout((Variable("w", (100, 200)),))
BUDGET = 900
NOISY = "rotate | sample(0.05) | eden"


def settings(rounds: int, encoding: Encoding, **policy: object) -> Federation:
    given = {"min_devices": 2, "quorum": 2, "soft_deadline_s": 60, "hard_deadline_s": 60, **policy}
    return Federation(
        "test",
        policy=Policy(**given),  # type: ignore[arg-type]
        stop=StopWhen(rounds=rounds),
        encoding=encoding,
        rule=Rule((StalenessBound(16),)),
    )


def budget(up: str = NOISY, **more: int) -> Encoding:
    return Encoding(up=parse(up), budget=Budget(up=ByteCount(BUDGET), **more))  # type: ignore[arg-type]


def learner(seed: int, gate: threading.Event | None = None) -> ShiftTrainer:
    rng = np.random.default_rng(seed)

    def become(model: Vector) -> Vector:
        moved: Vector = model + rng.standard_t(3, WIDE.size).astype(np.float32)
        return moved

    return ShiftTrainer(WIDE, become=become, gate=None if gate is None else lambda: gate.wait(20))


def shares(running: Rig) -> list[float]:
    return [report.metrics[f"{PREFIX}up_bytes"] / BUDGET for report in running.reports]


async def test_updates_meet_their_budget_and_reports_say_so(tmp_path: Path) -> None:
    broker = MemoryBroker()
    async with rig(settings(5, budget()), lambda: broker, tmp_path, WIDE) as running:
        running.start_aggregator()
        running.start_devices([learner(1), learner(2)])
        await running.ended()
    assert shares(running)[0] < 0.5
    assert all(0.9 <= share <= 1.0 for share in shares(running)[2:])
    row = RoundRow.of(running.reports[-1], 1, 1)
    assert set(row.budget) == {PREFIX + name for name in ("up", "up_bytes", "up_share")}
    assert "of 900 B a device at share 0." in line(row, 5)


async def test_feedback_and_entropy_coding_meet_it_too(tmp_path: Path) -> None:
    broker = MemoryBroker()
    encoding = budget("feedback | deadzone(1) | bitmap | lzma")
    async with rig(settings(14, encoding), lambda: broker, tmp_path, WIDE) as running:
        running.start_aggregator()
        running.start_devices([learner(1), learner(2)])
        await running.ended()
    assert shares(running)[0] > 2
    assert 0.6 < np.mean(shares(running)[-6:]) < 1.2, shares(running)


async def test_steps_between_models_meet_theirs(tmp_path: Path) -> None:
    encoding = Encoding(
        down=parse("deadzone(1) | bitmap | lzma"), keyframe_every=20, budget=Budget(down=ByteCount(BUDGET))
    )
    broker = MemoryBroker()
    async with rig(settings(9, encoding), lambda: broker, tmp_path, WIDE) as running:
        running.start_aggregator()
        running.start_devices([learner(1), learner(2)])
        await running.ended()
        held = [device.replica for device in running.devices.values()]
    assert [replica.version for replica in held] == [9, 9], "the last model is fetched by nobody"
    frames = running.aggregator.modelling.weights.frames  # type: ignore[union-attr]
    assert len({frame.codec for frame in frames}) > 3, "the codec was never turned: the test shows nothing"
    taken = [report.metrics[f"{PREFIX}down_bytes"] for report in running.reports]
    assert taken[0] > 2 * BUDGET
    assert all(count <= 1.1 * BUDGET for count in taken[-3:])


def recording(running: Rig) -> Archive:
    return Archive(running.folder / UPDATES, written(running.federation), 2**30)


async def test_late_updates_are_decoded_as_of_their_round_through_a_restart_and_in_a_replay(
    tmp_path: Path,
) -> None:
    federation = settings(6, budget(), buffer=2, quorum=1, max_staleness=16)
    broker, gate = MemoryBroker(), threading.Event()
    async with rig(federation, lambda: broker, tmp_path, WIDE) as running:
        running.start_aggregator(archive=recording(running))
        running.start_device("slow", learner(1, gate))
        for number in (2, 3):
            running.start_device(f"device-{number}", learner(number))
        await running.until(lambda: len(running.reports) >= 3)
        await running.stop("aggregator")
        running.start_aggregator(archive=recording(running))
        gate.set()
        await running.ended()
    assert all(report.rejected == 0 for report in running.reports)
    found = read_archive(tmp_path / UPDATES)
    codecs = {codec for kept in found.rounds for _, codec in kept.codecs}
    assert len(codecs) > 1, "the codec was never turned: the test shows nothing"
    assert max(report.metrics["staleness_max"] for report in running.reports) >= 2
    replay = Replay(found, [Candidate("other", preset("average"))])
    assert all(points[0].same for points in replay.run())


async def test_a_restart_goes_on_with_the_codec_as_it_was_turned(tmp_path: Path) -> None:
    broker = MemoryBroker()
    async with rig(settings(6, budget()), lambda: broker, tmp_path, WIDE) as running:
        running.start_aggregator()
        running.start_devices([learner(1), learner(2)])
        await running.until(lambda: len(running.reports) >= 4)
        await running.stop("aggregator")
        again = running.start_aggregator()
    turned = parse(again._coordinator.terms.codec)
    assert turned != parse(NOISY)
    assert require_dial(turned).value == pytest.approx(
        running.reports[-1].metrics[f"{PREFIX}up_share"], rel=0.1
    )


class Days(Meter):
    """A meter whose next day begins when a test says so."""

    def __init__(self, limit: int) -> None:
        self.now, self.midnight = 1e9, asyncio.Event()
        super().__init__(limit, clock=lambda: self.now)

    async def tomorrow(self) -> None:
        await self.midnight.wait()
        self.midnight.clear()
        self.now += 86_400


async def test_a_device_whose_day_is_used_up_takes_no_part_until_the_next(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    meter = Days(4 * WIDE.size * 5)  # two models down, two updates up, and some
    caplog.set_level("INFO")
    broker, federation = MemoryBroker(), settings(50, Encoding(), min_devices=1, quorum=1)
    async with rig(federation, lambda: broker, tmp_path, WIDE) as running:
        metered = running.start_device("metered", learner(1), meter=meter)
        running.start_aggregator()
        await running.until(lambda: "round 3 takes" in caplog.text)
        assert metered.counters.rounds == 2
        assert meter.used <= 4 * WIDE.size * 5
        meter.midnight.set()
        await running.until(lambda: metered.counters.rounds == 4)
        assert metered.counters.verdicts["accepted"] >= 3


async def test_an_update_that_is_stored_when_the_day_is_used_up_waits_for_the_next(tmp_path: Path) -> None:
    meter = Days(4 * WIDE.size + 2_000)  # one model down, and no update up
    broker, federation = MemoryBroker(), settings(1, Encoding(), min_devices=1, quorum=1)
    async with rig(federation, lambda: broker, tmp_path, WIDE) as running:
        metered = running.start_device("metered", learner(1), meter=meter)
        running.start_aggregator()
        await running.until(lambda: metered.counters.rounds == 1)
        assert meter.left is not None
        assert meter.left < 4 * WIDE.size
        assert (metered.counters.bytes_up, running.reports) == (0, [])
        meter.limit = 8 * WIDE.size
        meter.midnight.set()
        assert await running.ended() == "1 rounds are done"
    assert metered.counters.verdicts == {"accepted": 1}
