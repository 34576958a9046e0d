"""What the participant does, event by event, on the bare object."""

from __future__ import annotations

from bisect import bisect_left
from random import Random
from statistics import correlation
from typing import TYPE_CHECKING

import pytest

from fedmq.errors import MisuseError
from fedmq.protocol import participant
from fedmq.protocol import participation as pa
from fedmq.protocol.cohort import in_cohort
from fedmq.protocol.frames import Step, cost, way
from fedmq.protocol.messages import Verdict
from fedmq.protocol.pacing import EARLIER, spread_s
from fedmq.protocol.participant import FETCH_PAUSE_S, LONGEST_PAUSE_S, RECEIPT_PAUSE_S, Phase
from fedmq.protocol.posting import QUERY_BYTES, SCATTER
from fedmq.protocol.spans import EVERYTHING
from tests.unit.protocol.stage import OTHER_LAYOUT, RUN, Desk, manifest, receipt, stop_task, task

if TYPE_CHECKING:
    from fedmq.protocol.spans import Spans

RUN_TWO = b"run-two."

# --- from the task to training ----------------------------------------------------------------------------------------


def test_task_and_manifest_lead_to_a_fetch_in_either_order() -> None:
    news: tuple[pa.ParticipantEvent, ...] = (pa.Tasked(task()), pa.Published(manifest()))
    for order in (news, news[::-1]):
        desk = Desk()
        desk.tell(pa.Connected(), *order)
        assert desk.one(pa.Fetch) == pa.Fetch(manifest(), (Step(1, key=True),))


def test_the_fetched_model_is_trained_from() -> None:
    desk = Desk().training()
    assert desk.one(pa.Train) == pa.Train(task())
    assert desk.machine.phase is Phase.TRAINING


def test_a_model_that_is_held_is_not_fetched_again_even_without_a_link() -> None:
    desk = Desk(held=(RUN, 1))
    desk.tell(pa.Tasked(task()))
    desk.one(pa.Train)


def test_only_the_frames_after_the_held_version_are_fetched() -> None:
    desk = Desk(held=(RUN, 3))
    desk.tell(pa.Connected(), pa.Published(manifest(5, key=2)), pa.Tasked(task(4, 5)))
    fetch = desk.one(pa.Fetch)
    assert ([step.version for step in fetch.steps], fetch.fresh) == ([4, 5], False)


def test_a_device_that_fell_behind_begins_with_the_key_frame() -> None:
    desk = Desk(held=(RUN, 1))
    desk.tell(pa.Connected(), pa.Published(manifest(5, key=2)), pa.Tasked(task(4, 5)))
    fetch = desk.one(pa.Fetch)
    assert ([step.version for step in fetch.steps], fetch.fresh) == ([2, 3, 4, 5], True)


@pytest.mark.parametrize("shown", [manifest(2), manifest(1, run=RUN_TWO)])
def test_only_the_manifest_that_the_task_names_will_do(shown: object) -> None:
    desk = Desk()
    desk.tell(pa.Connected(), pa.Published(shown), pa.Tasked(task()))  # type: ignore[arg-type]
    assert (desk.effects, desk.machine.phase) == ([], Phase.IDLE)


def test_a_round_is_answered_once() -> None:
    desk = Desk().stored()
    desk.tell(receipt(b"u1"), pa.Tasked(task()), pa.Connected(), pa.Elapsed())
    assert not desk.seen(pa.Train)


def test_a_round_that_does_not_ask_this_device_is_not_answered() -> None:
    salt = next(bytes([n]) for n in range(256) if not in_cohort("ada", bytes([n]), 0.5))
    desk = Desk(held=(RUN, 1))
    desk.tell(pa.Connected(), pa.Published(manifest()), pa.Tasked(task(salt=salt, fraction=0.5)))
    assert (desk.effects, desk.machine.phase) == ([], Phase.IDLE)


def test_another_layout_is_complained_about_once() -> None:
    desk = Desk()
    desk.tell(pa.Connected(), pa.Tasked(task(layout=OTHER_LAYOUT)), pa.Tasked(task(2, layout=OTHER_LAYOUT)))
    complaint = desk.one(pa.Log)
    assert complaint.serious
    assert "built for another model" in complaint.sentence


