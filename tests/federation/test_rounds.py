"""Aggregator and devices together, over the broker in memory: what comes out of a round."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from fedmq.aggregator.settings import Encoding, Federation
from fedmq.codecs import parse
from fedmq.protocol.messages import Manifest
from fedmq.protocol.policy import Policy, StopWhen
from fedmq.rules import PRESETS, Replace, preset
from fedmq.testing.federation import SMALL, ShiftTrainer, rig
from fedmq.transport.memory import Abilities, MemoryBroker
from fedmq.vectors import Layout, Variable
from fedmq.wire.envelope import decode
from fedmq.wire.topics import Topics

if TYPE_CHECKING:
    from pathlib import Path

TOPICS = Topics("test")
LARGE = Layout((Variable("w", (40_000,)), Variable("b", (17,))))


def federation(devices: int, rounds: int = 1, **changes: object) -> Federation:
    policy = Policy(min_devices=devices, quorum=devices, soft_deadline_s=60, hard_deadline_s=60)
    return Federation("test", policy=policy, stop=StopWhen(rounds=rounds), **changes)  # type: ignore[arg-type]


async def test_rounds_add_up(tmp_path: Path) -> None:
    broker = MemoryBroker()
    async with rig(federation(4, rounds=3), lambda: broker, tmp_path) as running:
        running.start_aggregator()
        running.start_devices([ShiftTrainer(shift=shift) for shift in (1, 2, 3, 6)])
        assert await running.ended() == "3 rounds are done"
    np.testing.assert_array_equal(running.model, np.full(SMALL.size, 9, np.float32))
    for number, report in enumerate(running.reports, 1):
        assert (report.round, report.version, report.outcome) == (number, number + 1, "stepped")
        assert report.expected == report.received == report.accepted == 4
        assert report.examples == 40
        assert report.bytes_up > 4 * SMALL.size


async def test_examples_weigh(tmp_path: Path) -> None:
    broker = MemoryBroker()
    async with rig(federation(2), lambda: broker, tmp_path) as running:
        running.start_aggregator()
        running.start_devices([ShiftTrainer(shift=0, examples=30), ShiftTrainer(shift=4, examples=10)])
        await running.ended()
    np.testing.assert_array_equal(running.model, np.ones(SMALL.size, np.float32))


REPLACING = sorted(name for name in PRESETS if isinstance(preset(name).step, Replace))


@pytest.mark.parametrize("codec", ["float32", "float32 | lzma"])
@pytest.mark.parametrize("name", REPLACING)
async def test_one_model_sent_by_all_averages_to_itself(tmp_path: Path, name: str, codec: str) -> None:
    """A published peer turns ones into 2.3, then 5.4, then 12.7."""
    encoding, rule = Encoding(up=parse(codec)), preset(name)
    target = np.random.default_rng(1).normal(size=SMALL.size).astype(np.float32)
    broker = MemoryBroker()
    async with rig(
        federation(3, rounds=3, rule=rule, encoding=encoding), lambda: broker, tmp_path
    ) as running:
        running.start_aggregator(first=target)
        metrics = {"accuracy": 0.5, "loss": 1.0}
        running.start_devices(
            [ShiftTrainer(become=lambda _: target, examples=n, metrics=metrics) for n in (1, 10, 999)]
        )
        await running.ended()
    np.testing.assert_array_equal(running.model, target)


@pytest.mark.parametrize("down", ["float32", "float16", "int8 | lzma"])
@pytest.mark.parametrize("key", ["float32", "float16", "int8"])
@pytest.mark.parametrize("every", [1, 3])
async def test_models_travel_in_key_frames_and_deltas(
    tmp_path: Path, down: str, key: str, every: int
) -> None:
    if every == 1 and down != "float32":
        pytest.skip("there are no deltas")
    broker = MemoryBroker()
    encoding = Encoding(
        up=parse("float32"), down=parse(down), key=parse(key), keyframe_every=every, chunk_bytes=4096
    )
    settings = federation(2, rounds=5, encoding=encoding)
    noise = np.random.default_rng(2).normal(size=LARGE.size).astype(np.float32)
    async with rig(settings, lambda: broker, tmp_path, LARGE) as running:
        running.start_aggregator(first=noise)
        running.start_devices([ShiftTrainer(LARGE, shift=0.25), ShiftTrainer(LARGE, shift=0.75)])
        await running.ended()
        held = {
            bytes(device.replica.vector.tobytes())
            for device in running.devices.values()
            if device.replica.vector is not None
        }
        whole = {topic.split("/")[-2] for topic in broker.retained("fedmq/v1/test/all/model/+/+")}
        deltas = {int(topic.split("/")[-2]) for topic in broker.retained("fedmq/v1/test/all/delta/+/+")}
        manifest = decode(broker.retained(TOPICS.manifest)[TOPICS.manifest], Manifest)
    assert len(held) == 1
    worst = np.abs(running.model - (noise + 2.5)).max()
    assert (
        worst <= {"float32": 2e-6, "float16": 0.01, "int8 | lzma": 0.3, "int8": 0.3}[max(down, key, key=len)]
    )
    assert whole == {f"{manifest.key}"} == {"6" if every == 1 else "4"}
    assert deltas == set(range(7 - len(manifest.deltas), 7)), "frames that lead nowhere any more are cleared"


async def test_long_updates_come_in_chunks(tmp_path: Path) -> None:
    broker = MemoryBroker(abilities=Abilities(packet_bytes=9000))
    async with rig(federation(3, rounds=2), lambda: broker, tmp_path, LARGE) as running:
        running.start_aggregator()
        running.start_devices([ShiftTrainer(LARGE, shift=shift) for shift in (1, 2, 6)])
        await running.ended()
    np.testing.assert_array_equal(running.model, np.full(LARGE.size, 6, np.float32))
    assert all(report.accepted == report.received == 3 for report in running.reports)


async def test_a_fraction_is_asked_and_everybody_s_turn_comes(tmp_path: Path) -> None:
    broker = MemoryBroker()
    policy = Policy(fraction=0.4, min_devices=10, quorum=1, soft_deadline_s=60, hard_deadline_s=60)
    settings = Federation("test", policy=policy, stop=StopWhen(rounds=12))
    trainers = [ShiftTrainer() for _ in range(10)]
    async with rig(settings, lambda: broker, tmp_path) as running:
        running.start_aggregator()
        running.start_devices(trainers)
        await running.ended()
    asked = [report.expected for report in running.reports]
    assert max(asked) < 10
    assert sum(asked) == sum(trainer.trainings for trainer in trainers)
    assert all(trainer.trainings for trainer in trainers)


async def test_target_and_patience_end_a_federation(tmp_path: Path) -> None:
    broker = MemoryBroker()
    policy = Policy(min_devices=1)
    settings = Federation("test", policy=policy, stop=StopWhen(rounds=50, patience=3))
    async with rig(settings, lambda: broker, tmp_path) as running:
        running.start_aggregator()
        running.start_device("device", ShiftTrainer(metrics={"accuracy": 0.7, "held_out": 5.0}))
        assert await running.ended() == "accuracy has not got better for 3 rounds"
    assert running.reports[-1].metrics == pytest.approx({"accuracy": 0.7, "held_out": 5.0})
    assert len(running.reports) == 4


async def test_a_late_joiner_finds_task_and_model(tmp_path: Path) -> None:
    broker = MemoryBroker()
    settings = Federation("test", policy=Policy(min_devices=1), stop=StopWhen(rounds=6))
    async with rig(settings, lambda: broker, tmp_path) as running:
        running.start_aggregator()
        running.start_device("early", ShiftTrainer(shift=1))
        await running.until(lambda: len(running.reports) >= 2)
        late = running.start_device("late", ShiftTrainer(shift=1))
        await running.ended()
    assert late.counters.verdicts.get("accepted", 0) >= 1
    np.testing.assert_array_equal(running.model, np.full(SMALL.size, 6, np.float32))


async def test_a_device_for_another_model_is_told_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broker = MemoryBroker()
    async with rig(federation(1, rounds=2), lambda: broker, tmp_path) as running:
        running.start_aggregator()
        other = running.start_device("other", ShiftTrainer(LARGE))
        running.start_device("right", ShiftTrainer())
        await running.ended()
    assert other.counters.rounds == 0
    assert "it was built for another model" in caplog.text


async def test_diverged_training_sends_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    broker = MemoryBroker()
    policy = Policy(min_devices=2, quorum=1, soft_deadline_s=1, hard_deadline_s=2)
    settings = Federation("test", policy=policy, stop=StopWhen(rounds=1))
    async with rig(settings, lambda: broker, tmp_path) as running:
        running.start_aggregator()
        running.start_devices([ShiftTrainer(shift=1), ShiftTrainer(become=lambda model: model * np.nan)])
        await running.ended()
    assert "training diverged" in caplog.text
    np.testing.assert_array_equal(running.model, np.ones(SMALL.size, np.float32))


async def test_too_few_updates_abandon_the_round_and_say_so(tmp_path: Path) -> None:
    def fail(_: object) -> None:
        from fedmq.errors import Refused

        raise Refused("no data today")

    broker = MemoryBroker()
    policy = Policy(min_devices=2, quorum=2, soft_deadline_s=0.2, hard_deadline_s=0.3)
    settings = Federation("test", policy=policy, stop=StopWhen(rounds=1, abandoned=2))
    async with rig(settings, lambda: broker, tmp_path) as running:
        running.start_aggregator()
        running.start_devices([ShiftTrainer(), ShiftTrainer(become=fail)])  # type: ignore[arg-type]
        assert await running.ended() == "2 rounds in a row were abandoned"
    assert [report.outcome for report in running.reports] == [
        "abandoned: 1 accepted at the deadline, the quorum is 2"
    ] * 2
    np.testing.assert_array_equal(running.model, np.zeros(SMALL.size, np.float32))
