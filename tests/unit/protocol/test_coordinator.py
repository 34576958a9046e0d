"""What the coordinator does, event by event, on the bare object."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fedmq.errors import MisuseError
from fedmq.protocol import calls, coordinator
from fedmq.protocol import coordination as co
from fedmq.protocol.cohort import in_cohort
from fedmq.protocol.coordinator import CENSUS_S, START_PAUSE_S, Phase, Progress
from fedmq.protocol.ledger import Ledger
from fedmq.protocol.messages import Facts, Task, TaskKind, Verdict
from fedmq.protocol.policy import Policy, StopWhen
from tests.unit.protocol.stage import LAYOUT, OTHER_LAYOUT, RUN, Stage, born, stage_in

ACCEPTED, DUPLICATE, LATE, REJECTED, RETRY = Verdict


# --- rounds open ------------------------------------------------------------------------------------------------------


def test_a_round_opens_once_enough_devices_are_there() -> None:
    stage = Stage()
    assert stage.tell(co.Started(), born("ada"), born("ada", 2)) == []
    assert stage.at(Phase.WAITING)
    stage.tell(born("bob"))
    announced = stage.one(co.Announce)
    assert announced.begin
    assert (announced.task.round, announced.task.model, announced.task.oldest) == (1, 1, 1)
    assert stage.one(co.WakeAt).time == stage.now + 60.0


def test_the_task_says_what_the_terms_say() -> None:
    stage = Stage().opened()
    task = stage.one(co.Announce).task
    assert task == Task(
        RUN, 1, 1, TaskKind.TRAIN, 1, LAYOUT, task.salt, 1.0, 120.0, "float32", 1000, {"epochs": 1}
    )


def test_births_before_the_start_count() -> None:
    stage = Stage()
    stage.tell(born("ada"), born("bob"), co.Started())
    assert stage.at(Phase.OPEN)


def test_a_device_built_for_another_model_does_not_count() -> None:
    stage = Stage()
    stage.tell(co.Started(), born("ada"), born("bob", layout=OTHER_LAYOUT))
    assert stage.at(Phase.WAITING)


def test_a_device_rebuilt_for_another_model_is_not_waited_for() -> None:
    stage = Stage().opened()
    stage.accept("ada")
    stage.tell(born("bob", 2, OTHER_LAYOUT))
    assert stage.at(Phase.STEPPING)


def test_a_small_cohort_is_drawn_again_until_it_can_make_the_quorum() -> None:
    names = ["ada", "bob", "eve"]
    for seed in range(20):
        stage = Stage(Policy(fraction=0.3, min_devices=3, quorum=2), progress=Progress(round=seed))
        task = stage.opened(*names).one(co.Announce).task
        assert sum(in_cohort(name, task.salt, task.fraction) for name in names) >= 2


def test_where_no_draw_will_do_the_best_is_taken() -> None:
    names = [f"d{number}" for number in range(4)]
    stage = Stage(Policy(fraction=0.02, min_devices=4, quorum=4))
    task = stage.opened(*names).one(co.Announce).task
    assert sum(in_cohort(name, task.salt, task.fraction) for name in names) >= 1


def test_a_quorum_that_no_draw_can_make_costs_one_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    draws: list[int] = []

    def draw(seed: bytes, _: int, attempt: int) -> bytes:
        draws.append(attempt)
        return seed

    monkeypatch.setattr(calls, "draw_salt", draw)
    for quorum, tried in ((90, 1), (60, calls.SALT_DRAWS)):
        draws.clear()
        policy = Policy(fraction=0.1, min_devices=300, quorum=quorum)
        calls.next_task(Stage().machine.terms, policy, Progress(), [f"d{number}" for number in range(300)])
        assert len(draws) == tried


# --- an update's way --------------------------------------------------------------------------------------------------


def test_an_update_is_kept_absorbed_and_only_then_accepted() -> None:
    stage = Stage().opened()
    assert stage.offer("ada") == [co.Keep("ada", 1, b"ada")]
    assert stage.complete("ada") == [co.Absorb("ada", 1, b"ada")]
    stage.absorb("ada")
    assert stage.one(co.Reply).receipt.verdict is ACCEPTED
    assert stage.at(Phase.OPEN)
    stage.accept("bob")
    assert stage.one(co.Finish) == co.Finish(1, 2)


def test_each_chunk_is_kept_and_the_update_counted_once() -> None:
    stage = Stage().opened()
    for index in (1, 0, 2):
        assert stage.offer("ada", opening=index == 0) == [co.Keep("ada", 1, b"ada")]
    stage.complete("ada")
    stage.absorb("ada")
    assert stage.machine.ledger.tally.received == 1
    assert stage.machine.ledger.tally.bytes_up == 30


def test_a_repeat_while_the_rule_is_at_work_is_counted_and_not_answered() -> None:
    stage = Stage().opened()
    stage.deliver("ada")
    assert stage.offer("ada") == []
    assert stage.complete("ada") == []
    assert stage.machine.ledger.tally.duplicate == 1


def test_a_repeat_of_a_settled_update_gets_its_verdict_again() -> None:
    stage = Stage().opened("ada", "bob", "eve")
    stage.accept("ada")
    stage.deliver("bob")
    stage.spoil("bob")
    stage.offer("ada")
    assert stage.verdicts == [("ada", ACCEPTED)]
    stage.offer("bob")
    assert stage.verdicts == [("bob", REJECTED)]
    assert stage.one(co.Reply).receipt.reason == "not finite"
    assert stage.offer("ada", opening=False) == []
    assert stage.machine.ledger.tally.duplicate == 2


def test_a_second_update_of_a_device_is_a_duplicate() -> None:
    stage = Stage().opened()
    stage.accept("ada")
    stage.offer("ada", b"ada-again")
    assert stage.verdicts == [("ada", DUPLICATE)]


def test_a_device_that_lost_its_outbox_may_send_another_while_the_first_is_incomplete() -> None:
    stage = Stage().opened()
    stage.offer("ada", b"first")
    assert stage.offer("ada", b"second") == [co.Keep("ada", 1, b"second")]
    assert stage.complete("ada", b"first") == []
    assert stage.complete("ada", b"second") == [co.Absorb("ada", 1, b"second")]


def test_an_update_that_does_not_decode_is_rejected_and_fills_no_quorum() -> None:
    stage = Stage(Policy(min_devices=2, quorum=2)).opened()
    stage.accept("ada")
    stage.deliver("bob")
    stage.spoil("bob", "bad bytes")
    assert stage.verdicts == [("bob", REJECTED)]
    assert stage.at(Phase.OPEN)


@pytest.mark.parametrize(
    ("wrong", "word"),
    [({"layout": OTHER_LAYOUT}, "another model layout"), ({"model": 7}, "starts from model 7")],
)
def test_an_update_for_another_model_is_rejected(wrong: dict[str, object], word: str) -> None:
    stage = Stage().opened()
    stage.offer("ada")
    stage.complete("ada", **wrong)  # type: ignore[arg-type]
    assert stage.verdicts == [("ada", REJECTED)]
    assert word in stage.one(co.Reply).receipt.reason


def test_an_update_of_another_run_is_rejected_in_the_words_of_that_run() -> None:
    stage = Stage().opened()
    stage.offer("ada", run=b"run-zero")
    assert stage.verdicts == [("ada", REJECTED)]
    assert stage.one(co.Reply).receipt.run == b"run-zero"
    assert stage.offer("ada", run=b"run-zero", opening=False) == []


def test_a_device_outside_the_cohort_is_rejected() -> None:
    names = [f"d{number}" for number in range(20)]
    stage = Stage(Policy(fraction=0.5, min_devices=20)).opened(*names)
    task = stage.machine.task
    assert task is not None
    outside = next(name for name in names if not in_cohort(name, task.salt, task.fraction))
    stage.offer(outside)
    assert stage.verdicts == [(outside, REJECTED)]


def test_a_round_that_was_never_opened_is_rejected_and_a_closed_one_late() -> None:
    stage = Stage(progress=Progress(round=5)).opened()
    stage.offer("ada", round=7)
    assert stage.verdicts == [("ada", REJECTED)]
    stage.offer("ada", round=5)
    assert stage.verdicts == [("ada", LATE)]


def test_before_the_start_an_update_is_put_off() -> None:
    stage = Stage(progress=Progress(round=5))
    stage.offer("ada")
    assert stage.one(co.Reply).receipt.verdict is RETRY
    assert stage.one(co.Reply).receipt.retry_after_s == START_PAUSE_S
    assert stage.offer("ada", opening=False) == []
    assert stage.machine.ledger.tally.received == 0


def test_garbage_is_counted() -> None:
    stage = Stage().opened()
    stage.tell(co.Garbled("ada", 100, "no msgpack"))
    assert (stage.machine.ledger.tally.rejected, stage.machine.ledger.tally.bytes_up) == (1, 100)


def test_what_comes_back_from_the_rule_too_late_or_twice_changes_nothing() -> None:
    stage = Stage().opened()
    stage.accept("ada")
    assert stage.absorb("ada") == []
    assert stage.tell(co.Absorbed("ada", 99, b"ada", Facts(1))) == []
    assert stage.tell(co.Absorbed("ada", 1, b"other", Facts(1))) == []
    assert stage.tell(co.Spoiled("eve", 1, b"eve", "why")) == []
    assert stage.machine.ledger.tally.accepted == 1


# --- what comes while a round closes ----------------------------------------------------------------------------------


def test_what_is_in_the_journal_is_told_late_only_when_the_round_is_over_for_good() -> None:
    stage = Stage(Policy(min_devices=2, quorum=1, soft_deadline_s=60.0, hard_deadline_s=60.0)).opened()
    stage.accept("ada")
    stage.offer("bob")
    stage.tell(co.Ticked(), after=60.0)
    assert stage.at(Phase.STEPPING)
    assert stage.complete("bob") == []
    assert stage.offer("bob") == []
    stage.step()
    assert stage.verdicts == [("bob", LATE)]
    assert stage.one(co.Tell).report.late == 1
    stage.offer("bob", round=1)
    assert stage.verdicts == [("bob", LATE)]
    assert stage.complete("bob", round=1) == []


def test_who_comes_while_the_round_closes_is_told_late_when_it_is_over() -> None:
    stage = stage_in(Phase.STEPPING)
    assert stage.offer("eve") == []
    assert stage.offer("eve") == []
    stage.offer("ada")
    assert stage.verdicts == [("ada", ACCEPTED)]
    stage.step()
    assert stage.verdicts == [("eve", LATE)]
    assert (stage.one(co.Tell).report.late, stage.one(co.Tell).report.duplicate) == (1, 1)


def test_another_update_than_the_one_in_the_journal_is_late_in_its_place() -> None:
    stage = Stage(Policy(min_devices=2, quorum=1, soft_deadline_s=60.0, hard_deadline_s=60.0)).opened()
    stage.accept("ada")
    stage.offer("bob")
    stage.tell(co.Ticked(), after=60.0)
    assert stage.offer("bob", b"another") == []
    stage.step()
    assert stage.one(co.Reply).receipt.update == b"another"
    assert stage.verdicts == [("bob", LATE)]


def test_an_abandoned_round_tells_nobody_late_but_counts_it() -> None:
    stage = stage_in(Phase.OPEN)
    stage.offer("bob")
    stage.absorb("ada")
    stage.tell(co.Ticked(), after=120.0)
    assert stage.one(co.Discard).round == 1
    assert stage.verdicts == []
    assert stage.one(co.Tell).report.late == 1


def test_after_the_round_its_verdicts_are_remembered() -> None:
    stage = Stage().opened()
    stage.accept("ada", "bob")
    stage.step()
    stage.offer("ada", round=1)
    assert stage.verdicts == [("ada", ACCEPTED)]


# --- rounds close -----------------------------------------------------------------------------------------------------


def test_a_round_closes_as_soon_as_everybody_has_a_verdict() -> None:
    stage = Stage().opened("ada", "bob")
    stage.accept("ada")
    stage.deliver("bob")
    stage.spoil("bob")
    assert stage.at(Phase.STEPPING)


def test_a_device_that_dies_is_not_waited_for() -> None:
    stage = Stage().opened()
    stage.accept("ada")
    stage.tell(co.Died("bob", 1))
    assert stage.at(Phase.STEPPING)


def test_an_old_will_does_not_bury_a_device_that_came_back() -> None:
    stage = Stage().opened()
    stage.accept("ada")
    stage.tell(born("bob", 2), co.Died("bob", 1))
    assert stage.at(Phase.OPEN)
    stage.tell(co.Died("bob", 2))
    assert stage.at(Phase.STEPPING)


def test_the_will_of_a_life_that_nobody_saw_begin_buries_the_device() -> None:
    stage = Stage().opened()
    stage.accept("ada")
    stage.tell(co.Died("bob", 3))
    assert stage.at(Phase.STEPPING)


def test_a_will_of_an_unknown_device_means_nothing() -> None:
    stage = Stage().opened()
    assert stage.tell(co.Died("eve", 1)) == []


def test_a_device_born_in_mid_round_is_waited_for_unless_it_has_answered() -> None:
    stage = Stage().opened()
    stage.accept("ada")
    stage.tell(born("eve"), born("ada", 2), co.Died("bob", 1))
    assert stage.at(Phase.OPEN)
    stage.accept("eve")
    assert stage.at(Phase.STEPPING)
    stage.step()
    assert stage.one(co.Tell).report.expected == 3


def test_an_update_from_a_device_that_was_not_there_counts_it_in() -> None:
    stage = Stage().opened()
    stage.accept("eve", "ada", "bob")
    assert stage.at(Phase.STEPPING)
    stage.step()
    assert stage.one(co.Tell).report.expected == 3


def test_with_over_selection_enough_is_enough() -> None:
    stage = Stage(Policy(over_selection=1.5, min_devices=3)).opened("ada", "bob", "eve")
    stage.accept("ada")
    assert stage.at(Phase.OPEN)
    stage.accept("bob")
    assert stage.at(Phase.STEPPING)


def test_at_the_soft_deadline_a_quorum_is_enough() -> None:
    stage = Stage().opened()
    stage.accept("ada")
    stage.tell(co.Ticked(), after=59.9)
    assert stage.one(co.WakeAt).time == 1060.0
    stage.tell(co.Ticked(), after=0.1)
    assert stage.at(Phase.STEPPING)


def test_after_the_soft_deadline_the_quorum_closes_the_round() -> None:
    stage = Stage().opened()
    stage.tell(co.Ticked(), after=60.0)
    assert stage.one(co.WakeAt).time == 1120.0
    stage.accept("ada")
    assert stage.at(Phase.STEPPING)


def test_at_the_hard_deadline_a_round_without_a_quorum_is_abandoned_and_the_next_opens() -> None:
    stage = Stage().opened()
    stage.tell(co.Ticked(), after=120.0)
    assert [type(effect) for effect in stage.effects] == [
        co.Discard,
        co.Tell,
        co.Announce,
        co.WakeAt,
        co.WakeAt,
    ]
    assert stage.one(co.Tell).report.outcome == "abandoned: 0 accepted at the deadline, the quorum is 1"
    assert (stage.round, stage.machine.progress.abandoned) == (2, 1)


def test_draining_waits_for_the_rule() -> None:
    stage = Stage().opened()
    stage.accept("ada")
    stage.deliver("bob")
    stage.tell(co.Ticked(), after=60.0)
    assert stage.at(Phase.DRAINING)
    assert stage.tell(co.Ticked(), after=60.0) == []
    stage.absorb("bob")
    assert stage.at(Phase.STEPPING)
    assert stage.machine.ledger.accepted == 2


def test_a_step_reports_and_opens_the_next_round_with_the_new_model() -> None:
    stage = Stage().opened()
    stage.deliver("ada", "bob")
    stage.absorb("ada", 10, {"accuracy": 0.5, "held_out": 10.0})
    stage.absorb("bob", 30, {"accuracy": 1.0, "held_out": 30.0})
    stage.now += 5.0
    stage.step(bytes_down=99, evaluation={"loss": 0.1})
    report = stage.one(co.Tell).report
    assert (report.round, report.version, report.outcome, report.seconds) == (1, 2, "stepped", 5.0)
    assert (report.expected, report.received, report.accepted) == (2, 2, 2)
    assert (report.examples, report.bytes_up, report.bytes_down) == (40, 20, 99)
    assert (report.metrics, report.evaluation) == ({"accuracy": 0.875, "held_out": 40.0}, {"loss": 0.1})
    assert stage.one(co.Announce).task.model == 2
    assert replace(stage.machine.progress, recent=(), arrivals=()) == Progress(2, 2, 1, 0.875, fleet=2)


def test_a_step_that_fails_abandons_the_round_and_drops_its_journal() -> None:
    stage = stage_in(Phase.STEPPING)
    stage.tell(co.StepFailed(1, "not finite"))
    assert stage.one(co.Discard).round == 1
    assert stage.one(co.Tell).report.outcome == "abandoned: the step failed: not finite"
    assert (stage.machine.progress.version, stage.machine.progress.abandoned) == (1, 1)


def test_a_step_forgives_what_was_abandoned() -> None:
    stage = Stage(progress=Progress(abandoned=3)).opened()
    stage.accept("ada", "bob")
    stage.step()
    assert stage.machine.progress.abandoned == 0


def test_too_few_devices_after_a_round_means_waiting() -> None:
    stage = Stage().opened()
    stage.accept("ada")
    stage.tell(co.Died("bob", 1))
    stage.step()
    assert stage.at(Phase.WAITING)
    stage.tell(born("bob", 2))
    assert stage.at(Phase.OPEN)


# --- the end ----------------------------------------------------------------------------------------------------------


def test_the_federation_ends_after_so_many_steps() -> None:
    stage = Stage(stop=StopWhen(rounds=1)).opened()
    stage.accept("ada", "bob")
    stage.step()
    end = stage.one(co.End)
    assert end.reason == "1 rounds are done"
    assert (end.task.kind, end.task.round, end.task.oldest, end.task.model) == (TaskKind.STOP, 2, 2, 2)


@pytest.mark.parametrize(
    ("stop", "metrics", "ends"),
    [
        (StopWhen(target=0.9), [0.5, 0.95], "accuracy reached 0.95, the target was 0.9"),
        (StopWhen(patience=2), [0.5, 0.5, 0.4], "accuracy has not got better for 2 rounds"),
        (
            StopWhen(patience=2, lower_is_better=True),
            [0.5, 0.6, 0.5],
            "accuracy has not got better for 2 rounds",
        ),
    ],
)
def test_the_federation_ends_on_its_metric(stop: StopWhen, metrics: list[float], ends: str) -> None:
    stage = Stage(stop=stop).opened()
    for value in metrics:
        assert not stage.seen(co.End)
        stage.accept("ada", "bob")
        stage.step(evaluation={"accuracy": value})
    assert stage.one(co.End).reason == ends


def test_the_federation_ends_after_rounds_in_vain() -> None:
    stage = Stage(stop=StopWhen(abandoned=2)).opened()
    stage.tell(co.Ticked(), after=120.0)
    stage.tell(co.Ticked(), after=120.0)
    assert stage.one(co.End).reason == "2 rounds in a row were abandoned"


def test_without_the_metric_patience_does_not_run() -> None:
    stage = Stage(stop=StopWhen(patience=1)).opened()
    for _ in range(3):
        stage.accept("ada", "bob")
        stage.step()
    assert stage.at(Phase.OPEN)
    assert stage.machine.progress.stale == 0


@pytest.mark.parametrize("phase", [Phase.NEW, Phase.WAITING])
def test_a_stop_before_a_round_ends_at_once(phase: Phase) -> None:
    stage = stage_in(phase)
    stage.tell(co.StopAsked("enough"))
    assert stage.one(co.End).reason == "enough"
    assert not stage.seen(co.Discard)


@pytest.mark.parametrize("phase", [Phase.OPEN, Phase.DRAINING])
def test_a_stop_in_a_round_gives_it_up(phase: Phase) -> None:
    stage = stage_in(phase)
    stage.tell(co.StopAsked("enough"))
    assert [type(effect) for effect in stage.effects] == [co.Discard, co.Tell, co.End]
    assert stage.absorb("ada") == []
    assert stage.machine.ledger.accepted == 0


def test_a_stop_waits_for_a_model_in_the_making() -> None:
    stage = stage_in(Phase.STEPPING)
    assert stage.tell(co.StopAsked("enough")) == []
    stage.step()
    assert stage.one(co.End).task.model == 2


def test_after_the_end_updates_still_get_an_answer() -> None:
    stage = Stage(stop=StopWhen(rounds=1)).opened()
    stage.accept("ada", "bob")
    stage.step()
    stage.offer("ada", round=1)
    assert stage.verdicts == [("ada", ACCEPTED)]
    stage.offer("eve", round=1)
    assert stage.verdicts == [("eve", LATE)]


# --- restarts ---------------------------------------------------------------------------------------------------------


def resumed(stage: Stage) -> Stage:
    """Return the same federation after a crash, with the journal's task."""
    again = Stage(
        stage.machine.policy, progress=stage.machine.progress, ledger=Ledger(stage.machine.ledger.snapshot())
    )
    again.now = stage.now + 1.0
    again.tell(co.Started(stage.machine.task))
    return again


