"""A device whose link breaks in the middle of its update: for how long an open round still counts on it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fedmq.protocol import coordination as co
from fedmq.protocol.coordinator import Phase
from fedmq.protocol.policy import Policy
from tests.unit.protocol.stage import LAYOUT, OTHER_LAYOUT, POLICY, Stage, born

GRACE_S = 30.0


def half_sent(policy: Policy = POLICY, *, question: int | None = None) -> Stage:
    """Return a round in which ada is done and bob has died, after the first piece of an update, or a question."""
    stage = Stage(policy).opened()
    stage.offer("bob", question=question)
    stage.accept("ada")
    stage.tell(co.Died("bob", 1))
    return stage


@pytest.mark.parametrize("question", [None, 7])
def test_a_device_that_died_in_the_middle_of_its_update_is_counted_on_for_its_grace(
    question: int | None,
) -> None:
    stage = half_sent(question=question)
    assert stage.at(Phase.OPEN)
    assert "bob" not in stage.machine.present
    assert stage.one(co.WakeAt).time == stage.now + GRACE_S
    stage.tell(co.Ticked(), after=GRACE_S - 0.1)
    assert stage.at(Phase.OPEN)
    stage.tell(co.Ticked(), after=0.1)
    assert stage.at(Phase.STEPPING)


def test_the_policy_says_how_long_the_grace_is() -> None:
    stage = half_sent(replace(POLICY, grace_s=3.0))
    assert stage.one(co.WakeAt).time == stage.now + 3.0
    stage.tell(co.Ticked(), after=3.0)
    assert stage.at(Phase.STEPPING)


def test_a_grace_of_0_s_is_none() -> None:
    assert half_sent(replace(POLICY, grace_s=0.0)).at(Phase.STEPPING)


def test_an_asynchronous_federation_waits_for_nobody() -> None:
    stage = half_sent(replace(POLICY, buffer=2))
    assert stage.at(Phase.STEPPING)


def test_the_soft_deadline_ends_every_grace() -> None:
    stage = half_sent(replace(POLICY, grace_s=100.0))
    assert stage.one(co.WakeAt).time == stage.machine.opened + POLICY.soft_deadline_s
    stage.tell(co.Ticked(), after=POLICY.soft_deadline_s)
    assert stage.at(Phase.STEPPING)


def test_the_grace_ends_when_the_update_has_its_verdict() -> None:
    stage = half_sent()
    stage.complete("bob")
    stage.absorb("bob")
    assert stage.at(Phase.STEPPING)
    stage.step()
    assert stage.one(co.Tell).report.accepted == 2


def test_an_update_that_came_whole_before_its_device_died_does_not_make_that_present() -> None:
    """Else the next round would wait for the dead."""
    stage = Stage().opened("ada", "bob", "eve")
    stage.offer("bob")
    stage.tell(co.Died("bob", 1))
    stage.complete("bob")
    stage.absorb("bob")
    assert stage.machine.present.keys() == {"ada", "eve"}
    stage.accept("ada", "eve")
    stage.step()
    stage.accept("ada", "eve")
    assert stage.at(Phase.STEPPING)


def test_word_of_its_death_that_comes_again_is_heard_though_nothing_is_left_to_wait_for() -> None:
    """It was not born in this process's time, its update is with the rule, and in between came a stray piece."""
    stage = Stage(replace(POLICY, grace_s=0.0)).opened()
    stage.deliver("eve")
    stage.tell(co.Died("eve", 1), stage.offered("eve", opening=False), co.Died("eve", 1))
    stage.absorb("eve")
    assert "eve" not in stage.machine.present


def test_who_asks_after_an_update_that_came_whole_before_the_death_is_there() -> None:
    """Its birth may have been lost."""
    stage = Stage().opened()
    stage.deliver("bob")
    stage.tell(co.Died("bob", 1), stage.offered("bob", question=7))
    stage.absorb("bob")
    assert "bob" in stage.machine.present


def test_whoever_is_back_in_time_is_counted_on_as_before() -> None:
    stage = half_sent()
    stage.tell(born("bob", 2), after=GRACE_S / 2)
    stage.tell(co.Ticked(), after=GRACE_S)
    assert stage.at(Phase.OPEN)
    assert stage.one(co.WakeAt).time == stage.machine.opened + POLICY.soft_deadline_s
    stage.accept("bob")
    assert stage.at(Phase.STEPPING)


@pytest.mark.parametrize("question", [None, 7])
def test_a_piece_or_a_question_says_that_a_device_is_back_though_its_birth_was_lost(
    question: int | None,
) -> None:
    stage = half_sent()
    stage.tell(stage.offered("bob", opening=False, question=question), after=GRACE_S / 2)
    stage.tell(co.Ticked(), after=GRACE_S)
    assert stage.at(Phase.OPEN)
    stage.complete("bob")
    stage.absorb("bob")
    assert stage.machine.present.keys() == {"ada", "bob"}