def test_an_old_task_or_manifest_is_ignored() -> None:
    desk = Desk(held=(RUN, 2))
    desk.tell(pa.Connected(), pa.Tasked(task(2, 2)), pa.Published(manifest(2)))
    desk.tell(pa.Tasked(task(1, 1)), pa.Published(manifest(1)))
    assert desk.effects == []
    assert (desk.machine.task, desk.machine.manifest) == (task(2, 2), manifest(2))


# --- fetching ---------------------------------------------------------------------------------------------------------


def fetching(device: str = "ada") -> Desk:
    desk = Desk(device)
    desk.tell(pa.Connected(), pa.Published(manifest()), pa.Tasked(task()))
    assert desk.machine.phase is Phase.FETCHING
    return desk


def test_a_fetch_that_fails_is_tried_again_later_and_later() -> None:
    desk = fetching()
    for longest in (5.0, 10.0, 20.0, 40.0):
        pause = failed_for(desk)
        assert (1 - EARLIER) * longest <= pause <= longest
        assert desk.machine.phase is Phase.IDLE
        desk.tell(pa.Elapsed(), after=pause - 0.1)
        assert not desk.seen(pa.Fetch)
        desk.tell(pa.Elapsed(), after=0.1 + 1e-6)
        assert desk.one(pa.Fetch).fresh


def failed_for(desk: Desk) -> float:
    """Let the fetch fail, and return for how long nothing is tried then."""
    desk.tell(pa.FetchFailed(1, "silence"))
    return desk.one(pa.Wake).time - desk.now


def test_a_fleet_that_lost_the_same_chunks_does_not_ask_in_one_second() -> None:
    """Nor do those that asked together once do so again the next time."""
    desks = [fetching(f"device-{number}") for number in range(200)]
    first = [failed_for(desk) for desk in desks]
    assert 2.5 <= min(first) < 2.6
    assert 4.9 < max(first) <= 5.0
    assert len(set(first)) == len(first)
    for desk, pause in zip(desks, first, strict=True):
        desk.tell(pa.Elapsed(), after=pause)
    second = [failed_for(desk) for desk in desks]
    assert abs(correlation(first, second)) < 0.2


def test_who_asked_together_for_one_version_does_not_for_the_next() -> None:
    pauses = []
    for version in (1, 2):
        desks = [Desk(f"device-{number}") for number in range(200)]
        for desk in desks:
            desk.tell(pa.Connected(), pa.Published(manifest(version)), pa.Tasked(task(1, version)))
            desk.tell(pa.FetchFailed(version, "silence"))
        pauses.append([desk.one(pa.Wake).time for desk in desks])
    assert abs(correlation(*pauses)) < 0.2


def test_a_large_fleet_fetches_again_over_the_time_that_it_is_told() -> None:
    pauses = []
    for number in range(1000):
        desk = fetching(f"device-{number}")
        desk.tell(pa.Paced(spread_s(1000)))
        pauses.append(failed_for(desk))
    assert min(pauses) >= 2.5
    assert 19.0 < max(pauses) <= 2.5 + 17.0
    assert most_in_a_second(pauses) < 100


def test_the_same_story_has_the_same_tries() -> None:
    assert failed_for(fetching()) == failed_for(fetching()) != failed_for(fetching("bob"))


def behind() -> Desk:
    """Return a device that holds version 3 and fetches the deltas to 5."""
    desk = Desk(held=(RUN, 3))
    desk.tell(pa.Connected(), pa.Published(manifest(5, key=2)), pa.Tasked(task(4, 5)))
    assert not desk.one(pa.Fetch).fresh
    return desk