def test_an_interrupted_round_goes_on_under_its_number() -> None:
    before = Stage().opened()
    after = resumed(before)
    assert after.one(co.Announce) == co.Announce(before.machine.task, begin=False)  # type: ignore[arg-type]
    assert [wake.time for wake in after.seen(co.WakeAt)][-1] == after.now + CENSUS_S


def test_an_interrupted_round_waits_for_births_before_it_believes_that_nobody_is_left() -> None:
    after = resumed(Stage().opened())
    after.accept("ada")
    assert after.at(Phase.OPEN)
    after.tell(born("ada"), born("bob"))
    after.tell(co.Ticked(), after=CENSUS_S)
    assert after.at(Phase.OPEN)
    after.accept("bob")
    assert after.at(Phase.STEPPING)


def test_after_the_census_a_round_without_anybody_left_closes() -> None:
    after = resumed(Stage().opened())
    after.accept("ada")
    after.tell(co.Ticked(), after=CENSUS_S - 0.5)
    assert after.one(co.WakeAt).time == after.now + 0.5
    after.tell(co.Ticked(), after=0.5)
    assert after.at(Phase.STEPPING)


def test_the_hard_deadline_does_not_wait_for_the_census() -> None:
    stage = Stage(Policy(min_devices=2, soft_deadline_s=1.0, hard_deadline_s=2.0))
    after = resumed(stage.opened())
    assert [wake.time for wake in after.seen(co.WakeAt)][-1] == after.now + 1.0


