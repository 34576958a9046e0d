"""What the machines do when the federation is asynchronous, event by event, on the bare objects."""

from __future__ import annotations

import pytest

from fedmq.protocol import coordination as co
from fedmq.protocol import participation as pa
from fedmq.protocol.cohort import in_cohort
from fedmq.protocol.coordinator import START_PAUSE_S, Phase
from fedmq.protocol.ledger import MOST_NAMES, Ledger
from fedmq.protocol.messages import Facts, Verdict
from fedmq.protocol.participant import MOST_WAITING
from fedmq.protocol.participant import Phase as Work
from fedmq.protocol.policy import Policy
from tests.unit.protocol.stage import Desk, Stage, born, manifest, receipt, stop_task, task

ACCEPTED, DUPLICATE, LATE, REJECTED, RETRY = Verdict
BUFFERED = Policy(
    min_devices=2, quorum=1, soft_deadline_s=60.0, hard_deadline_s=120.0, buffer=2, max_staleness=2
)
NAMES = ("ada", "bob", "eve", "kim")


def filling(policy: Policy = BUFFERED, **other: object) -> Stage:
    return Stage(policy, **other).opened(*NAMES)  # type: ignore[arg-type]


def answer(stage: Stage, device: str, number: int, model: int | None = None) -> None:
    """Bring the update of a device for a round as far as the rule."""
    update = b"%s/%d" % (device.encode(), number)
    stage.offer(device, update, round=number)
    stage.complete(device, update, round=number, model=model or number)


def count(stage: Stage, device: str, number: int) -> None:
    answer(stage, device, number)
    absorbed(stage, device, number)


def absorbed(stage: Stage, device: str, number: int) -> None:
    stage.tell(co.Absorbed(device, number, b"%s/%d" % (device.encode(), number), Facts(1)))


def filled(rounds: int) -> Stage:
    """Return a stage behind so many buffers, each filled by ada and bob."""
    stage = filling()
    for number in range(1, rounds + 1):
        count(stage, "ada", number)
        count(stage, "bob", number)
        stage.step()
    return stage


# --- buffers ----------------------------------------------------------------------------------------------------------


def test_the_model_moves_as_soon_as_the_buffer_is_full() -> None:
    stage = filling()
    count(stage, "ada", 1)
    assert stage.at(Phase.OPEN)
    count(stage, "bob", 1)
    assert stage.one(co.Finish) == co.Finish(1, 2)


def test_a_task_says_how_far_back_updates_are_taken() -> None:
    for rounds, oldest in ((0, 1), (2, 1), (3, 2)):
        assert filled(rounds).machine.task.oldest == oldest  # type: ignore[union-attr]


def test_an_update_of_an_earlier_round_is_counted_in_the_open_buffer_with_its_staleness() -> None:
    stage = filled(2)
    count(stage, "eve", 1)
    assert stage.verdicts == [("eve", ACCEPTED)]
    count(stage, "eve", 3)
    stage.step()
    report = stage.one(co.Tell).report
    assert (report.round, report.accepted) == (3, 2)
    assert report.metrics == {"staleness": 1.0, "staleness_max": 2.0}


def test_a_device_cannot_report_our_staleness_nor_crowd_it_out() -> None:
    stage = filling()
    claims = {"staleness": 99.0, **{f"m{number}": 1.0 for number in range(MOST_NAMES)}}
    for device in ("ada", "bob"):
        answer(stage, device, 1)
        stage.tell(co.Absorbed(device, 1, device.encode() + b"/1", Facts(1, 1, claims)))
    stage.step()
    metrics = stage.one(co.Tell).report.metrics
    assert (metrics["staleness"], len(metrics)) == (0.0, MOST_NAMES)


def test_an_update_that_is_too_stale_is_late() -> None:
    stage = filled(3)
    stage.offer("eve", round=1)
    assert stage.verdicts == [("eve", LATE)]


def test_an_update_that_claims_another_model_than_its_rounds_is_rejected() -> None:
    stage = filled(2)
    answer(stage, "eve", 1, model=3)
    assert stage.verdicts == [("eve", REJECTED)]
    assert stage.one(co.Reply).receipt.reason == "the update starts from model 3, the round from 1"