def test_what_came_out_wrong_is_made_good_by_the_key_frame_at_once() -> None:
    desk = behind()
    desk.tell(pa.FetchFailed(5, "another digest", wrong=True))
    assert desk.one(pa.Fetch).steps == (Step(2, key=True), Step(3), Step(4), Step(5))
    assert "the key-frame makes good" in desk.one(pa.Log).sentence
    desk.tell(pa.FetchFailed(5, "another digest", wrong=True))
    assert not desk.seen(pa.Fetch), "a key-frame that is wrong as well is waited for"
    assert desk.one(pa.Wake).time >= desk.now + (1 - EARLIER) * FETCH_PAUSE_S
    desk.tell(pa.Elapsed(), after=FETCH_PAUSE_S)
    assert desk.one(pa.Fetch).fresh


def test_deltas_that_do_not_come_are_tried_once_more_and_then_the_key_frame() -> None:
    desk = behind()
    desk.tell(pa.FetchFailed(5, "silence"))
    desk.tell(pa.Elapsed(), after=FETCH_PAUSE_S)
    assert not desk.one(pa.Fetch).fresh
    desk.tell(pa.FetchFailed(5, "silence"))
    desk.tell(pa.Elapsed(), after=2 * FETCH_PAUSE_S)
    assert desk.one(pa.Fetch).fresh


def test_a_lost_link_costs_no_replica() -> None:
    desk = behind()
    desk.tell(pa.Disconnected(), pa.Connected())
    assert desk.one(pa.Fetch).steps == (Step(4), Step(5))


def test_wrong_deltas_after_a_silence_wait_for_their_turn() -> None:
    desk = behind()
    desk.tell(pa.FetchFailed(5, "silence"))
    desk.tell(pa.Elapsed(), after=FETCH_PAUSE_S)
    desk.tell(pa.FetchFailed(5, "another digest", wrong=True))
    assert not desk.seen(pa.Fetch)
    desk.tell(pa.Elapsed(), after=2 * FETCH_PAUSE_S)
    assert desk.one(pa.Fetch).fresh


def test_the_pause_has_an_end() -> None:
    desk = fetching()
    for _ in range(20):
        desk.tell(pa.FetchFailed(1, "silence"))
        desk.tell(pa.Elapsed(), after=LONGEST_PAUSE_S)
        desk.one(pa.Fetch)


def test_a_newer_model_does_not_wait_for_an_older_ones_pause() -> None:
    desk = fetching()
    desk.tell(pa.FetchFailed(1, "silence"))
    desk.tell(pa.Published(manifest(2)), pa.Tasked(task(2, 2)))
    assert desk.one(pa.Fetch).version == 2


def test_the_same_manifest_again_does_not_shorten_the_pause() -> None:
    desk = fetching()
    desk.tell(pa.FetchFailed(1, "silence"))
    desk.tell(pa.Published(manifest()))
    assert not desk.seen(pa.Fetch)


def test_a_lost_link_ends_the_fetch_and_the_next_begins_another() -> None:
    desk = fetching()
    assert desk.tell(pa.Disconnected()) == []
    assert desk.machine.phase is Phase.IDLE
    assert desk.tell(pa.Fetched(1), pa.FetchFailed(1, "cut")) == []
    desk.tell(pa.Connected())
    desk.one(pa.Fetch)


def test_a_newer_task_replaces_the_fetch() -> None:
    desk = fetching()
    desk.tell(pa.Published(manifest(2)), pa.Tasked(task(2, 2)))
    assert desk.one(pa.Fetch).version == 2
    assert desk.tell(pa.Fetched(1)) == []
    assert desk.machine.phase is Phase.FETCHING
    desk.tell(pa.Fetched(2))
    assert desk.one(pa.Train).task == task(2, 2)


def test_a_newer_task_whose_manifest_is_not_here_lets_the_fetch_go_on() -> None:
    desk = fetching()
    desk.tell(pa.Tasked(task(2, 2)))
    assert (desk.effects, desk.machine.phase) == ([], Phase.FETCHING)
    desk.tell(pa.Fetched(1))
    assert (desk.machine.phase, desk.machine.version) == (Phase.IDLE, 1)


# --- training ---------------------------------------------------------------------------------------------------------


def test_a_stored_update_is_sent_and_waits_for_its_receipt() -> None:
    desk = Desk().stored()
    assert desk.one(pa.Send) == pa.Send(1, b"u1", EVERYTHING)
    assert (1 - EARLIER) * RECEIPT_PAUSE_S <= desk.one(pa.Wake).time - desk.now <= RECEIPT_PAUSE_S