def test_each_death_has_a_grace_of_its_own() -> None:
    stage = half_sent()
    stage.tell(born("bob", 2), co.Died("bob", 2), after=GRACE_S / 2)
    stage.tell(co.Ticked(), after=GRACE_S / 2)
    assert stage.at(Phase.OPEN)
    stage.tell(co.Ticked(), after=GRACE_S / 2)
    assert stage.at(Phase.STEPPING)


def test_to_hear_of_one_death_again_makes_the_grace_no_longer() -> None:
    """The broker repeats what it retains whenever the aggregator's link was down."""
    stage = half_sent()
    stage.tell(co.Died("bob", 1), after=GRACE_S / 2)
    assert stage.one(co.WakeAt).time == stage.now + GRACE_S / 2
    stage.tell(co.Ticked(), after=GRACE_S / 2)
    assert stage.at(Phase.STEPPING)


def test_an_old_will_takes_no_device_for_dead() -> None:
    stage = Stage().opened()
    stage.tell(born("bob", 2))
    stage.offer("bob")
    stage.accept("ada")
    stage.tell(co.Died("bob", 1))
    stage.tell(co.Ticked(), after=GRACE_S)
    assert stage.at(Phase.OPEN)


def test_whose_birth_was_lost_and_who_dies_in_mid_update_is_not_waited_for_beyond_its_grace() -> None:
    stage = Stage().opened()
    stage.offer("eve")
    stage.accept("ada", "bob")
    stage.tell(co.Died("eve", 5))
    assert stage.at(Phase.OPEN)
    stage.tell(co.Ticked(), after=GRACE_S)
    assert stage.at(Phase.STEPPING)


def test_a_device_of_which_nothing_has_come_is_not_waited_for() -> None:
    stage = Stage().opened("ada", "bob", "eve")
    stage.offer("eve")
    stage.accept("ada", "eve")
    stage.tell(co.Died("bob", 1))
    assert stage.at(Phase.STEPPING)


def test_what_a_device_had_begun_for_an_earlier_round_gives_it_no_grace() -> None:
    stage = half_sent()
    stage.tell(born("eve"))
    stage.accept("eve")
    stage.tell(co.Ticked(), after=GRACE_S)
    stage.step()
    stage.tell(born("bob", 2))
    stage.accept("ada", "eve")
    stage.tell(co.Died("bob", 2))
    assert stage.at(Phase.STEPPING)


def test_a_device_that_comes_back_rebuilt_for_another_model_is_not_waited_for() -> None:
    stage = half_sent()
    stage.tell(born("bob", 2, OTHER_LAYOUT))
    assert stage.at(Phase.STEPPING)


def test_with_over_selection_enough_is_enough_all_the_same() -> None:
    stage = Stage(Policy(over_selection=1.5, min_devices=3)).opened("ada", "bob", "eve")
    stage.offer("bob")
    stage.tell(co.Died("bob", 1))
    stage.accept("ada", "eve")
    assert stage.at(Phase.STEPPING)


def test_without_a_quorum_a_grace_that_is_over_ends_nothing() -> None:
    stage = Stage(replace(POLICY, quorum=2)).opened()
    stage.offer("bob")
    stage.accept("ada")
    stage.tell(co.Died("bob", 1))
    stage.tell(co.Ticked(), after=GRACE_S)
    assert stage.at(Phase.OPEN)
    assert stage.one(co.WakeAt).time == stage.machine.opened + POLICY.soft_deadline_s


def test_graces_end_one_after_the_other() -> None:
    names = ["ada", "bob", "eve", "kim"]
    stage = Stage().opened(*names)
    stage.accept("ada")
    for name in names[1:]:
        stage.offer(name)
        stage.tell(co.Died(name, 1), after=1.0)
        assert stage.one(co.WakeAt).time == 1001.0 + GRACE_S
    stage.tell(co.Ticked(), after=GRACE_S - 2.0)
    assert stage.one(co.WakeAt).time == 1002.0 + GRACE_S
    stage.tell(co.Ticked(), after=2.0)
    assert stage.at(Phase.STEPPING)


def test_after_a_restart_a_will_that_is_found_begins_the_grace() -> None:
    """The journal holds a piece of bob's; the broker has his will, of a life that this process never saw."""
    before = half_sent()
    task = before.machine.task
    assert task is not None
    stage = Stage(progress=before.machine.progress)
    stage.tell(co.Started(task), stage.offered("ada", round=1), stage.offered("bob", round=1))
    stage.tell(co.Completed("ada", 1, b"ada", 1, LAYOUT), born("ada"), co.Died("bob", 1))
    stage.absorb("ada")
    stage.tell(co.Ticked(), after=GRACE_S - 1.0)
    assert stage.at(Phase.OPEN)
    stage.tell(co.Ticked(), after=1.0)
    assert stage.at(Phase.STEPPING)


def test_a_death_that_is_heard_after_the_deadline_finds_the_round_over() -> None:
    """As where the process slept, and its alarm comes late."""
    stage = Stage().opened()
    stage.offer("bob")
    stage.tell(co.Died("bob", 1), after=POLICY.hard_deadline_s)
    assert stage.one(co.Tell).report.outcome.startswith("abandoned")
