"""The aggregator's side of the protocol, as a machine without input or output.

The shell gives it what happened (`handle(event, now)`) and carries out what comes back. There is no socket, clock,
thread, array or random source in here; `now` is any monotonic clock in seconds.

The life of a federation, phase by phase:

- **new**: nothing has started. Who comes is noted; updates are put off.
- **waiting**: fewer devices are there than the policy wants. A birth may open a round.
- **open**: a task is out. Updates are admitted, journaled, absorbed, receipted. The round closes as soon as every
  device that was asked has its verdict; with over-selection, as soon as enough are in; at the soft deadline with a
  quorum; at the hard deadline in any case.
- **draining**: closed to new updates; those that are with the rule still come back. Then there is a quorum, or not.
- **stepping**: the shell moves the model and publishes it; the next round follows.
- **stopped**: a stop condition held. Updates still get their receipts.

An update's way through an open round: `Offered` → `Keep` (journal it) → `Completed` → `Absorb` → `Absorbed` or
`Spoiled` → `Reply`. What does not belong is answered at the door, and never journaled. A repeat of a settled update
gets the verdict it had, for its first receipt may have been lost. What comes while the round closes is late, but is
told so only when the round is over for good: after a restart in between it may be counted yet.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Final, assert_never

from fedmq.errors import MisuseError
from fedmq.protocol import coordination as co
from fedmq.protocol.cohort import cohort_size, draw_salt, in_cohort
from fedmq.protocol.ledger import Entry, Ledger, Standing
from fedmq.protocol.messages import Receipt, Report, Task, TaskKind, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fedmq.protocol.messages import Setting
    from fedmq.protocol.policy import Policy, StopWhen

_SALT_DRAWS = 64

CENSUS_S: Final = 5.0
"""After a restart in mid-round, time for the retained births to come in: until then, that nobody is left to wait for
means nothing, and the round would close on the few updates that its journal holds."""
START_PAUSE_S: Final = 5.0
"""What a device is told to wait whose update arrives before the aggregator knows its own round."""


class Phase(Enum):
    """Where the federation stands."""

    NEW = "new"
    WAITING = "waiting"
    OPEN = "open"
    DRAINING = "draining"
    STEPPING = "stepping"
    STOPPED = "stopped"


_CLOSING = frozenset({Phase.OPEN, Phase.DRAINING, Phase.STEPPING, Phase.WAITING, Phase.STOPPED})
_DRAINED = frozenset({Phase.DRAINING, Phase.STEPPING, Phase.OPEN, Phase.WAITING, Phase.STOPPED})
_NEXT = frozenset({Phase.OPEN, Phase.WAITING, Phase.STOPPED})

TRANSITIONS: Mapping[tuple[Phase, type], frozenset[Phase]] = {
    (Phase.NEW, co.Started): _NEXT,
    (Phase.NEW, co.StopAsked): frozenset({Phase.STOPPED}),
    (Phase.WAITING, co.Born): frozenset({Phase.WAITING, Phase.OPEN}),
    (Phase.WAITING, co.StopAsked): frozenset({Phase.STOPPED}),
    (Phase.OPEN, co.Born): _CLOSING,
    (Phase.OPEN, co.Died): _CLOSING,
    (Phase.OPEN, co.Completed): _CLOSING,
    (Phase.OPEN, co.Absorbed): _CLOSING,
    (Phase.OPEN, co.Spoiled): _CLOSING,
    (Phase.OPEN, co.Ticked): _CLOSING,
    (Phase.OPEN, co.StopAsked): frozenset({Phase.STOPPED}),
    (Phase.DRAINING, co.Absorbed): _DRAINED,
    (Phase.DRAINING, co.Spoiled): _DRAINED,
    (Phase.DRAINING, co.StopAsked): frozenset({Phase.STOPPED}),
    (Phase.STEPPING, co.Stepped): _NEXT,
    (Phase.STEPPING, co.StepFailed): _NEXT,
}
"""Every way from one phase to the next. A pair that is not here leaves the phase as it is; `handle` holds to that."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What must survive a restart: numbers that only grow, and how the stop conditions stand.

    `round` is the last round number given out, `version` the model's (1 is the first model), `steps` how often the
    model moved, `best` the best metric so far, `stale` rounds since then, `abandoned` rounds in a row.
    """

    round: int = 0
    version: int = 1
    steps: int = 0
    best: float | None = None
    stale: int = 0
    abandoned: int = 0


@dataclass(frozen=True, slots=True)
class Terms:
    """What every task of this federation says: fixed for its life."""

    run: bytes
    layout: bytes
    seed: bytes
    codec: str
    update_bytes: int
    training: Mapping[str, Setting]


class Coordinator:
    """The machine; see the module's text. Not thread-safe: one shell owns it."""

    def __init__(
        self,
        terms: Terms,
        policy: Policy,
        stop_when: StopWhen,
        *,
        progress: Progress | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        """Begin a federation, or go on from the `progress` and `ledger` of a checkpoint."""
        self.terms, self.policy, self.stop_when = terms, policy, stop_when
        self.progress = progress or Progress()
        self.ledger = ledger or Ledger()
        self.phase = Phase.NEW
        self.task: Task | None = None
        self.present: dict[str, int] = {}
        self._asked: set[str] = set()
        self._waiting_for: set[str] = set()
        self.opened = 0.0
        self._census = 0.0
        self._stop_reason = ""
        self._out: list[co.CoordinatorEffect] = []

    def handle(self, event: co.CoordinatorEvent, now: float) -> list[co.CoordinatorEffect]:
        """Take in one event and return the effects to carry out, in order.

        Raises MisuseError for a change of phase that the table does not know: that is a bug in here.
        """
        before = self.phase
        self._react(event, now)
        allowed = TRANSITIONS.get((before, type(event)), frozenset({before}))
        if self.phase not in allowed:
            raise MisuseError(
                f"{type(event).__name__} led from {before.value} to {self.phase.value}: not in the table"
            )
        effects, self._out = self._out, []
        return effects

    def _react(self, event: co.CoordinatorEvent, now: float) -> None:  # noqa: C901, PLR0912 - one row per event
        match event:
            case co.Started():
                self._start(event, now)
            case co.Born():
                self._born(event, now)
            case co.Died():
                self._died(event, now)
            case co.Offered():
                self._offered(event)
            case co.Garbled():
                self.ledger.tally.bytes_up += event.nbytes
                self.ledger.tally.count(Verdict.REJECTED, event.reason)
            case co.Completed():
                self._completed(event, now)
            case co.Absorbed():
                self._absorbed(event, now)
            case co.Spoiled():
                self._settle(event.device, event.round, event.update, Verdict.REJECTED, event.reason)
                self._consider(now)
            case co.Stepped():
                self._stepped(event, now)
            case co.StepFailed():
                self._check_stepping(event)
                self._abandon(f"the step failed: {event.reason}", now)
            case co.Ticked():
                self._ticked(now)
            case co.StopAsked():
                self._stop_asked(event.reason, now)
            case _:
                assert_never(event)

    # --- devices come and go ------------------------------------------------------------------------------------------

    def _born(self, event: co.Born, now: float) -> None:
        if event.layout != self.terms.layout:
            self._gone(event.device, now)  # it was rebuilt for another model: it will not answer
            return
        self.present[event.device] = event.session
        if self.phase is Phase.WAITING:
            self._open_or_wait(now)
        elif self.phase is Phase.OPEN:
            self._ask(event.device)

    def _ask(self, device: str) -> None:
        """Count on `device` in the open round, if the task invites it and it has no verdict yet."""
        task = self._current()
        if in_cohort(device, task.salt, task.fraction):
            self._asked.add(device)
            if not self.ledger.settled(device):
                self._waiting_for.add(device)

    def _died(self, event: co.Died, now: float) -> None:
        # An old will must not bury a device that has come back; one of a life that nobody saw begin does.
        if event.session >= self.present.get(event.device, math.inf):
            self._gone(event.device, now)

    def _gone(self, device: str, now: float) -> None:
        self.present.pop(device, None)
        self._waiting_for.discard(device)
        self._consider(now)

    # --- rounds open --------------------------------------------------------------------------------------------------

    def _start(self, event: co.Started, now: float) -> None:
        if self.phase is Phase.STOPPED:
            return  # the stop came before the start
        if self.phase is not Phase.NEW:
            raise MisuseError(f"the coordinator was started a second time, while {self.phase.value}")
        resumed, reason = self._still_open(event.resumed), self._reason_to_stop()
        if event.resumed is not None and (reason or resumed is None):
            self._out.append(
                co.Discard(event.resumed.round, reason or "the round was closed before the restart")
            )
        if reason:
            self._end(reason)
        elif resumed is not None:
            self._resume(resumed, now)
        else:
            self._open_or_wait(now)

    def _still_open(self, task: Task | None) -> Task | None:
        """Return the journal's round unless it was closed before the restart: its updates must not count twice."""
        if task is None or task.round < self.progress.round or self.ledger.closed(task.round):
            return None
        return task

    def _resume(self, task: Task, now: float) -> None:
        self.progress = replace(
            self.progress, round=task.round
        )  # where the checkpoint is older than the journal
        self._open(task, now, begin=False)
        self._census = now + min(CENSUS_S, self.policy.soft_deadline_s)
        self._out.append(co.WakeAt(self._census))

    def _open_or_wait(self, now: float) -> None:
        self.phase = Phase.WAITING
        if len(self.present) >= self.policy.min_devices:
            self.progress = replace(self.progress, round=self.progress.round + 1)
            self._open(self._next_task(), now, begin=True)

    def _open(self, task: Task, now: float, *, begin: bool) -> None:
        self.phase, self.task, self.opened = Phase.OPEN, task, now
        self.ledger.open()
        self._asked, self._waiting_for = set(), set()
        for device in self.present:
            self._ask(device)
        self._out += [co.Announce(task, begin), co.WakeAt(now + self.policy.soft_deadline_s)]

    def _next_task(self) -> Task:
        number = self.progress.round
        return Task(
            run=self.terms.run,
            round=number,
            oldest=number,
            kind=TaskKind.TRAIN,
            model=self.progress.version,
            layout=self.terms.layout,
            salt=self._salt(number),
            fraction=self.policy.invited,
            seconds=self.policy.hard_deadline_s,
            codec=self.terms.codec,
            update_bytes=self.terms.update_bytes,
            training=self.terms.training,
        )

    def _salt(self, number: int) -> bytes:
        """Draw until the cohort of those present is big enough for a quorum; a small fleet needs a few draws."""
        fraction = self.policy.invited
        wanted = max(self.policy.quorum, math.floor(fraction * len(self.present)))
        best, most = b"", -1
        for attempt in range(_SALT_DRAWS):
            salt = draw_salt(self.terms.seed, number, attempt)
            size = cohort_size(self.present, salt, fraction)
            if size >= wanted:
                return salt
            if size > most:
                best, most = salt, size
        return best

    # --- updates ------------------------------------------------------------------------------------------------------

    def _offered(self, event: co.Offered) -> None:
        self.ledger.tally.bytes_up += event.nbytes
        if self.phase is Phase.NEW:
            self._put_off(event)
        elif event.run != self.terms.run:
            self._turn_away(
                event,
                Verdict.REJECTED,
                "the update belongs to another run of this federation: take the new task",
            )
        elif self.phase is not Phase.OPEN or event.round != self._current().round:
            self._offered_elsewhen(event)
        else:
            self._offered_now(event)

    def _offered_elsewhen(self, event: co.Offered) -> None:
        known = self.ledger.remembered(event.round, event.device)
        if self._in_hand(event.round):
            self._offered_in_hand(event)
        elif known is not None:
            self._repeat(event, known)
        elif event.round > self.progress.round:
            self._turn_away(event, Verdict.REJECTED, f"round {event.round} has not been opened")
        else:
            self._turn_away(event, Verdict.LATE, f"round {event.round} is closed")

    def _offered_in_hand(self, event: co.Offered) -> None:
        """Note who comes while the round closes; the verdict follows when it is over for good.

        Until then a restart may open it again, and what had been called late would be counted.
        """
        entry = self.ledger.entries.get(event.device)
        if entry is not None and entry.standing is not Standing.ARRIVING:
            self._repeat(event, entry)
        elif entry is None or entry.update != event.update:
            self.ledger.entries[event.device] = Entry(event.update)

    def _in_hand(self, round_: int) -> bool:
        """Say whether `round_` is the one that is draining or stepping."""
        return (
            self.task is not None
            and self.task.round == round_
            and self.phase in (Phase.DRAINING, Phase.STEPPING)
        )

    def _offered_now(self, event: co.Offered) -> None:
        entry, task = self.ledger.entries.get(event.device), self._current()
        if entry is not None and entry.standing is not Standing.ARRIVING:
            self._repeat(event, entry)
        elif not in_cohort(event.device, task.salt, task.fraction):
            self._turn_away(event, Verdict.REJECTED, "the device is not in this round's cohort")
        else:
            self._welcome(event, entry)

    def _welcome(self, event: co.Offered, entry: Entry | None) -> None:
        # A new id while the old update is still incomplete: the device lost its outbox and trained again.
        if entry is None or entry.update != event.update:
            self.ledger.entries[event.device] = Entry(event.update)
        self._asked.add(event.device)
        self._waiting_for.add(event.device)
        self._out.append(co.Keep(event.device, event.round, event.update))

    def _repeat(self, event: co.Offered, known: Entry) -> None:
        if not event.opening:
            return
        self.ledger.tally.count(Verdict.DUPLICATE)
        if known.update != event.update:
            self._reply(
                event.device,
                event.round,
                event.update,
                Verdict.DUPLICATE,
                "another update of this device has its verdict",
            )
        elif known.standing is Standing.SETTLED:
            self._reply(event.device, event.round, event.update, known.verdict, known.reason)

    def _turn_away(self, event: co.Offered, verdict: Verdict, reason: str) -> None:
        if event.opening:
            self.ledger.tally.count(verdict, reason)
            # In the words of the update's own run: a device takes no other receipt for it.
            self._out.append(
                co.Reply(event.device, Receipt(event.run, event.round, event.update, verdict, reason))
            )

    def _put_off(self, event: co.Offered) -> None:
        if event.opening:
            reason = "the aggregator is starting"
            receipt = Receipt(event.run, event.round, event.update, Verdict.RETRY, reason, START_PAUSE_S)
            self._out.append(co.Reply(event.device, receipt))

    def _completed(self, event: co.Completed, now: float) -> None:
        entry = self.ledger.entries.get(event.device)
        if self.phase is not Phase.OPEN or event.round != self._current().round:
            return  # the round closed meanwhile, and with that gives its verdict, or has given it
        if entry is None or entry.update != event.update or entry.standing is not Standing.ARRIVING:
            return
        if reason := self._mismatch(event):
            self._settle(event.device, event.round, event.update, Verdict.REJECTED, reason)
            self._consider(now)
        else:
            self.ledger.absorbing_begins(event.device)
            self._out.append(co.Absorb(event.device, event.round, event.update))

    def _mismatch(self, event: co.Completed) -> str:
        task = self._current()
        if event.layout != task.layout:
            return "the update is for another model layout: was the device built for another model?"
        if event.model != task.model:
            return f"the update starts from model {event.model}, the round from {task.model}"
        return ""

    def _absorbed(self, event: co.Absorbed, now: float) -> None:
        if self._settle(event.device, event.round, event.update, Verdict.ACCEPTED):
            self.ledger.tally.add(event.facts)
        self._consider(now)

    def _settle(self, device: str, round_: int, update: bytes, verdict: Verdict, reason: str = "") -> bool:
        entry = self.ledger.entries.get(device)
        if self.task is None or self.task.round != round_ or entry is None or entry.update != update:
            return False  # the round was given up while the rule was at work
        if entry.standing is Standing.SETTLED:
            return False
        self.ledger.settle(device, verdict, reason)
        self._waiting_for.discard(device)
        self._reply(device, round_, update, verdict, reason)
        return True

    def _reply(self, device: str, round_: int, update: bytes, verdict: Verdict, reason: str) -> None:
        self._out.append(co.Reply(device, Receipt(self.terms.run, round_, update, verdict, reason)))

    # --- rounds close -------------------------------------------------------------------------------------------------

    def _ticked(self, now: float) -> None:
        self._consider(now)
        if self.phase is Phase.OPEN:
            self._out.append(
                co.WakeAt(next(t for t in (self._census, self._soft(), self._hard()) if now < t))
            )

    def _consider(self, now: float) -> None:
        if self.phase is Phase.OPEN:
            self.phase = Phase.DRAINING if self._should_close(now) else Phase.OPEN
        if self.phase is Phase.DRAINING and not self.ledger.absorbing:
            self._drained(now)

    def _soft(self) -> float:
        return self.opened + self.policy.soft_deadline_s

    def _hard(self) -> float:
        return self.opened + self.policy.hard_deadline_s

    def _should_close(self, now: float) -> bool:
        if now >= self._hard():
            return True
        if self.ledger.accepted < self.policy.quorum or now < self._census:
            return False
        return now >= self._soft() or not self._waiting_for or self._have_enough()

    def _have_enough(self) -> bool:
        if self.policy.over_selection == 1:
            return False
        wanted = math.ceil(len(self._asked) / self.policy.over_selection)
        return self.ledger.accepted >= max(wanted, self.policy.quorum)

    def _drained(self, now: float) -> None:
        if self.ledger.accepted >= self.policy.quorum:
            self.phase = Phase.STEPPING
            self._out.append(co.Finish(self._current().round, self.progress.version + 1))
        else:
            reason = f"{self.ledger.accepted} accepted at the deadline, the quorum is {self.policy.quorum}"
            self._abandon(reason, now)

    def _check_stepping(self, event: co.Stepped | co.StepFailed) -> None:
        if self.phase is not Phase.STEPPING or event.round != self._current().round:
            raise MisuseError(f"{type(event).__name__} of round {event.round} came while {self.phase.value}")

    def _stepped(self, event: co.Stepped, now: float) -> None:
        self._check_stepping(event)
        self.progress = replace(
            self.progress, version=event.version, steps=self.progress.steps + 1, abandoned=0
        )
        reported = self._close_round("stepped", now, event)
        self._judge({**reported.metrics, **event.evaluation})
        self._go_on(now)

    def _abandon(self, reason: str, now: float) -> None:
        self._out.append(co.Discard(self._current().round, reason))
        self.progress = replace(self.progress, abandoned=self.progress.abandoned + 1)
        self._close_round(f"abandoned: {reason}", now)
        self._go_on(now)

    def _close_round(self, outcome: str, now: float, stepped: co.Stepped | None = None) -> Report:
        task = self._current()
        self._settle_the_rest(task.round, answer=stepped is not None)
        tally = self.ledger.report()
        self.ledger.close(task.round)
        report = Report(
            run=self.terms.run,
            round=task.round,
            version=self.progress.version,
            outcome=outcome,
            seconds=now - self.opened,
            expected=len(self._asked),
            received=tally.received,
            accepted=tally.accepted,
            duplicate=tally.duplicate,
            late=tally.late,
            rejected=tally.rejected,
            examples=tally.examples,
            bytes_up=tally.bytes_up,
            bytes_down=stepped.bytes_down if stepped else 0,
            metrics=tally.metrics,
            evaluation=dict(stepped.evaluation) if stepped else {},
            reasons=tally.reasons,
        )
        self._out.append(co.Tell(report))
        return report

    def _settle_the_rest(self, round_: int, *, answer: bool) -> None:
        """Give LATE to what came too late: only now, for until a round is closed a restart may still count them.

        Where the round was abandoned its journal may outlive this moment, so no word is given: the device asks again,
        or is told by the next task that the round is over.
        """
        reason = f"round {round_} closed before the update was in"
        for device, update in self.ledger.unsettled():
            self.ledger.settle(device, Verdict.LATE, reason)
            if answer:
                self._reply(device, round_, update, Verdict.LATE, reason)

    # --- the end ------------------------------------------------------------------------------------------------------

    def _judge(self, metrics: Mapping[str, float]) -> None:
        """Note whether the metric got better; without that metric, patience does not run."""
        value = metrics.get(self.stop_when.metric)
        if value is None:
            return
        if self.stop_when.better(value, self.progress.best):
            self.progress = replace(self.progress, best=value, stale=0)
        else:
            self.progress = replace(self.progress, stale=self.progress.stale + 1)

    def _go_on(self, now: float) -> None:
        reason = self._stop_reason or self._reason_to_stop()
        if reason:
            self._end(reason)
        else:
            self._open_or_wait(now)

    def _reason_to_stop(self) -> str:
        stop, at = self.stop_when, self.progress
        if stop.rounds and at.steps >= stop.rounds:
            return f"{at.steps} rounds are done"
        if at.best is not None and stop.reached(at.best):
            return f"{stop.metric} reached {at.best:.4g}, the target was {stop.target:.4g}"
        if stop.patience and at.stale >= stop.patience:
            return f"{stop.metric} has not got better for {at.stale} rounds"
        if stop.abandoned and at.abandoned >= stop.abandoned:
            return f"{at.abandoned} rounds in a row were abandoned"
        return ""

    def _stop_asked(self, reason: str, now: float) -> None:
        self._stop_reason = reason
        if self.phase in (Phase.OPEN, Phase.DRAINING):
            self._abandon(reason, now)
        elif self.phase in (Phase.NEW, Phase.WAITING):
            self._end(reason)

    def _end(self, reason: str) -> None:
        self.phase = Phase.STOPPED
        self.progress = replace(self.progress, round=self.progress.round + 1)
        task = replace(self._next_task(), kind=TaskKind.STOP)
        self._out.append(co.End(reason, task))

    def _current(self) -> Task:
        if self.task is None:
            raise MisuseError("no round has been opened yet")
        return self.task