def test_without_a_link_a_stored_update_waits() -> None:
    desk = Desk().training()
    desk.tell(pa.Disconnected())
    assert desk.tell(pa.Stored(1, b"u1")) == []
    desk.tell(pa.Connected(), after=99.0)
    desk.one(pa.Send)


def test_training_is_not_interrupted_but_its_result_forgotten_when_the_round_is_over() -> None:
    desk = Desk().training()
    assert desk.tell(pa.Tasked(task(2))) == []
    desk.tell(pa.Stored(1, b"u1"))
    assert desk.one(pa.Forget) == pa.Forget(1, b"u1", None, "its round ended during training")
    assert desk.one(pa.Train).task == task(2)


def test_an_older_round_that_is_still_taken_is_sent() -> None:
    desk = Desk().training()
    desk.tell(pa.Tasked(task(2, oldest=1)))
    desk.tell(pa.Stored(1, b"u1"))
    desk.one(pa.Send)
    desk.one(pa.Train)


def test_a_training_that_fails_is_said_and_not_repeated() -> None:
    desk = Desk().training()
    desk.tell(pa.TrainingFailed(1, "it diverged"), pa.Tasked(task()))
    assert desk.one(pa.Log).serious
    assert desk.machine.phase is Phase.IDLE


# --- the outbox -------------------------------------------------------------------------------------------------------


def test_an_update_is_sent_again_later_and_later_until_its_receipt() -> None:
    desk = Desk().stored()
    for longest in (30.0, 60.0, 120.0, 240.0, 480.0, 600.0, 600.0):
        pause = desk.one(pa.Wake).time - desk.now
        assert (1 - EARLIER) * longest <= pause <= longest
        desk.tell(pa.Elapsed(), after=pause - 0.1)
        assert not desk.seen(pa.Send)
        desk.tell(pa.Elapsed(), pa.Sent(b"u1"), after=0.1 + 1e-6)
        desk.one(pa.Send)
    desk.tell(receipt(b"u1"))
    assert desk.one(pa.Forget) == pa.Forget(1, b"u1", Verdict.ACCEPTED)
    assert desk.tell(pa.Elapsed(), after=600.0) == []


def test_an_update_is_sent_again_when_the_link_is_back() -> None:
    desk = Desk().stored()
    desk.tell(pa.Disconnected())
    assert desk.tell(pa.Elapsed(), after=500.0) == []
    desk.tell(pa.Connected())
    desk.one(pa.Send)


@pytest.mark.parametrize("verdict", [verdict for verdict in Verdict if verdict.settled])
def test_every_settled_verdict_empties_the_outbox(verdict: Verdict) -> None:
    desk = Desk().stored()
    desk.tell(receipt(b"u1", verdict, reason="so"))
    assert desk.one(pa.Forget) == pa.Forget(1, b"u1", verdict, "so")
    assert desk.machine.outbox == {}


# --- only what is missing ---------------------------------------------------------------------------------------------


def answer(question: pa.Send, missing: Spans = (3, 2), retry_after_s: float = 0.0) -> pa.Receipted:
    number = question.question
    return receipt(
        question.update, Verdict.RETRY, missing=missing, retry_after_s=retry_after_s, question=number
    )


@pytest.mark.parametrize("missing", [(3, 2), ()])
def test_an_answer_to_an_earlier_question_is_ignored(missing: Spans) -> None:
    """A broker repeats what was not acknowledged when the link broke."""
    desk = Desk(outbox={b"u1": (RUN, 1)})
    desk.tell(pa.Connected(), pa.Sent(b"u1"))
    earlier = desk.one(pa.Send)
    desk.tell(answer(earlier), pa.Disconnected())
    desk.tell(pa.Connected(), after=0.5)
    later = desk.one(pa.Send)
    assert desk.tell(answer(earlier, missing)) == []
    desk.tell(answer(later, (5, 1)))
    assert desk.one(pa.Send).missing == (5, 1)
    assert desk.tell(answer(later, (5, 1))) == []


