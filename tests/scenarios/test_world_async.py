"""Asynchronous federations under fire: the same worlds, without rounds that anybody waits for."""

from __future__ import annotations

import pytest

from fedmq.protocol.policy import Policy
from fedmq.testing.violation import Violation
from fedmq.testing.world import Parts, World, main
from fedmq.testing.world_faults import Faults, Setting
from tests.scenarios.async_mutants import CROWDED, MUTANTS, SETTINGS

BLOCK = 500
SEEDS_FOR_A_MUTANT = 300


@pytest.mark.parametrize("first", range(0, 400, 100))
def test_no_promise_is_broken_without_rounds(first: int) -> None:
    for seed in range(first, first + 100):
        World(seed, asynchronous=True).run()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("first", range(0, 2_000, BLOCK))
def test_no_promise_is_broken_in_two_thousand_worlds_without_rounds(first: int) -> None:
    """Ten thousand take ten minutes: change the range to run them by hand."""
    for seed in range(first, first + BLOCK):
        World(seed, asynchronous=True).run()


def violation(name: str, parts: Parts) -> Violation | None:
    """Return what the first world that goes wrong with these parts says, None if none does."""
    for seed in range(SEEDS_FOR_A_MUTANT):
        try:
            World(seed, setting=SETTINGS.get(name), parts=parts, asynchronous=True).run()
        except Violation as found:
            return found
    return None


@pytest.mark.parametrize("name", MUTANTS)
def test_a_planted_fault_is_found(name: str) -> None:
    found = violation(name, MUTANTS[name])
    assert found is not None, f"{SEEDS_FOR_A_MUTANT} worlds did not mind"
    assert "--async --trace" in str(found)


def test_the_crowded_world_is_survived_without_a_fault() -> None:
    for seed in range(20):
        World(seed, setting=CROWDED).run()


def test_a_slow_device_holds_nobody_up_and_its_updates_count() -> None:
    policy = Policy(
        min_devices=3, quorum=1, soft_deadline_s=30.0, hard_deadline_s=60.0, buffer=2, max_staleness=50
    )
    world = World(3, setting=Setting(devices=5, policy=policy, storm_s=600.0, faults=Faults(straggle=0.3)))
    world.run()
    stepped = [report for report in world.invariants.reports if report.outcome == "stepped"]
    assert len(stepped) > 80
    assert max(report.metrics["staleness_max"] for report in stepped) > 5
    assert sum(report.late for report in stepped) == 0
    assert sum(report.accepted == 2 for report in stepped) > 0.95 * len(stepped)


def test_the_command_line_runs_worlds_without_rounds(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seed", "5", "--seeds", "3", "--async"]) == 0
    assert capsys.readouterr().out.startswith("3 worlds, ")
