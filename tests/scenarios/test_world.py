"""Simulated federations under fire: what is promised holds, and what is broken on purpose is found."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import pytest

from fedmq.protocol.policy import Policy
from fedmq.testing.violation import Violation
from fedmq.testing.world import Parts, Summary, World, main
from fedmq.testing.world_faults import Faults, Setting
from tests.scenarios.mutants import LIVENESS, SAFETY, SETTINGS

BLOCK = 500
SEEDS_FOR_A_MUTANT = 200


@pytest.mark.parametrize("first", range(0, 400, 100))
def test_no_promise_is_broken(first: int) -> None:
    for seed in range(first, first + 100):
        World(seed).run()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", range(0, 10_000, BLOCK))
def test_no_promise_is_broken_in_ten_thousand_worlds(first: int) -> None:
    for seed in range(first, first + BLOCK):
        World(seed).run()


def test_a_thousand_rounds_with_drops_duplicates_and_reordering() -> None:
    setting = Setting(
        devices=4,
        policy=Policy(min_devices=3, quorum=2, soft_deadline_s=30.0, hard_deadline_s=60.0),
        chunks=2,
        storm_s=10_000.0,
        faults=Faults(drop=0.05, duplicate=0.2, stray=0.05, fetch_fails=0.02),
    )
    world = World(1, setting=setting)
    world.begin()
    assert world.run_until(1e6, lambda: len(world.invariants.reports) >= 1000)
    assert sum(report.outcome == "stepped" for report in world.invariants.reports) > 990
    assert sum(report.duplicate for report in world.invariants.reports) > 100


def test_a_world_without_faults_counts_everybody_in_every_round() -> None:
    world = World(1, setting=Setting(devices=5, policy=Policy(min_devices=5, quorum=5), storm_s=300.0))
    world.run()
    stepped = [report for report in world.invariants.reports if report.outcome == "stepped"]
    assert len(stepped) > 10
    assert all((report.accepted, report.received) == (5, 5) for report in stepped)


def history(seed: int) -> tuple[list[str], Summary]:
    lines: list[str] = []
    return lines, World(seed, note=lines.append).run()


def test_a_seed_tells_the_same_story_twice() -> None:
    assert history(3) == history(3)
    assert history(3) != history(4)


def test_a_seed_tells_the_same_story_in_every_process() -> None:
    command = [sys.executable, "-m", "fedmq.testing.world", "--seed", "11", "--trace"]
    stories = set()
    for hash_seed in ("1", "2"):
        told = subprocess.run(
            command, check=True, capture_output=True, env={**os.environ, "PYTHONHASHSEED": hash_seed}
        ).stdout
        events = told.rpartition(b"\n1 worlds")[0]
        assert len(events) > 10_000
        stories.add(hashlib.sha256(events).hexdigest())
    assert len(stories) == 1


def violation(name: str, parts: Parts) -> Violation | None:
    """Return what the first world that goes wrong with these parts says, None if none does."""
    for seed in range(SEEDS_FOR_A_MUTANT):
        try:
            World(seed, setting=SETTINGS.get(name), parts=parts).run()
        except Violation as found:
            return found
    return None


@pytest.mark.parametrize("name", [*SAFETY, *LIVENESS])
def test_a_planted_fault_is_found(name: str) -> None:
    found = violation(name, {**SAFETY, **LIVENESS}[name])
    assert found is not None, f"{SEEDS_FOR_A_MUTANT} worlds did not mind"
    assert "--trace" in str(found)


@pytest.mark.parametrize("setting", dict.fromkeys(SETTINGS.values()))
def test_the_settings_made_for_planted_faults_are_survived_without_them(setting: Setting) -> None:
    for seed in range(20):
        World(seed, setting=setting).run()


def test_the_command_line_runs_worlds_and_tells_how_many(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seed", "5", "--seeds", "3"]) == 0
    assert capsys.readouterr().out.startswith("3 worlds, ")


def test_the_command_line_fails_with_the_line_that_repeats_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(World, "calm", lambda self: 1 / 0)
    assert main(["--seed", "7", "--trace"]) == 1
    assert capsys.readouterr().out.endswith("to see it: python -m fedmq.testing.world --seed 7 --trace\n")
