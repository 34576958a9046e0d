"""Who is there: by birth and will, and by whatever else is heard of a device."""

from __future__ import annotations

from typing import Any

import pytest

from fedmq.protocol import coordination as co
from fedmq.protocol.cohort import in_cohort
from fedmq.protocol.coordinator import Phase, Progress
from fedmq.protocol.policy import Policy
from tests.unit.protocol.stage import OTHER_LAYOUT, Stage, born


def waiting() -> Stage:
    """Return a federation that has closed three rounds, and waits for devices after a restart."""
    stage = Stage(progress=Progress(round=3))
    stage.tell(co.Started())
    return stage


# --- devices whose birth got lost -------------------------------------------------------------------------------------


@pytest.mark.parametrize("question", [None, 7])
def test_an_update_of_a_device_opens_a_round_as_its_birth_would(question: int | None) -> None:
    stage = waiting()
    stage.tell(born("ada"))
    stage.offer("ada", question=question)
    assert stage.at(Phase.WAITING)
    stage.offer("bob", question=question)
    assert stage.at(Phase.OPEN)
    assert stage.machine.present.keys() == {"ada", "bob"}


@pytest.mark.parametrize("other", [{"run": b"run-two."}, {"round": 4}])
def test_what_nobody_has_asked_for_is_no_sign_of_a_device(other: dict[str, Any]) -> None:
    """Else whoever may publish anything could hold a round up."""
    stage = waiting()
    stage.tell(born("ada"))
    stage.offer("bob", **other)
    stage.tell(co.Garbled("bob", 10, "no msgpack"))
    assert stage.at(Phase.WAITING)


def test_an_open_round_waits_for_a_device_that_was_heard() -> None:
    stage = Stage().opened()
    stage.accept("ada")
    stage.offer("eve")
    stage.accept("bob")
    assert stage.at(Phase.OPEN)
    stage.accept("eve")
    assert stage.at(Phase.STEPPING)


@pytest.mark.parametrize("session", [0, 1, 9])
def test_the_will_of_any_life_ends_the_presence_of_one_whose_birth_nobody_heard(session: int) -> None:
    stage = Stage().opened()
    stage.accept("eve")
    assert "eve" in stage.machine.present
    stage.tell(co.Died("eve", session))
    assert "eve" not in stage.machine.present


def test_what_is_heard_of_a_device_does_not_change_which_life_is_known() -> None:
    stage = Stage().opened()
    stage.tell(born("bob", 7))
    stage.accept("bob")
    stage.tell(co.Died("bob", 6))
    assert stage.machine.present["bob"] == 7


def test_a_device_built_for_another_model_is_not_there_whatever_it_sends() -> None:
    """What it sends was made before it was built anew."""
    stage = waiting()
    stage.tell(born("ada"), born("eve", layout=OTHER_LAYOUT), stage.offered("eve"))
    assert stage.at(Phase.WAITING)
    stage.tell(born("eve", 2))
    assert stage.at(Phase.OPEN)


def test_a_device_that_died_as_a_stranger_may_come_back_as_another() -> None:
    stage = Stage().opened()
    stage.tell(born("eve", layout=OTHER_LAYOUT), co.Died("eve", 1))
    stage.accept("eve")
    assert "eve" in stage.machine.present


def test_a_stranger_s_update_that_is_accepted_does_not_make_it_one_of_us() -> None:
    stage = Stage().opened()
    stage.tell(born("eve", layout=OTHER_LAYOUT))
    stage.accept("eve")
    assert "eve" not in stage.machine.present


def test_who_was_heard_and_does_not_answer_is_counted_on_for_one_round_only() -> None:
    """Word of its end may have come before what was still on its way."""
    stage = waiting()
    stage.offer("eve")
    stage.tell(born("ada"), born("bob"))
    stage.accept("ada", "bob")
    assert stage.at(Phase.OPEN)
    assert "eve" in stage.machine.present
    stage.tell(co.Ticked(), after=60.0)
    stage.step()
    assert stage.machine.present.keys() == {"ada", "bob"}
    stage.accept("ada", "bob")
    assert stage.at(Phase.STEPPING)


def test_what_is_refused_or_late_in_a_round_holds_no_other_round_up() -> None:
    """Whoever may publish can send that, under as many names as there are."""
    stage = Stage().opened()
    stage.offer("eve")
    stage.complete("eve", model=99)
    stage.accept("ada", "bob")
    stage.step()
    stage.offer("mallory", round=1)
    assert stage.machine.present.keys() == {"ada", "bob"}
    stage.accept("ada", "bob")
    assert stage.at(Phase.STEPPING)


def test_a_device_whose_birth_was_heard_may_miss_a_round() -> None:
    stage = Stage().opened("ada", "bob", "eve")
    stage.accept("ada", "bob")
    stage.tell(co.Ticked(), after=60.0)
    stage.step()
    assert "eve" in stage.machine.present


def test_a_device_born_in_mid_round_outside_the_cohort_is_not_waited_for() -> None:
    stage = Stage(Policy(fraction=0.5)).opened("ada", "bob")
    task = stage.one(co.Announce).task
    names = [f"d{number}" for number in range(50)]
    stranger = next(name for name in names if not in_cohort(name, task.salt, task.fraction))
    stage.tell(born(stranger))
    stage.accept(*(name for name in ("ada", "bob") if in_cohort(name, task.salt, task.fraction)))
    assert stage.at(Phase.STEPPING)


def test_one_that_was_heard_and_answered_stays() -> None:
    stage = Stage().opened()
    stage.offer("eve")
    stage.accept("ada", "bob", "eve")
    stage.step()
    assert "eve" in stage.machine.present


# --- how many there are -----------------------------------------------------------------------------------------------


def test_before_devices_are_there_the_fleet_is_as_large_as_a_round_needs() -> None:
    assert Stage(Policy(min_devices=3000)).machine.fleet == 3000


def test_the_fleet_is_counted_as_it_comes_in_and_not_only_as_a_round_opens() -> None:
    """Else a restart in the first round would know of those alone that opened it."""
    stage = Stage().opened("ada", "bob", "eve", "zoe")
    assert (stage.machine.fleet, stage.machine.progress.fleet) == (4, 4)


def test_after_a_restart_the_fleet_is_as_large_as_it_was() -> None:
    stage = Stage(progress=Progress(round=3, fleet=1000))
    stage.tell(co.Started(), born("ada"))
    assert stage.machine.fleet == 1000
