"""What the coordinator answers a device that asks about its update."""

from __future__ import annotations

from itertools import pairwise

import pytest

from fedmq.protocol import coordination as co
from fedmq.protocol.coordinator import START_PAUSE_S, Phase
from fedmq.protocol.messages import Receipt, Verdict
from fedmq.protocol.pacing import A_SECOND, LONGEST_S
from fedmq.protocol.policy import Policy
from fedmq.protocol.spans import EVERYTHING
from tests.unit.protocol.stage import RUN, Stage, stage_in

GAPS = (3, 2)


def test_what_is_missing_is_searched_for_and_named() -> None:
    stage = Stage().opened()
    assert stage.offer("ada", question=5) == [co.Search("ada", 1, b"ada", 5)]
    stage.tell(co.Searched("ada", 1, b"ada", GAPS, 5))
    assert stage.one(co.Reply) == co.Reply(
        "ada", Receipt(RUN, 1, b"ada", Verdict.RETRY, missing=GAPS, question=5)
    )


def test_of_an_update_that_is_arriving_the_rest_is_named() -> None:
    stage = Stage().opened()
    stage.offer("ada")
    stage.offer("ada", question=5)
    stage.one(co.Search)
    stage.tell(co.Searched("ada", 1, b"ada", GAPS, 5))
    stage.one(co.Reply)


def test_a_question_is_no_update() -> None:
    stage = Stage().opened()
    stage.offer("ada", question=5)
    assert stage.machine.ledger.entries == {}
    assert stage.machine.ledger.tally.bytes_up == 10
    assert stage.machine.ledger.tally.received == 0


def test_where_nothing_is_missing_the_verdict_follows() -> None:
    stage = Stage().opened()
    stage.offer("ada")
    assert stage.tell(co.Searched("ada", 1, b"ada", ())) == []


def test_an_update_with_the_rule_is_on_its_way_to_its_verdict() -> None:
    stage = stage_in(Phase.OPEN)
    assert stage.offer("ada", question=5) == []
    assert stage.tell(co.Searched("ada", 1, b"ada", GAPS, 5)) == []


def test_a_question_about_a_settled_update_gets_its_verdict_and_counts_as_nothing() -> None:
    stage = stage_in(Phase.OPEN)
    stage.absorb("ada")
    stage.offer("ada", question=5)
    assert stage.verdicts == [("ada", Verdict.ACCEPTED)]
    assert stage.machine.ledger.tally.duplicate == 0


def test_a_question_about_a_closed_round_gets_late_and_counts_as_nothing() -> None:
    stage = Stage().opened()
    stage.accept("ada", "bob")
    stage.step()
    stage.offer("eve", round=1, question=5)
    assert stage.verdicts == [("eve", Verdict.LATE)]
    assert stage.machine.ledger.tally.late == 0


def test_a_question_while_the_round_closes_is_answered_when_it_is_over() -> None:
    stage = stage_in(Phase.STEPPING)
    assert stage.offer("eve", question=5) == []
    stage.step()
    assert stage.verdicts == [("eve", Verdict.LATE)]


@pytest.mark.parametrize("phase", [Phase.DRAINING, Phase.STEPPING, Phase.WAITING, Phase.STOPPED])
def test_what_was_searched_for_before_the_round_closed_is_not_asked_for(phase: Phase) -> None:
    assert stage_in(phase).tell(co.Searched("bob", 1, b"bob", GAPS)) == []


def test_nothing_is_asked_for_that_the_open_round_does_not_take() -> None:
    stage = Stage().opened()
    assert stage.tell(co.Searched("ada", 7, b"ada", GAPS, 5)) == []


def test_before_the_start_a_question_is_put_off_and_asked_again() -> None:
    stage = Stage()
    stage.offer("ada", round=1, question=5)
    receipt = stage.one(co.Reply).receipt
    assert (receipt.verdict, receipt.missing, receipt.question) == (Verdict.RETRY, (), 5)
    assert receipt.retry_after_s > 0


def test_what_came_too_late_for_one_buffer_is_wanted_whole_for_the_next() -> None:
    stage = Stage(Policy(min_devices=2, quorum=1, buffer=1, max_staleness=4)).opened()
    stage.offer("bob")
    stage.accept("ada")
    stage.step()
    [retry] = [reply.receipt for reply in stage.seen(co.Reply) if reply.device == "bob"]
    assert (retry.verdict, retry.missing) == (Verdict.RETRY, EVERYTHING)


def test_those_that_are_put_off_come_back_one_after_the_other_however_many_they_are() -> None:
    stage = Stage()
    pauses = []
    for number in range(3000):
        stage.offer(f"device-{number}", round=1)
        pauses.append(stage.one(co.Reply).receipt.retry_after_s)
    assert pauses[0] == START_PAUSE_S
    assert all(0.99 / A_SECOND < later - sooner < 1.01 / A_SECOND for sooner, later in pairwise(pauses))
    stage.now += pauses[-1]
    stage.offer("late", round=1)
    assert stage.one(co.Reply).receipt.retry_after_s == START_PAUSE_S


def test_nobody_is_put_off_for_longer_than_an_hour() -> None:
    stage = Stage()
    stage.machine._last_turn = stage.now + LONGEST_S - 0.001
    for _ in range(3):
        stage.offer("ada", round=1)
        assert stage.one(co.Reply).receipt.retry_after_s == LONGEST_S