def test_a_round_that_was_closed_before_the_crash_is_not_counted_again() -> None:
    stage = Stage().opened()
    task = stage.machine.task
    stage.accept("ada", "bob")
    verdicts = stage.machine.ledger.snapshot(1)
    again = Stage(progress=Progress(1, 2, 1), ledger=Ledger(verdicts))
    again.tell(born("ada"), born("bob"), co.Started(task))
    assert again.one(co.Discard).round == 1
    assert again.one(co.Announce).task.round == 2


def test_a_journal_of_an_older_round_is_dropped() -> None:
    again = Stage(progress=Progress(round=7))
    again.tell(co.Started(Stage().opened().machine.task))
    assert again.one(co.Discard).round == 1
    assert again.at(Phase.WAITING)


def test_a_journal_newer_than_the_checkpoint_moves_the_round_number() -> None:
    task = Stage(progress=Progress(round=6)).opened().machine.task
    again = Stage()
    again.tell(co.Started(task))
    assert again.round == 7
    again.tell(born("ada"), born("bob"))
    again.tell(co.Ticked(), after=120.0)
    assert again.one(co.Announce).task.round == 8


def test_a_federation_that_is_done_ends_again_and_drops_what_was_open() -> None:
    task = Stage().opened().machine.task
    again = Stage(stop=StopWhen(rounds=3), progress=Progress(1, 4, 3))
    again.tell(co.Started(task))
    assert [type(effect) for effect in again.effects] == [co.Discard, co.End]
    assert again.one(co.End).task.round == 2