def test_an_answer_that_comes_behind_the_whole_update_still_helps() -> None:
    desk = Desk().stored()
    desk.tell(pa.Elapsed(), pa.Sent(b"u1"), after=LONGEST_PAUSE_S)
    question = desk.one(pa.Send)
    desk.tell(pa.Elapsed(), after=LONGEST_PAUSE_S)
    assert desk.one(pa.Send).missing == EVERYTHING
    desk.tell(answer(question))
    assert desk.one(pa.Send).missing == (3, 2)


def test_an_update_that_was_sent_is_asked_about_before_it_is_sent_again() -> None:
    desk = Desk().stored()
    desk.tell(pa.Disconnected(), pa.Connected())
    assert desk.one(pa.Send).missing == ()


def test_an_update_that_was_never_sent_is_not_asked_about() -> None:
    desk = Desk().training()
    desk.tell(pa.Disconnected(), pa.Stored(1, b"u1"), pa.Connected())
    assert desk.one(pa.Send) == pa.Send(1, b"u1", EVERYTHING)


def test_a_restart_asks_first() -> None:
    desk = Desk(outbox={b"u1": (RUN, 1)})
    desk.tell(pa.Connected())
    assert desk.one(pa.Send).missing == ()


def test_the_chunks_that_a_receipt_names_are_sent_and_no_others() -> None:
    desk = Desk(outbox={b"u1": (RUN, 1)})
    desk.tell(pa.Connected(), pa.Sent(b"u1"))
    desk.tell(answer(desk.one(pa.Send), (3, 2)))
    assert desk.one(pa.Send).missing == (3, 2)
    desk.tell(pa.Sent(b"u1"))
    assert (1 - EARLIER) * RECEIPT_PAUSE_S <= desk.one(pa.Wake).time - desk.now <= RECEIPT_PAUSE_S
    desk.tell(pa.Elapsed(), after=RECEIPT_PAUSE_S)
    assert desk.one(pa.Send).missing == ()


def test_where_no_answer_comes_everything_is_sent_and_then_asked_again_in_turns() -> None:
    desk = Desk().stored()
    sent = []
    for _ in range(5):
        desk.tell(pa.Elapsed(), pa.Sent(b"u1"), after=LONGEST_PAUSE_S)
        sent.append(desk.one(pa.Send).missing)
    assert sent == [(), EVERYTHING, (), EVERYTHING, ()]


def test_a_pause_runs_from_the_end_of_a_long_transfer() -> None:
    desk = Desk().training()
    desk.tell(pa.Stored(1, b"u1"))
    desk.one(pa.Send)
    assert not desk.seen(pa.Wake)
    assert desk.tell(pa.Elapsed(), after=3000.0) == []
    desk.tell(pa.Sent(b"u1"))
    assert (1 - EARLIER) * RECEIPT_PAUSE_S <= desk.one(pa.Wake).time - desk.now <= RECEIPT_PAUSE_S


def test_a_lost_link_ends_a_transfer() -> None:
    desk = Desk().training()
    desk.tell(pa.Stored(1, b"u1"), pa.Disconnected(), pa.Connected(), after=5.0)
    assert [send.missing for send in desk.seen(pa.Send)] == [EVERYTHING, ()]


def test_a_new_life_of_the_aggregator_in_mid_transfer_has_it_asked_at_once() -> None:
    desk = Desk().training()
    desk.tell(pa.Stored(1, b"u1"), pa.Connected())
    assert [send.missing for send in desk.seen(pa.Send)] == [EVERYTHING, ()]


def test_word_that_comes_in_mid_transfer_decides_when_it_is_sent_next() -> None:
    desk = Desk().training()
    desk.tell(pa.Stored(1, b"u1"), receipt(b"u1", Verdict.RETRY, retry_after_s=7.0), pa.Sent(b"u1"))
    [wake] = {wake.time for wake in desk.seen(pa.Wake)}
    assert desk.now + 7.0 <= wake <= desk.now + 7.0 * (1 + SCATTER)
    desk.tell(pa.Elapsed(), after=wake - desk.now)
    assert desk.one(pa.Send).missing == ()


