"""Every event in every phase, and every entry of the tables: none missing, none that cannot be reached."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any, get_args

import pytest

from fedmq.errors import MisuseError
from fedmq.protocol import coordination as co
from fedmq.protocol import coordinator, participant
from fedmq.protocol import participation as pa
from fedmq.protocol.coordinator import Coordinator
from fedmq.protocol.coordinator import Phase as Round
from fedmq.protocol.messages import Facts, TaskKind, Verdict
from fedmq.protocol.participant import Participant
from fedmq.protocol.participant import Phase as Work
from fedmq.protocol.policy import Policy, StopWhen
from tests.unit.protocol.stage import (
    LAYOUT,
    OTHER_LAYOUT,
    RUN,
    TERMS,
    Desk,
    born,
    manifest,
    receipt,
    stage_in,
    stop_task,
    task,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from fedmq.protocol.diagrams import Transitions

    Seen = set[tuple[object, type, object]]

RUN_TWO = b"run-two."

# --- every event in every phase ---------------------------------------------------------------------------------------

ROUND_EVENTS: dict[type, co.CoordinatorEvent] = {
    co.Started: co.Started(),
    co.Born: born("eve"),
    co.Died: co.Died("bob", 1),
    co.Offered: co.Offered("bob", RUN, 1, b"bob", 10),
    co.Searched: co.Searched("bob", 1, b"bob", (0, 1)),
    co.Garbled: co.Garbled("bob", 10, "no msgpack"),
    co.Completed: co.Completed("bob", 1, b"bob", 1, LAYOUT),
    co.Absorbed: co.Absorbed("ada", 1, b"ada", Facts(1)),
    co.Spoiled: co.Spoiled("ada", 1, b"ada", "why"),
    co.Stepped: co.Stepped(1, 2),
    co.StepFailed: co.StepFailed(1, "why"),
    co.Ticked: co.Ticked(),
    co.StopAsked: co.StopAsked("enough"),
}
ROUND_BUGS = {
    *((phase, co.Started) for phase in Round if phase not in {Round.NEW, Round.STOPPED}),
    *(
        (phase, kind)
        for phase in Round
        if phase is not Round.STEPPING
        for kind in (co.Stepped, co.StepFailed)
    ),
}
WORK_EVENTS: dict[type, pa.ParticipantEvent] = {
    pa.Connected: pa.Connected(),
    pa.Disconnected: pa.Disconnected(),
    pa.Tasked: pa.Tasked(task(2)),
    pa.Published: pa.Published(manifest(2)),
    pa.Fetched: pa.Fetched(1),
    pa.FetchFailed: pa.FetchFailed(1, "why"),
    pa.Stored: pa.Stored(1, b"u1"),
    pa.Sent: pa.Sent(b"u1"),
    pa.TrainingFailed: pa.TrainingFailed(1, "why"),
    pa.Receipted: receipt(b"u1"),
    pa.Allowed: pa.Allowed(1000),
    pa.Paced: pa.Paced(17.0),
    pa.Elapsed: pa.Elapsed(),
}
WORK_BUGS = {
    (phase, kind) for phase in Work if phase is not Work.TRAINING for kind in (pa.Stored, pa.TrainingFailed)
}


def test_no_event_is_forgotten() -> None:
    assert set(get_args(co.CoordinatorEvent)) == set(ROUND_EVENTS)
    assert set(get_args(pa.ParticipantEvent)) == set(WORK_EVENTS)


@pytest.mark.parametrize("kind", ROUND_EVENTS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("phase", Round, ids=lambda phase: phase.value)
def test_the_coordinator_takes_every_event_in_every_phase(phase: Round, kind: type) -> None:
    stage = stage_in(phase)
    if (phase, kind) in ROUND_BUGS:
        with pytest.raises(MisuseError):
            stage.tell(ROUND_EVENTS[kind])
        return
    effects = stage.tell(ROUND_EVENTS[kind])
    assert all(isinstance(effect, get_args(co.CoordinatorEffect)) for effect in effects)
    assert stage.machine.phase in coordinator.TRANSITIONS.get((phase, kind), {phase})


def desk_in(phase: Work) -> Desk:
    desk = Desk()
    match phase:
        case Work.FETCHING:
            desk.tell(pa.Connected(), pa.Published(manifest()), pa.Tasked(task()))
        case Work.TRAINING:
            desk.training()
        case Work.RETIRED:
            desk.tell(pa.Connected(), pa.Tasked(stop_task(1)))
    assert desk.machine.phase is phase
    return desk


@pytest.mark.parametrize("kind", WORK_EVENTS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("phase", Work, ids=lambda phase: phase.value)
def test_the_participant_takes_every_event_in_every_phase(phase: Work, kind: type) -> None:
    desk = desk_in(phase)
    if (phase, kind) in WORK_BUGS:
        with pytest.raises(MisuseError):
            desk.tell(WORK_EVENTS[kind])
        return
    effects = desk.tell(WORK_EVENTS[kind])
    assert all(isinstance(effect, get_args(pa.ParticipantEffect)) for effect in effects)
    assert desk.machine.phase in participant.TRANSITIONS.get((phase, kind), {phase})


# --- every entry of the tables ----------------------------------------------------------------------------------------


def entries(transitions: Transitions[Any]) -> Seen:
    return {(phase, event, target) for (phase, event), targets in transitions.items() for target in targets}


def walk_coordinator(random: Random, seen: Seen) -> None:
    """Lead one coordinator through a short random life; note each change of phase."""
    quorum = random.randint(1, 2)
    policy = Policy(
        min_devices=random.randint(quorum, 2), quorum=quorum, soft_deadline_s=10.0, hard_deadline_s=20.0
    )
    stop = StopWhen(abandoned=random.choice((0, 1, 2)), rounds=random.choice((0, 1)))
    machine, now, names = Coordinator(TERMS, policy, stop), 0.0, ["ada", "bob"]
    progress = machine.progress
    for _ in range(60):
        name, number = random.choice(names), machine.progress.round
        update, step = name.encode(), machine.progress.version + 1
        events: list[tuple[co.CoordinatorEvent, int]] = [
            (co.Started(), 2),
            (born(name), 6),
            (born(name, layout=OTHER_LAYOUT), 1),
            (co.Died(name, 1), 1),
            (co.Offered(name, RUN, number, update, 10), 9),
            (co.Completed(name, number, update, step - 1, LAYOUT), 6),
            (co.Completed(name, number, update, step - 1, OTHER_LAYOUT), 3),
            (co.Absorbed(name, number, update, Facts(1)), 4),
            (co.Spoiled(name, number, update, "why"), 4),
            (co.Stepped(number, step), 3),
            (co.StepFailed(number, "why"), 3),
            (co.Ticked(), 2),
            (co.StopAsked("enough"), random.random() < 0.2),
        ]
        event = random.choices([event for event, _ in events], [weight for _, weight in events])[0]
        if machine.phase is Round.NEW and random.random() < 0.1:
            done = coordinator.Progress(round=1, steps=1)
            machine = Coordinator(TERMS, policy, stop, progress=random.choice((progress, done)))
        before = machine.phase
        if (before, type(event)) in ROUND_BUGS:
            continue
        now += 10.0 if random.random() < 0.05 else 0.0
        machine.handle(event, now)
        seen.add((before, type(event), machine.phase))


def walk_participant(random: Random, seen: Seen) -> None:
    """Lead one participant through a short random life; note each change of phase."""
    machine, now = Participant("ada", LAYOUT), 0.0
    number = 1
    for _ in range(60):
        number += random.random() < 0.3
        model, run = random.choice((1, 1, 2)), RUN if random.random() < 0.95 else RUN_TWO
        kind = TaskKind.TRAIN if random.random() < 0.9 else TaskKind.STOP
        work = machine._work.round if machine._work else number
        settled = random.choice(list(machine.outbox) or [b"none"])
        events: list[pa.ParticipantEvent] = [
            pa.Connected(),
            pa.Disconnected(),
            pa.Tasked(task(number, model, run=run, kind=kind, **_more(random, number))),
            pa.Published(manifest(model, key=random.choice((1, model)), run=run)),
            pa.Fetched(random.randint(1, 2)),
            pa.FetchFailed(random.randint(1, 2), "why", wrong=random.random() < 0.5),
            pa.Stored(work, b"u%d" % work),
            pa.TrainingFailed(work, "why"),
            receipt(settled, random.choice((*Verdict, *[Verdict.RETRY] * 5))),
            pa.Allowed(random.choice((0, *[None] * 9))),
            pa.Elapsed(),
        ]
        event = random.choice((*events, events[2], *events[2:7]))  # what leads somewhere, more often
        before = machine.phase
        if (before, type(event)) in WORK_BUGS:
            continue
        now += random.choice((0.0, 0.0, 10.0))
        machine.handle(event, now)
        seen.add((before, type(event), machine.phase))


def _more(random: Random, number: int) -> dict[str, object]:
    oldest = random.choice((number, 1, 1))
    return {"fraction": float(random.random() < 0.8), "oldest": oldest}


@pytest.mark.parametrize(
    ("walk", "seed", "transitions"),
    [(walk_coordinator, 1, coordinator.TRANSITIONS), (walk_participant, 2, participant.TRANSITIONS)],
)
def test_every_entry_of_the_table_is_reached(
    walk: Callable[[Random, Seen], None],
    seed: int,
    transitions: Transitions[Any],
) -> None:
    random, wanted = Random(seed), entries(transitions)
    seen: Seen = set()
    for _ in range(5_000):
        walk(random, seen)
        if wanted <= seen:
            break
    names = sorted(f"{phase}, {event.__name__}: {target}" for phase, event, target in wanted - seen)
    assert not names, "never reached: " + "; ".join(names)