def test_the_cohort_of_the_updates_own_round_decides() -> None:
    names = [f"d{number}" for number in range(12)]
    policy = Policy(fraction=0.5, min_devices=12, buffer=1, max_staleness=4)
    stage = Stage(policy).opened(*names)
    first = stage.machine.task
    assert first is not None
    invited = [name for name in names if in_cohort(name, first.salt, first.fraction)]
    count(stage, invited[0], 1)
    stage.step()
    stage.offer(invited[1], round=1)
    assert stage.seen(co.Keep)
    stage.offer(next(name for name in names if name not in invited), round=1)
    assert stage.seen(co.Reply)[0].receipt.verdict is REJECTED


def test_what_an_earlier_buffer_counted_gets_its_verdict_again() -> None:
    stage = filled(2)
    stage.offer("ada", b"ada/1", round=1)
    assert stage.verdicts == [("ada", ACCEPTED)]
    stage.offer("ada", b"ada/again", round=1)
    assert stage.verdicts == [("ada", DUPLICATE)]


def test_verdicts_outlive_the_rounds_in_which_they_could_be_asked_for() -> None:
    stage = filled(9)
    stage.offer("ada", b"ada/7", round=7)
    assert stage.verdicts == [("ada", ACCEPTED)]


def test_a_device_may_be_in_one_buffer_with_two_rounds() -> None:
    stage = filled(1)
    count(stage, "eve", 1)
    count(stage, "eve", 2)
    assert stage.one(co.Finish) == co.Finish(2, 3)


# --- no more than fit -------------------------------------------------------------------------------------------------


def test_a_full_buffer_lets_others_wait_for_their_turn() -> None:
    stage = filling()
    for device in NAMES:
        answer(stage, device, 1)
    assert stage.machine.ledger.absorbing == 2
    stage.tell(co.Spoiled("ada", 1, b"ada/1", "no good"))
    assert stage.one(co.Absorb).device == "eve"


def test_who_did_not_fit_is_asked_again_in_turn() -> None:
    stage = filling(Policy(min_devices=2, buffer=1))
    stage.offer("kim")
    for device in ("ada", "bob", "eve"):
        answer(stage, device, 1)
    absorbed(stage, "ada", 1)
    stage.now += 3.0
    stage.step()
    replies = [(reply.device, reply.receipt.retry_after_s) for reply in stage.seen(co.Reply)]
    assert replies == [("bob", 0.0), ("eve", 3.0), ("kim", 6.0)]
    assert {reply.receipt.verdict for reply in stage.seen(co.Reply)} == {RETRY}
    assert stage.one(co.Tell).report.received == 1
    count(stage, "bob", 1)
    assert stage.one(co.Finish) == co.Finish(2, 3)


def test_who_comes_while_the_model_moves_is_asked_again() -> None:
    stage = filling()
    count(stage, "ada", 1)
    count(stage, "bob", 1)
    assert stage.offer("eve") == []
    stage.step()
    assert stage.verdicts == [("eve", RETRY)]


# --- nobody stalls ----------------------------------------------------------------------------------------------------


def test_at_the_soft_deadline_a_quorum_moves_the_model() -> None:
    stage = filling()
    count(stage, "ada", 1)
    stage.tell(co.Ticked(), after=60.0)
    assert stage.at(Phase.STEPPING)


def test_fewer_than_the_buffer_are_enough_when_everybody_has_answered() -> None:
    stage = Stage(Policy(min_devices=2, buffer=9)).opened("ada", "bob")
    count(stage, "ada", 1)
    count(stage, "bob", 1)
    assert stage.at(Phase.STEPPING)


def test_a_device_that_answers_an_earlier_round_is_waited_for_until_it_dies() -> None:
    stage = Stage(Policy(min_devices=1, buffer=3, max_staleness=3)).opened("ada", "bob")
    for number in (1, 2):
        count(stage, "ada", number)
        if number == 1:
            stage.tell(co.Ticked(), after=60.0)
            stage.step()
    stage.offer("bob", b"bob/1", round=1)
    assert stage.at(Phase.OPEN)
    stage.tell(co.Died("bob", 1))
    assert stage.at(Phase.STEPPING)


def test_where_no_round_is_open_an_update_is_put_off() -> None:
    stage = Stage(BUFFERED).opened("ada", "bob")
    count(stage, "ada", 1)
    stage.tell(co.Died("ada", 1), co.Died("bob", 1))
    stage.step()
    assert stage.at(Phase.WAITING)
    stage.offer("bob", b"bob/1", round=1)
    assert (stage.verdicts, stage.one(co.Reply).receipt.retry_after_s) == ([("bob", RETRY)], START_PAUSE_S)