def test_the_end_of_a_transfer_that_is_over_by_other_means_changes_nothing() -> None:
    desk = Desk().stored()
    desk.tell(receipt(b"u1"))
    assert desk.tell(pa.Sent(b"u1")) == []


def test_a_question_is_asked_where_the_update_would_be_too_much_for_today() -> None:
    desk = Desk().stored()
    desk.machine.outbox[b"u1"].nbytes = 10**6
    desk.tell(pa.Allowed(QUERY_BYTES), pa.Elapsed(), after=RECEIPT_PAUSE_S)
    assert desk.one(pa.Send).missing == ()


def test_retry_sends_the_same_update_after_the_pause_that_was_asked_for() -> None:
    desk = Desk().stored()
    desk.tell(receipt(b"u1", Verdict.RETRY, retry_after_s=7.0))
    wake = desk.one(pa.Wake).time
    assert desk.now + 7.0 <= wake <= desk.now + 7.0 * (1 + SCATTER)
    desk.tell(pa.Elapsed(), after=wake - desk.now)
    assert desk.one(pa.Send).update == b"u1"


def test_devices_that_are_put_off_at_one_moment_are_not_back_at_one_moment() -> None:
    pauses = []
    for update in IDS:
        desk = Desk().stored(update)
        desk.tell(receipt(update, Verdict.RETRY, retry_after_s=10.0))
        pauses.append(desk.one(pa.Wake).time - desk.now)
    assert 10.0 <= min(pauses) < 10.1
    assert 14.9 < max(pauses) <= 15.0
    assert len(set(pauses)) == len(pauses)


def test_a_herd_whose_receipts_were_lost_does_not_ask_in_one_second() -> None:
    """Nor do those that asked together once do so again the next time."""
    desks = [Desk().stored(update) for update in IDS]
    first = [desk.one(pa.Wake).time - desk.now for desk in desks]
    assert most_in_a_second(first) < 3 * len(IDS) / 15.0
    second = []
    for desk, update, pause in zip(desks, IDS, first, strict=True):
        desk.tell(pa.Elapsed(), pa.Sent(update), after=pause)
        second.append(desk.one(pa.Wake).time - desk.now)
    assert most_in_a_second(second) < 3 * len(IDS) / 30.0
    assert abs(correlation(first, second)) < 0.2


def test_a_large_fleet_asks_after_its_receipts_over_the_time_that_it_is_told() -> None:
    """From the first time on: in the 15 s that waits differ by of themselves it would be 100 a second, or more."""
    devices = 1500
    first, second = [], []
    for number in range(devices):
        update = Random(number).randbytes(8)
        desk = Desk().training()
        desk.tell(pa.Paced(spread_s(devices)), pa.Stored(1, update), pa.Sent(update))
        first.append(desk.one(pa.Wake).time - desk.now)
        desk.tell(pa.Elapsed(), pa.Sent(update), after=first[-1])
        second.append(desk.one(pa.Wake).time - desk.now)
    assert (min(first) >= 15.0, max(first) <= 15.0 + 25.0) == (True, True)
    assert (min(second) >= 30.0, max(second) <= 30.0 + 30.0) == (True, True)
    assert most_in_a_second(first) < 90
    assert most_in_a_second(second) < 80


@pytest.mark.parametrize("fleet", [12, 900])
def test_a_fleet_that_the_wait_itself_spreads_waits_no_longer(fleet: int) -> None:
    desk = Desk()
    desk.tell(pa.Paced(spread_s(fleet)))
    assert desk.stored().one(pa.Wake) == Desk().stored().one(pa.Wake)


def test_the_same_story_has_the_same_pauses() -> None:
    assert [Desk().stored(b"u1").one(pa.Wake) for _ in range(2)] == [Desk().stored(b"u1").one(pa.Wake)] * 2


IDS = [Random(seed).randbytes(8) for seed in range(200)]


def most_in_a_second(times: list[float]) -> int:
    ordered = sorted(times)
    return max(bisect_left(ordered, begin + 1.0) - place for place, begin in enumerate(ordered))


