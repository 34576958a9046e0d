"""How long a fleet takes over what all of it would do at once."""

from __future__ import annotations

import pytest

from fedmq.protocol import coordination as co
from fedmq.protocol.pacing import LONGEST_S, is_outdated, spread_s
from fedmq.protocol.progress import Progress
from tests.unit.protocol.stage import Stage, born


@pytest.mark.parametrize(
    ("devices", "seconds"), [(0, 0), (29, 0), (90, 2), (1000, 17), (10_000, 167), (10**9, LONGEST_S)]
)
def test_sixty_a_second(devices: int, seconds: float) -> None:
    assert spread_s(devices) == seconds


@pytest.mark.parametrize(
    ("told", "wanted", "outdated"),
    [(0, 1, False), (0, 2, True), (17, 21, False), (17, 22, True), (17, 0, True)],
)
def test_a_change_worth_telling(told: float, wanted: float, outdated: bool) -> None:  # noqa: FBT001 - a row
    assert is_outdated(told, wanted) is outdated


def test_a_restart_remembers_how_many_devices_there_were() -> None:
    stage = Stage().opened(*(f"device-{number}" for number in range(40)))
    stage.accept("device-0")
    stage.tell(co.Ticked(), after=60.0)
    stage.step()
    again = Stage(progress=stage.machine.progress)
    assert (stage.machine.fleet, again.machine.fleet) == (40, 40)
    again.tell(co.Started(), born("device-0"), born("device-1"))  # the others are still coming in
    assert (len(again.machine.present), again.machine.fleet) == (2, 20)


def test_devices_that_stay_away_are_forgotten_in_some_rounds() -> None:
    progress = Progress(fleet=1000)
    for _ in range(10):
        progress = progress.seen(3)
    assert progress.fleet == 3