def test_a_buffer_without_any_update_reports_no_staleness() -> None:
    stage = filling()
    stage.tell(co.Ticked(), after=120.0)
    assert stage.one(co.Tell).report.metrics == {}


# --- restarts ---------------------------------------------------------------------------------------------------------


def test_a_restart_in_mid_buffer_knows_the_rounds_before() -> None:
    stage = filled(2)
    again = Stage(BUFFERED, progress=stage.machine.progress, ledger=Ledger(stage.machine.ledger.snapshot()))
    again.tell(co.Started(stage.machine.task), *map(born, NAMES))
    count(again, "eve", 1)
    assert again.verdicts == [("eve", ACCEPTED)]
    again.offer("bob", b"bob/2", round=2)
    assert again.verdicts == [("bob", ACCEPTED)]
    assert again.machine.ledger.accepted == 1


def test_after_an_end_nothing_is_recent() -> None:
    stage = filled(2)
    stage.tell(co.StopAsked("enough"))
    assert stage.one(co.End).task.oldest == stage.round
    assert stage.machine.progress.recent == ()
    again = Stage(BUFFERED, progress=stage.machine.progress).opened()
    assert again.machine.task.oldest == again.round  # type: ignore[union-attr]


# --- the device -------------------------------------------------------------------------------------------------------


def test_a_fetch_goes_on_while_its_round_is_taken_and_is_trained_from() -> None:
    desk = Desk()
    desk.tell(pa.Connected(), pa.Published(manifest(1)), pa.Tasked(task(1, 1)))
    desk.tell(pa.Published(manifest(2)), pa.Tasked(task(2, 2, oldest=1)))
    assert not desk.seen(pa.Fetch)
    desk.tell(pa.Fetched(1))
    assert desk.one(pa.Train).task == task(1, 1)
    desk.tell(pa.Stored(1, b"u1"))
    assert desk.one(pa.Send).round == 1
    assert desk.one(pa.Fetch).version == 2


def test_a_fetch_whose_round_is_too_old_gives_way() -> None:
    desk = Desk()
    desk.tell(pa.Connected(), pa.Published(manifest(1)), pa.Tasked(task(1, 1)))
    desk.tell(pa.Published(manifest(3)), pa.Tasked(task(3, 3, oldest=2)))
    assert desk.one(pa.Fetch).version == 3


def test_the_end_gives_way_to_no_fetch() -> None:
    desk = Desk()
    desk.tell(pa.Connected(), pa.Published(manifest(1)), pa.Tasked(task(1, 1)), pa.Tasked(stop_task(2)))
    assert desk.machine.phase is Work.RETIRED


@pytest.mark.parametrize("trouble", [pa.Disconnected(), pa.FetchFailed(1, "why")])
def test_a_fetch_that_came_to_nothing_is_no_aim_any_more(trouble: pa.ParticipantEvent) -> None:
    desk = Desk()
    desk.tell(pa.Connected(), pa.Published(manifest(1)), pa.Tasked(task(1, 1)), trouble)
    desk.tell(pa.Tasked(task(2, 2, oldest=1)), pa.Published(manifest(2)), pa.Connected())
    assert desk.one(pa.Fetch).version == 2


def test_a_device_whose_receipts_do_not_come_trains_no_further() -> None:
    desk = Desk()
    desk.tell(pa.Connected())
    for number in range(1, MOST_WAITING + 1):
        desk.tell(
            pa.Published(manifest(number)), pa.Tasked(task(number, number, oldest=1)), pa.Fetched(number)
        )
        desk.tell(pa.Stored(number, b"u%d" % number))
    desk.tell(pa.Published(manifest(9)), pa.Tasked(task(9, 9, oldest=1)))
    assert not desk.seen(pa.Fetch)
    desk.tell(receipt(b"u1"))
    assert desk.one(pa.Fetch).version == 9


def test_an_update_that_is_asked_for_again_at_once_is_sent_at_once() -> None:
    desk = Desk().stored()
    desk.tell(receipt(b"u1", RETRY, retry_after_s=0.0))
    assert desk.one(pa.Send).update == b"u1"


# --- the policy -------------------------------------------------------------------------------------------------------


def test_a_buffer_makes_the_federation_asynchronous() -> None:
    assert (Policy().asynchronous, Policy().window) == (False, 0)
    assert (BUFFERED.asynchronous, BUFFERED.window) == (True, 2)