@pytest.mark.parametrize("news", [receipt(b"u2"), receipt(b"u1", run=RUN_TWO)])
def test_a_receipt_for_something_else_changes_nothing(news: pa.Receipted) -> None:
    desk = Desk().stored()
    assert desk.tell(news) == []
    assert list(desk.machine.outbox) == [b"u1"]


def test_a_task_that_ends_a_round_empties_the_outbox_of_it() -> None:
    desk = Desk().stored()
    desk.tell(pa.Tasked(task(2)))
    assert desk.one(pa.Forget) == pa.Forget(1, b"u1", None, "its round is over")


def test_a_restart_sends_what_is_in_the_outbox_and_does_not_train_again() -> None:
    desk = Desk(held=(RUN, 1), outbox={b"u1": (RUN, 1)})
    desk.tell(pa.Connected(), pa.Tasked(task()))
    desk.one(pa.Send)
    assert not desk.seen(pa.Train)


def test_a_device_that_lost_its_outbox_trains_again() -> None:
    desk = Desk(held=(RUN, 1))
    desk.tell(pa.Connected(), pa.Tasked(task()))
    desk.one(pa.Train)


# --- runs -------------------------------------------------------------------------------------------------------------


def test_a_new_run_starts_afresh() -> None:
    desk = Desk(held=(RUN, 7), outbox={b"u1": (RUN, 7)})
    desk.tell(pa.Connected(), pa.Published(manifest(7, run=RUN_TWO)), pa.Tasked(task(1, 7, run=RUN_TWO)))
    assert desk.one(pa.Forget).update == b"u1"
    assert desk.one(pa.Fetch).fresh
    assert desk.machine.run == RUN_TWO


def test_an_outbox_of_another_run_does_not_hide_new_rounds() -> None:
    desk = Desk(held=(RUN_TWO, 1), outbox={b"u1": (RUN, 500)})
    desk.tell(pa.Tasked(task(3, 1, run=RUN_TWO)))
    desk.one(pa.Train)


def test_a_new_runs_manifest_survives_an_old_runs_task() -> None:
    desk = Desk()
    desk.tell(pa.Connected(), pa.Published(manifest(1, run=RUN_TWO)), pa.Tasked(task(9, 4)))
    assert not desk.seen(pa.Fetch)
    desk.tell(pa.Tasked(task(1, 1, run=RUN_TWO)))
    assert desk.one(pa.Fetch).version == 1


def test_training_for_an_old_run_ends_in_nothing() -> None:
    desk = Desk().training()
    desk.tell(pa.Tasked(task(1, 1, run=RUN_TWO)), pa.Stored(1, b"u1"))
    assert desk.one(pa.Forget).verdict is None


def test_an_old_runs_task_in_between_does_not_make_a_device_train_twice() -> None:
    desk = Desk().training()
    desk.tell(
        pa.Tasked(task(9, 9, run=RUN_TWO)), pa.Tasked(task()), pa.Stored(1, b"u1"), pa.Published(manifest())
    )
    desk.one(pa.Send)
    assert not desk.seen(pa.Fetch)
    assert not desk.seen(pa.Train)


def test_a_new_run_in_mid_fetch_forgets_the_fetch() -> None:
    desk = fetching()
    desk.tell(pa.Tasked(task(1, 1, run=RUN_TWO)))
    assert desk.machine.phase is Phase.IDLE
    assert desk.tell(pa.Fetched(1)) == []
    assert desk.machine.version == 0


# --- the end ----------------------------------------------------------------------------------------------------------


def test_the_end_is_told_once_and_empties_the_outbox() -> None:
    desk = Desk().stored()
    desk.tell(pa.Tasked(stop_task(model=4)))
    assert desk.one(pa.Retire) == pa.Retire(4)
    desk.one(pa.Forget)
    assert desk.tell(pa.Tasked(stop_task(model=4)), pa.Connected(), pa.Elapsed()) == []