def test_a_start_after_a_stop_changes_nothing() -> None:
    stage = stage_in(Phase.NEW)
    stage.tell(co.StopAsked("enough"))
    assert stage.tell(co.Started()) == []
    assert stage.at(Phase.STOPPED)


# --- misuse -----------------------------------------------------------------------------------------------------------


def test_a_second_start_is_a_bug() -> None:
    with pytest.raises(MisuseError, match="a second time"):
        Stage().opened().tell(co.Started())


@pytest.mark.parametrize("event", [co.Stepped(1, 2), co.StepFailed(1, "why")])
def test_a_step_that_nobody_asked_for_is_a_bug(event: co.CoordinatorEvent) -> None:
    with pytest.raises(MisuseError, match="came while open"):
        Stage().opened().tell(event)


def test_a_step_of_another_round_is_a_bug() -> None:
    with pytest.raises(MisuseError, match="of round 7"):
        stage_in(Phase.STEPPING).tell(co.Stepped(7, 2))


def test_a_round_that_is_asked_for_too_early_is_a_bug() -> None:
    stage = Stage()
    stage.machine.phase = Phase.OPEN
    with pytest.raises(MisuseError, match="no round has been opened"):
        stage.tell(born("ada"))


def test_a_change_of_phase_that_is_not_in_the_table_is_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    fewer = {
        key: targets for key, targets in coordinator.TRANSITIONS.items() if key != (Phase.WAITING, co.Born)
    }
    monkeypatch.setattr(coordinator, "TRANSITIONS", fewer)
    with pytest.raises(MisuseError, match="Born led from waiting to open"):
        Stage().opened()
