"""Kept updates: exactly the accepted ones, round for round, through restarts, limits and full disks."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest

from fedmq.aggregator.keeping import kept_updates
from fedmq.aggregator.settings import Encoding, Federation
from fedmq.codecs import parse
from fedmq.config.kept import written
from fedmq.errors import StoreError
from fedmq.protocol.policy import Policy, StopWhen
from fedmq.replay.course import Candidate, Replay
from fedmq.rules import Adam, ByExamples, ByFreshness, BySchedule, Momentum, NormBound, Rule, Stage, preset
from fedmq.store.archive import UPDATES, Archive, read_archive
from fedmq.testing.federation import SMALL, Rig, ShiftTrainer, rig
from fedmq.transport.memory import Abilities, MemoryBroker
from fedmq.vectors import Layout, Variable

if TYPE_CHECKING:
    from pathlib import Path

LARGE = Layout((Variable("w", (200, 100)), Variable("b", (7,))))


def settings(rounds: int = 3, **changes: object) -> Federation:
    policy = Policy(min_devices=3, quorum=2, soft_deadline_s=60, hard_deadline_s=60)
    return Federation("test", policy=policy, stop=StopWhen(rounds=rounds), **changes)  # type: ignore[arg-type]


def archive(running: Rig, most_bytes: int = 2**30) -> Archive:
    return Archive(running.folder / UPDATES, written(running.federation), most_bytes)


async def run(
    folder: Path, federation: Federation, layout: Layout = SMALL, broker: MemoryBroker | None = None
) -> Rig:
    there = broker or MemoryBroker()
    async with rig(federation, lambda: there, folder, layout) as running:
        running.start_aggregator(archive=archive(running))
        rng = np.random.default_rng(1)
        running.start_devices(
            [
                ShiftTrainer(
                    layout,
                    examples=10 * n,
                    become=lambda m: m + np.float32(0.1) * rng.random(m.size, np.float32),
                )
                for n in (1, 2, 3)
            ]
        )
        await running.ended()
    return running


FEDERATIONS = {
    "plain": settings(),
    "weighted, with momentum": settings(rule=preset("fedavgm")),
    "adaptive, int8 and delta frames": settings(
        rounds=5,
        rule=Rule(weigh=ByExamples(), step=Adam()),
        encoding=Encoding(parse("safe"), parse("half"), 3, parse("half")),
    ),
    "rules one after the other": settings(
        rule=BySchedule((Stage(preset("fedadam"), rounds=2), Stage(preset("fedavgm")))),
        encoding=Encoding(parse("int8")),
    ),
}


@pytest.mark.parametrize("name", FEDERATIONS)
async def test_the_recorded_rule_gives_every_model_again(tmp_path: Path, name: str) -> None:
    running = await run(tmp_path, FEDERATIONS[name])
    recording = read_archive(tmp_path / UPDATES)
    rounds = FEDERATIONS[name].stop.rounds
    assert [kept.round for kept in recording.rounds] == list(range(1, rounds + 1))
    replay = Replay(recording, [Candidate("other", preset("average"))])
    points = list(replay.run())
    assert all(recorded.same for recorded, _ in points)
    assert replay.courses[0].faithful
    assert replay._runners[0].weights.vector.tobytes() == running.model.tobytes()


async def test_updates_in_chunks_are_kept_as_well(tmp_path: Path) -> None:
    broker = MemoryBroker(abilities=Abilities(packet_bytes=9000))
    await run(tmp_path, settings(2), LARGE, broker)
    replay = Replay(read_archive(tmp_path / UPDATES), [])
    assert [[point.updates for point in points] for points in replay.run()] == [[3], [3]]
    assert replay.courses[0].faithful


async def test_updates_that_answer_earlier_rounds_are_kept_with_those(tmp_path: Path) -> None:
    """Asynchronously: each with the round that seeds its codec, and the model that its staleness counts from."""
    policy = Policy(min_devices=2, quorum=1, buffer=2, soft_deadline_s=60, hard_deadline_s=60)
    federation = Federation(
        "test",
        rule=Rule(weigh=ByFreshness(), step=Momentum()),
        policy=policy,
        stop=StopWhen(rounds=8),
        encoding=Encoding(parse("int8")),
    )
    broker, gate = MemoryBroker(), threading.Event()
    async with rig(federation, lambda: broker, tmp_path) as running:
        running.start_aggregator(archive=archive(running))
        rng = np.random.default_rng(1)
        waits = [lambda: gate.wait(20), None, None]
        for number, wait in enumerate(waits):
            running.start_device(
                f"device-{number}",
                ShiftTrainer(become=lambda m: m + rng.random(m.size, np.float32), gate=wait),
            )
        await running.until(lambda: len(running.reports) >= 3)
        gate.set()
        await running.ended()
    recording = read_archive(tmp_path / UPDATES)
    answered = [
        kept.round - round_ for kept in recording.rounds for _, round_ in kept_updates(recording, kept)
    ]
    assert max(answered) >= 1, "none was stale: the test shows nothing"
    replay = Replay(recording, [Candidate("other", preset("average"))])
    assert all(points[0].same for points in replay.run())
    assert len(replay.courses[0].points) == 8


async def test_only_accepted_updates_are_kept(tmp_path: Path) -> None:
    broker = MemoryBroker()
    federation = settings(1, rule=Rule(guards=(NormBound(limit=20.0),)))
    async with rig(federation, lambda: broker, tmp_path) as running:
        running.start_aggregator(archive=archive(running))
        running.start_devices([ShiftTrainer(shift=1), ShiftTrainer(shift=2), ShiftTrainer(shift=1000)])
        await running.ended()
    recording = read_archive(tmp_path / UPDATES)
    (kept,) = recording.rounds
    assert kept.updates == 2
    pieces = list(recording.pieces(kept))
    assert [piece.device for piece in pieces] == ["device-0", "device-1"]
    assert len(list(kept_updates(recording, kept))) == 2


async def test_nothing_is_kept_unless_it_is_said(tmp_path: Path) -> None:
    broker = MemoryBroker()
    async with rig(settings(1), lambda: broker, tmp_path) as running:
        running.start_aggregator()
        running.start_devices([ShiftTrainer()] * 3)
        await running.ended()
    assert not (tmp_path / UPDATES).exists()
    assert not list(tmp_path.rglob("*.updates"))


async def test_a_round_that_a_restart_interrupted_is_kept_whole(tmp_path: Path) -> None:
    broker, gate = MemoryBroker(), threading.Event()
    async with rig(settings(2), lambda: broker, tmp_path) as running:
        running.start_aggregator(archive=archive(running))
        running.start_devices([ShiftTrainer(shift=1), ShiftTrainer(shift=2)])
        running.start_device("slow", ShiftTrainer(shift=6, gate=lambda: gate.wait(20)))
        names = ("device-0", "device-1")
        await running.until(
            lambda: all(running.devices[name].counters.verdicts.get("accepted") for name in names)
        )
        await running.stop("aggregator")
        running.start_aggregator(archive=archive(running))
        gate.set()
        await running.ended()
    replay = Replay(read_archive(tmp_path / UPDATES), [])
    assert [points[0].updates for points in replay.run()] == [3, 3]
    assert replay.courses[0].faithful


async def test_rounds_that_the_checkpoint_does_not_know_are_closed_and_kept_again(tmp_path: Path) -> None:
    """As after a crash between the two writes: what is kept is ahead of the checkpoint, and must not stay."""
    state, updates = tmp_path / "state", tmp_path / "state" / UPDATES
    await run(state, settings(2))
    known = {path.name: path.read_bytes() for path in state.glob("checkpoint-?.npz")}
    await run(state, settings(4))
    ahead = read_archive(updates)
    assert [kept.version for kept in ahead.rounds] == [2, 3, 4, 5]
    for name, content in known.items():
        (state / name).write_bytes(content)
    await run(state, settings(3))
    again = read_archive(updates)
    assert [kept.version for kept in again.rounds] == [2, 3, 4]
    assert again.rounds[:2] == ahead.rounds[:2]
    assert all(points[0].same for points in Replay(again, []).run())


async def test_at_the_limit_keeping_stops_and_the_federation_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await run(tmp_path / "all", settings(4))
    everything = read_archive(tmp_path / "all" / UPDATES)
    room = sum(path.stat().st_size for path in (tmp_path / "all" / UPDATES / "start").iterdir())
    room += sum(everything.path(kept).stat().st_size for kept in everything.rounds[:2])
    broker = MemoryBroker()
    async with rig(settings(4), lambda: broker, tmp_path / "few") as running:
        running.start_aggregator(archive=archive(running, room + 64))
        running.start_devices([ShiftTrainer(examples=10 * n) for n in (1, 2, 3)])
        assert await running.ended() == "4 rounds are done"
        assert "keep_bytes is reached" in caplog.text
        assert [kept.round for kept in read_archive(tmp_path / "few" / UPDATES).rounds] == [1, 2]
        assert not list((tmp_path / "few" / UPDATES).glob("*.new"))
        running.start_aggregator(archive=archive(running))
        await running.ended()
    assert "no more updates are kept" in caplog.text


async def test_a_disk_that_refuses_ends_the_keeping_not_the_federation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    keep = Archive.keep

    def refuse(self: Archive, kept: object, pieces: object) -> bool:
        if getattr(kept, "round", 0) == 2:
            raise StoreError("the disk is full")
        return keep(self, kept, pieces)  # type: ignore[arg-type]

    monkeypatch.setattr(Archive, "keep", refuse)
    await run(tmp_path, settings(3))
    assert [kept.round for kept in read_archive(tmp_path / UPDATES).rounds] == [1]
    assert "round 2's updates and later ones are not kept: the disk is full" in caplog.text


async def test_another_run_s_updates_are_not_mixed_in(tmp_path: Path) -> None:
    await run(tmp_path, settings(1))
    for checkpoint in tmp_path.glob("checkpoint-?.npz"):
        checkpoint.unlink()
    with pytest.raises(StoreError, match="another run's updates"):
        await run(tmp_path, settings(1))