def test_training_ends_before_the_device_retires() -> None:
    desk = Desk().training()
    assert desk.tell(pa.Tasked(stop_task())) == []
    desk.tell(pa.Stored(1, b"u1"))
    desk.one(pa.Retire)
    assert desk.one(pa.Forget).verdict is None


@pytest.mark.parametrize("ending", [pa.Fetched(1), pa.FetchFailed(1, "why"), pa.Disconnected()])
def test_a_fetch_that_ends_after_the_end_changes_nothing(ending: pa.ParticipantEvent) -> None:
    desk = fetching()
    desk.tell(pa.Tasked(stop_task()))
    desk.tell(ending)
    assert desk.machine.phase is Phase.RETIRED
    assert not desk.seen(pa.Retire)


def test_a_retired_device_works_again_when_the_federation_goes_on() -> None:
    desk = fetching()
    desk.tell(pa.Tasked(stop_task()), pa.Tasked(task(10)))
    assert desk.machine.phase is Phase.FETCHING
    desk.tell(pa.Fetched(1))
    assert desk.one(pa.Train).task.round == 10


# --- misuse -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("event", [pa.Stored(1, b"u"), pa.TrainingFailed(1, "why")])
def test_a_result_that_nobody_asked_for_is_a_bug(event: pa.ParticipantEvent) -> None:
    with pytest.raises(MisuseError, match="nobody is training for"):
        Desk().tell(event)


def test_a_result_of_another_round_is_a_bug() -> None:
    with pytest.raises(MisuseError, match="round 7"):
        Desk().training().tell(pa.Stored(7, b"u"))


def test_a_change_of_phase_that_is_not_in_the_table_is_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    fewer = {
        key: targets
        for key, targets in participant.TRANSITIONS.items()
        if key != (Phase.FETCHING, pa.Fetched)
    }
    monkeypatch.setattr(participant, "TRANSITIONS", fewer)
    with pytest.raises(MisuseError, match="Fetched led from fetching to training"):
        Desk().training()


# --- what the link may carry ------------------------------------------------------------------------------------------


def test_a_model_that_the_link_may_not_carry_today_waits_for_tomorrow() -> None:
    desk = Desk()
    most = cost(manifest(), way(manifest(), 0))
    desk.tell(pa.Connected(), pa.Allowed(most - 1), pa.Tasked(task()), pa.Published(manifest()), pa.Elapsed())
    assert desk.seen(pa.Fetch) == []
    assert "round 1 takes" in desk.one(pa.Log).sentence  # once, however often it is looked at
    assert desk.machine.phase is Phase.IDLE
    desk.tell(pa.Allowed(most))
    desk.one(pa.Fetch)


def test_a_task_is_declined_where_its_update_could_not_be_sent() -> None:
    desk = Desk().training()
    desk.tell(
        pa.Stored(1, b"u1", 100), receipt(b"u1"), pa.Allowed(99), pa.Tasked(task(2)), pa.Tasked(task(3))
    )
    assert desk.seen(pa.Train) == []
    desk.one(pa.Log)
    desk.tell(pa.Allowed(None))
    assert desk.one(pa.Train).task.round == 3


def test_a_stored_update_waits_and_is_sent_when_another_day_has_begun() -> None:
    desk = Desk().training()
    desk.tell(pa.Allowed(50), pa.Stored(1, b"u1", 100))
    assert (
        "the update of round 1 takes 100 B, the link may carry 50 B more today" in desk.one(pa.Log).sentence
    )
    assert desk.seen(pa.Send) == []
    desk.tell(pa.Elapsed(), pa.Allowed(40), after=LONGEST_PAUSE_S)
    assert desk.seen(pa.Send) == []
    assert list(desk.machine.outbox) == [b"u1"]
    desk.tell(pa.Allowed(1000), pa.Allowed(2000))
    assert desk.seen(pa.Send) == [pa.Send(1, b"u1", EVERYTHING)]


def test_nothing_is_sent_where_nothing_is_left_even_if_its_length_is_not_known() -> None:
    desk = Desk(outbox={b"u1": (RUN, 1)})
    desk.tell(pa.Allowed(0), pa.Connected())
    assert desk.seen(pa.Send) == []
