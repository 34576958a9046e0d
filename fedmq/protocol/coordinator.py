"""The aggregator's side of the protocol, as a machine without input or output.

The shell gives it what happened (`handle(event, now)`) and carries out what comes back. There is no socket, clock,
thread, array or random source in here; `now` is any monotonic clock in seconds.

The life of a federation, phase by phase:

- **new**: nothing has started. Who comes is noted; updates are put off.
- **waiting**: fewer devices are there than the policy wants. A birth may open a round, and so may an update of a
  device whose birth got lost.
- **open**: a task is out. Updates are admitted, journaled, absorbed, receipted. The round closes with a quorum as soon
  as every device that was asked, and is there, has its verdict; with over-selection, as soon as enough are in; at the
  soft deadline with a quorum; at the hard deadline in any case. A device that dies in the middle of its update has
  `Policy.grace_s` to come back, and is counted on until then.
- **draining**: closed to new updates; those that are with the rule still come back. Then there is a quorum, or not.
- **stepping**: the shell moves the model and publishes it; the next round follows.
- **stopped**: a stop condition held. Updates still get their receipts.

An update's way through an open round: `Offered` → `Keep` (journal it) → `Completed` → `Absorb` → `Absorbed` or
`Spoiled` → `Reply`. What does not belong is answered at the door, and never journaled. A repeat of a settled update
gets the verdict it had, for its first receipt may have been lost. What comes while the round closes is late, but is
told so only when the round is over for good: after a restart in between it may be counted yet.

An **asynchronous** federation (`Policy.buffer` above 0) runs the same rounds, with three differences. A round is a
buffer: it closes as soon as that many updates are in, and takes no more than that. It takes updates of the rounds
before it, too, back to the task's `oldest`, each with the staleness that follows from the model it started from; so
nobody is waited for, and nobody trains in vain. And what comes too late for one buffer is not late: it is asked for
again, for the next.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Final, assert_never

from fedmq.errors import MisuseError
from fedmq.protocol import coordination as co
from fedmq.protocol.admission import START_PAUSE_S
from fedmq.protocol.attendance import Attendance
from fedmq.protocol.calls import next_task
from fedmq.protocol.deadlines import forget, learn, soft_deadline_s
from fedmq.protocol.ledger import MOST_NAMES, REMEMBERED_ROUNDS, Ledger
from fedmq.protocol.messages import Receipt, Report, TaskKind, Verdict
from fedmq.protocol.pacing import LONGEST_S
from fedmq.protocol.progress import Phase, Progress, Terms
from fedmq.protocol.spans import EVERYTHING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fedmq.protocol.ledger import Tally
    from fedmq.protocol.messages import Task
    from fedmq.protocol.policy import Policy, StopWhen

__all__ = ["CENSUS_S", "START_PAUSE_S", "TRANSITIONS", "Coordinator", "Phase", "Progress", "Terms"]

CENSUS_S: Final = 5.0
"""After a restart in mid-round, time for the retained births to come in: until then, that nobody is left to wait for
means nothing, and the round would close on the few updates that its journal holds."""

_CLOSING = frozenset({Phase.OPEN, Phase.DRAINING, Phase.STEPPING, Phase.WAITING, Phase.STOPPED})
_DRAINED = frozenset({Phase.DRAINING, Phase.STEPPING, Phase.OPEN, Phase.WAITING, Phase.STOPPED})
_NEXT = frozenset({Phase.OPEN, Phase.WAITING, Phase.STOPPED})

TRANSITIONS: Mapping[tuple[Phase, type], frozenset[Phase]] = {
    (Phase.NEW, co.Started): _NEXT,
    (Phase.NEW, co.StopAsked): frozenset({Phase.STOPPED}),
    (Phase.WAITING, co.Born): frozenset({Phase.WAITING, Phase.OPEN}),
    (Phase.WAITING, co.Offered): frozenset({Phase.WAITING, Phase.OPEN}),
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


class Coordinator(Attendance):
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
        super().__init__(terms, policy, progress or Progress(), ledger or Ledger())
        self.stop_when = stop_when
        self.opened = 0.0
        self._closing = 0.0
        self._census = 0.0
        self._stop_reason = ""

    def turn(self, codec: str) -> None:
        """Have the tasks of later rounds name this codec. What it makes must keep to the terms' `update_bytes`."""
        self.terms = replace(self.terms, codec=codec)

    def _transitions(self) -> Mapping[tuple[Phase, type], frozenset[Phase]]:
        return TRANSITIONS

    def _react(self, event: co.CoordinatorEvent, now: float) -> None:  # noqa: C901, PLR0912 - one row per event
        match event:
            case co.Started():
                self._start(event, now)
            case co.Born():
                self._born(event, now)
            case co.Died():
                self._died(event, now)
            case co.Offered():
                self._heard(event, now)
                self._offered(event, now)
            case co.Searched():
                self._searched(event)
            case co.Garbled():
                self.ledger.tally.bytes_up += event.nbytes
                self.ledger.tally.count(Verdict.REJECTED, event.reason)
            case co.Completed():
                self._completed(event, now)
            case co.Absorbed():
                self._absorbed(event, now)
            case co.Spoiled():
                self._spoiled(event, now)
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

    # --- rounds open --------------------------------------------------------------------------------------------------

    def _start(self, event: co.Started, now: float) -> None:
        if self.phase is Phase.STOPPED:
            return  # the stop came before the start
        if self.phase is not Phase.NEW:
            raise MisuseError(f"the coordinator was started a second time, while {self.phase.value}")
        resumed, reason = self._still_open(event.resumed), self.progress.reason_to_stop(self.stop_when)
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
        self._census = now + min(CENSUS_S, self.policy.soft_deadline_s)
        self._open(task, now, begin=False)

    def _open_or_wait(self, now: float) -> None:
        self.phase = Phase.WAITING
        if len(self.present) >= self.policy.min_devices:
            self.progress = self.progress.seen(len(self.present))
            self._open(next_task(self.terms, self.policy, self.progress, self.present), now, begin=True)

    def _open(self, task: Task, now: float, *, begin: bool) -> None:
        self.phase, self.task = Phase.OPEN, task
        self._census = 0.0 if begin else self._census
        self.opened = self._closing = now
        # After a restart the journal's task may be newer than the checkpoint.
        self.progress = self.progress.opened(task)
        self.ledger.open()
        self._ask_all(task)
        self._out.append(co.Announce(task, begin))
        self._sleep(now)

    def _sleep(self, now: float) -> None:
        """Be woken when what is waited for changes next; a quick buffer may close before the census ends."""
        deadline = next(t for t in (self._census, self._soft(), self._hard()) if now < t)
        self._out.append(co.WakeAt(min(deadline, self._first_end())))

    # --- rounds close -------------------------------------------------------------------------------------------------

    def _ticked(self, now: float) -> None:
        self._consider(now)
        if self.phase is Phase.OPEN:
            self._sleep(now)

    def _consider(self, now: float) -> None:
        self._end_graces(now)
        if self.phase is Phase.OPEN and self._should_close(now):
            self.phase, self._closing = Phase.DRAINING, now
        if self.phase is Phase.DRAINING and not self.ledger.absorbing:
            self._drained(now)

    def _soft(self) -> float:
        return self.opened + soft_deadline_s(self.policy, self.progress)

    def _hard(self) -> float:
        return self.opened + self.policy.hard_deadline_s

    def _should_close(self, now: float) -> bool:
        if now >= self._hard() or self._is_full():
            return True
        if self.ledger.accepted < self.policy.quorum or now < self._census:
            return False
        return now >= self._soft() or not self._waiting_for or self._have_enough()

    def _is_full(self) -> bool:
        return self.policy.asynchronous and self.ledger.accepted >= self.policy.buffer

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
        if not self._census:  # else the round began before a restart, nobody knows when
            arrivals = [time - self.opened for time in self.ledger.arrivals()]
            self.progress = learn(self.progress, arrivals)
        self.progress = self.progress.stepped(event.version)
        reported = self._close_round("stepped", now, event)
        self.progress = self.progress.judged({**reported.metrics, **event.evaluation}, self.stop_when)
        self._go_on(now)

    def _abandon(self, reason: str, now: float) -> None:
        self._out.append(co.Discard(self._current().round, reason))
        self.progress = replace(forget(self.progress), abandoned=self.progress.abandoned + 1)
        self._close_round(f"abandoned: {reason}", now)
        self._go_on(now)

    def _close_round(self, outcome: str, now: float, stepped: co.Stepped | None = None) -> Report:
        task = self._current()
        self._settle_the_rest(task.round, now, answer=stepped is not None)
        self._doubt_the_unborn()
        tally = self.ledger.report()
        self.ledger.close(task.round, self.policy.window + REMEMBERED_ROUNDS)
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
            metrics=self._metrics(tally),
            evaluation=dict(stepped.evaluation) if stepped else {},
            reasons=tally.reasons,
        )
        self._out.append(co.Tell(report))
        return report

    def _metrics(self, tally: Tally) -> dict[str, float]:
        """Return what the devices reported; in an asynchronous federation, the staleness of what was accepted too."""
        metrics = tally.metrics
        if not self.policy.asynchronous or not tally.accepted:
            return metrics
        ours = {"staleness": tally.staleness / tally.accepted, "staleness_max": float(tally.stalest)}
        theirs = [item for item in metrics.items() if item[0] not in ours]
        return {**dict(theirs[: MOST_NAMES - len(ours)]), **ours}

    def _settle_the_rest(self, round_: int, now: float, *, answer: bool) -> None:
        """Answer what came too late: only now, for until a round is closed a restart may still count it.

        Where the round was abandoned its journal may outlive this moment, so no word is given: the device asks again,
        or is told by the next task that the round is over.
        """
        reason = f"round {round_} closed before the update was in"
        for place, (key, update) in enumerate(self.ledger.unsettled()):
            if self.policy.asynchronous:
                self._ask_again(*key, update, (place // self.policy.buffer) * (now - self._closing), reason)
                continue
            self.ledger.settle(*key, Verdict.LATE, reason)
            if answer:
                self._reply(*key, update, Verdict.LATE, reason)

    def _ask_again(self, device: str, round_: int, update: bytes, pause: float, reason: str) -> None:
        """Have an update sent again for a later buffer: those that fit into the next one at once, others in turn."""
        pause = min(pause, LONGEST_S)
        receipt = Receipt(self.terms.run, round_, update, Verdict.RETRY, reason, pause, EVERYTHING)
        self._out.append(co.Reply(device, receipt))

    # --- the end ------------------------------------------------------------------------------------------------------

    def _go_on(self, now: float) -> None:
        reason = self._stop_reason or self.progress.reason_to_stop(self.stop_when)
        if reason:
            self._end(reason)
        else:
            self._open_or_wait(now)

    def _stop_asked(self, reason: str, now: float) -> None:
        self._stop_reason = reason
        if self.phase in (Phase.OPEN, Phase.DRAINING):
            self._abandon(reason, now)
        elif self.phase in (Phase.NEW, Phase.WAITING):
            self._end(reason)

    def _end(self, reason: str) -> None:
        self.phase = Phase.STOPPED
        task = next_task(self.terms, self.policy, self.progress, self.present)
        self.progress = replace(self.progress, round=task.round, recent=())
        self._out.append(co.End(reason, replace(task, kind=TaskKind.STOP, oldest=task.round)))
