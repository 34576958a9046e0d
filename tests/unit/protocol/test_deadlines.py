"""Deadlines that follow how fast updates come in: what they learn, what they forget, and what rounds cost then."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from fedmq.errors import ConfigError
from fedmq.protocol import coordination as co
from fedmq.protocol.coordinator import Coordinator
from fedmq.protocol.deadlines import (
    ENOUGH,
    KNOWN,
    LEAST_S,
    MARGIN,
    SEARCH_EVERY,
    forget,
    learn,
    soft_deadline_s,
)
from fedmq.protocol.messages import Facts
from fedmq.protocol.policy import Policy, StopWhen
from fedmq.protocol.progress import Progress
from tests.unit.protocol.stage import LAYOUT, RUN, TERMS, Stage, born

if TYPE_CHECKING:
    from collections.abc import Callable

    from fedmq.protocol.messages import Report

POLICY = Policy(min_devices=2, quorum=1, soft_deadline_s=60.0, hard_deadline_s=120.0, adaptive=True)


def after(*arrivals: float, number: int = 7) -> Progress:
    return Progress(round=number, arrivals=arrivals)


def test_twice_what_was_usual() -> None:
    assert soft_deadline_s(POLICY, after(4.0, 5.0, 6.0)) == MARGIN * 5.0


def test_one_slow_round_moves_nothing() -> None:
    usual = after(4.0, 5.0, 5.0, 6.0)
    assert soft_deadline_s(POLICY, learn(usual, [300.0])) == soft_deadline_s(POLICY, usual)


@pytest.mark.parametrize(
    ("progress", "seconds"),
    [
        (after(), 60.0),
        (after(*[1.0] * (ENOUGH - 1)), 60.0),
        (after(50.0, 50.0, 50.0), 60.0),
        (after(0.1, 0.1, 0.1), LEAST_S),
        (after(4.0, 5.0, 6.0, number=SEARCH_EVERY), 60.0),
    ],
    ids=["nothing known", "little known", "never later", "not too soon", "a search"],
)
def test_the_policys_deadline_and_the_shortest_are_the_limits(progress: Progress, seconds: float) -> None:
    assert soft_deadline_s(POLICY, progress) == seconds


def test_a_policy_that_is_not_adaptive_stays_as_it_is() -> None:
    assert soft_deadline_s(replace(POLICY, adaptive=False), after(4.0, 5.0, 6.0)) == 60.0


def test_the_slowest_fifth_does_not_count() -> None:
    assert learn(after(), [3.0, 1.0, 900.0, 2.0, 4.0]).arrivals == (4.0,)
    assert learn(after(), [3.0]).arrivals == (3.0,)
    assert learn(after(2.0), []).arrivals == (2.0,)


def test_the_last_rounds_count() -> None:
    progress = after()
    for second in range(10):
        progress = learn(progress, [float(second)])
    assert progress.arrivals == tuple(float(second) for second in range(10 - KNOWN, 10))


def test_what_a_search_finds_takes_the_place_of_what_was_known() -> None:
    assert learn(after(4.0, 5.0, 6.0, number=SEARCH_EVERY), [20.0]).arrivals == (20.0,) * ENOUGH


def test_a_round_that_came_to_nothing_is_no_guide() -> None:
    assert forget(after(4.0, 5.0)).arrivals == ()
    stage = Stage(replace(POLICY, quorum=2), progress=after(4.0, 5.0, 6.0)).opened()
    stage.tell(co.Ticked(), after=120.0)
    assert stage.machine.progress.arrivals == ()


def test_a_restart_goes_on_with_what_was_known_and_measures_no_round_that_it_broke() -> None:
    progress = after(4.0, 5.0, 6.0)
    stage = Stage(POLICY, progress=progress).opened()
    again = Stage(POLICY, progress=progress)
    again.tell(co.Started(stage.machine.task), born("ada"), born("bob"))
    again.accept("ada", "bob")
    again.tell(co.Ticked(), after=6.0)
    again.step()
    assert again.machine.progress.arrivals == progress.arrivals
    again.accept("ada", "bob")
    again.step()
    assert len(again.machine.progress.arrivals) == 4


def test_an_asynchronous_federation_has_nothing_to_adapt() -> None:
    with pytest.raises(ConfigError, match="waits for nobody"):
        replace(POLICY, buffer=5)


# --- a fleet in virtual time ------------------------------------------------------------------------------------------


@dataclass
class Fleet:
    """Devices that answer each task after a time that `answers` draws, or never (None); nobody is seen to go."""

    policy: Policy
    answers: Callable[[Random, int], float | None]
    devices: int = 40
    now: float = 0.0
    reports: list[Report] = field(default_factory=list)
    _heap: list[tuple[float, int, Any]] = field(default_factory=list)

    def run(self, rounds: int, seed: int = 1) -> Fleet:
        self._random, self._machine = Random(seed), Coordinator(TERMS, self.policy, StopWhen())
        self._tell(co.Started())
        for number in range(self.devices):
            self._tell(born(f"device-{number}"))
        while len(self.reports) < rounds:
            self.now, _, event = heappop(self._heap)
            self._tell(event)
        return self

    def _later(self, seconds: float, event: co.CoordinatorEvent) -> None:
        heappush(self._heap, (self.now + seconds, len(self._heap) + int(1e6 * self._random.random()), event))

    def _tell(self, event: co.CoordinatorEvent) -> None:
        for effect in self._machine.handle(event, self.now):
            match effect:
                case co.Announce(task):
                    for number in range(self.devices):
                        seconds = self.answers(self._random, number)
                        if seconds is not None:
                            name = f"device-{number}"
                            offered = co.Offered(name, RUN, task.round, b"%d" % number, 10)
                            self._later(seconds, offered)
                case co.Keep(device, round_, update):
                    self._later(
                        0.0, co.Completed(device, round_, update, self._machine.progress.version, LAYOUT)
                    )
                case co.Absorb(device, round_, update):
                    self._later(0.0, co.Absorbed(device, round_, update, Facts(1)))
                case co.Finish(round_, version):
                    self._later(0.0, co.Stepped(round_, version))
                case co.WakeAt(time):
                    self._later(time - self.now, co.Ticked())
                case co.Tell(report):
                    self.reports.append(report)

    @property
    def mean_s(self) -> float:
        return sum(report.seconds for report in self.reports) / len(self.reports)

    def in_time(self, quorum_s: float) -> float:
        """Share of rounds that moved the model within this time."""
        good = [r for r in self.reports if r.outcome == "stepped" and r.seconds <= quorum_s + 1e-6]
        return len(good) / len(self.reports)


def drop_outs(random: Random, _: int) -> float | None:
    """Three in ten never answer, the others mostly within some seconds."""
    return None if random.random() < 0.3 else random.lognormvariate(1.0, 0.5)


def stragglers(random: Random, number: int) -> float:
    """One device in ten is twenty times slower than the others."""
    return random.lognormvariate(1.0, 0.3) * (20.0 if number % 10 == 0 else 1.0)


TIGHT = Policy(min_devices=40, quorum=16, soft_deadline_s=30.0, hard_deadline_s=60.0)


@pytest.mark.parametrize("adaptive", [False, True])
def test_with_three_in_ten_dropping_out_rounds_end_by_their_deadline(adaptive: bool) -> None:  # noqa: FBT001 - a row
    fleet = Fleet(replace(TIGHT, adaptive=adaptive), drop_outs).run(100)
    assert fleet.in_time(TIGHT.soft_deadline_s) >= 0.99
    assert min(report.accepted for report in fleet.reports) >= TIGHT.quorum


def test_adaptive_rounds_do_not_wait_for_stragglers_and_keep_the_quorum() -> None:
    fixed, adaptive = (Fleet(replace(TIGHT, adaptive=on), stragglers).run(60) for on in (False, True))
    assert fixed.mean_s > 25.0
    assert adaptive.mean_s < 0.4 * fixed.mean_s
    assert adaptive.in_time(TIGHT.soft_deadline_s) == 1.0
    assert min(report.accepted for report in adaptive.reports) >= 30


def test_a_fleet_that_becomes_slower_is_found_out() -> None:
    """Half of it, of a sudden, is slower than the deadline that was learnt."""
    slow: list[bool] = []

    def answers(random: Random, number: int) -> float:
        return random.lognormvariate(1.0, 0.2) * (5.0 if slow and number % 2 else 1.0)

    policy = replace(TIGHT, adaptive=True, quorum=10)
    fleet = Fleet(policy, answers).run(12)
    slow.append(True)
    while len(fleet.reports) < 40:
        fleet.now, _, event = heappop(fleet._heap)
        fleet._tell(event)
    assert [report.accepted for report in fleet.reports[13:18]] == [20] * 5
    assert all(report.accepted >= 36 for report in fleet.reports[21:29])
