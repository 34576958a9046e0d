"""An update's way through the open round, from the door to its receipt: the coordinator's half that sees every update.

`Offered` → `Keep` (journal it) → `Completed` → `Absorb` → `Absorbed` or `Spoiled` → `Reply`. What does not belong is
answered at the door, and never journaled. A question about an update goes the same way up to the door; what could come
in there is searched for instead: `Offered` → `Search` → `Searched` → `Reply`.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Final

from fedmq.errors import MisuseError
from fedmq.protocol import coordination as co
from fedmq.protocol.cohort import in_cohort
from fedmq.protocol.ledger import Entry, Ledger, Standing
from fedmq.protocol.machine import Machine
from fedmq.protocol.messages import Receipt, Verdict
from fedmq.protocol.pacing import A_SECOND, LONGEST_S
from fedmq.protocol.progress import Phase, Progress

if TYPE_CHECKING:
    from fedmq.protocol.ledger import Key
    from fedmq.protocol.messages import Task
    from fedmq.protocol.policy import Policy
    from fedmq.protocol.progress import Terms

START_PAUSE_S: Final = 5.0
"""What a device is told to wait, at least, whose update arrives before the aggregator knows its own round, or while
none is open. The more are put off, the later each of them is to be back: one after the other, `A_SECOND` of them in a
second, and none later than `LONGEST_S` from now.
"""


class Admission(Machine[Phase, co.CoordinatorEvent, co.CoordinatorEffect]):
    """What becomes of each update; `Coordinator` adds the rounds."""

    def __init__(self, terms: Terms, policy: Policy, progress: Progress, ledger: Ledger) -> None:
        """Begin with what a checkpoint remembers."""
        super().__init__(Phase.NEW)
        self.terms, self.policy = terms, policy
        self.progress, self.ledger = progress, ledger
        self.task: Task | None = None
        self._asked: set[str] = set()
        self._waiting_for: set[Key] = set()
        self._last_turn = 0.0

    @abstractmethod
    def _consider(self, now: float) -> None:
        """Close the round if it is time."""

    @property
    @abstractmethod
    def fleet(self) -> int:
        """About how many devices there are."""

    def _current(self) -> Task:
        if self.task is None:
            raise MisuseError("no round has been opened yet")
        return self.task

    # --- at the door --------------------------------------------------------------------------------------------------

    def _offered(self, event: co.Offered, now: float) -> None:
        self.ledger.tally.bytes_up += event.nbytes
        if self.phase is Phase.NEW:
            self._put_off(event, now, "the aggregator is starting")
        elif event.run != self.terms.run:
            self._turn_away(
                event,
                Verdict.REJECTED,
                "the update belongs to another run of this federation: take the new task",
            )
        elif self.phase is Phase.OPEN and self._takes(event.round):
            self._offered_now(event)
        else:
            self._offered_elsewhen(event, now)

    def _takes(self, round_: int) -> bool:
        """Say whether the open round takes updates that answer this one."""
        return self.progress.find(round_) is not None

    def _offered_elsewhen(self, event: co.Offered, now: float) -> None:
        known = self.ledger.remembered(event.round, event.device)
        if known is not None:
            self._repeat(event, known)
        elif self._in_hand(event.round):
            self._offered_in_hand(event)
        elif event.round > self.progress.round:
            self._turn_away(event, Verdict.REJECTED, f"round {event.round} has not been opened")
        elif self.phase is Phase.WAITING and self._will_take(event.round):
            self._put_off(event, now, "too few devices are there for a round")
        else:
            self._turn_away(event, Verdict.LATE, f"round {event.round} is closed")

    def _will_take(self, round_: int) -> bool:
        """Say whether the next round will take updates that answer this one."""
        return round_ > self.progress.round - self.policy.window and self._takes(round_)

    def _offered_in_hand(self, event: co.Offered) -> None:
        """Note who comes while the round closes; the answer follows when it is over for good.

        Until then a restart may open it again, and what had been called late would be counted.
        """
        key = event.device, event.round
        entry = self.ledger.entries.get(key)
        if entry is not None and entry.standing is not Standing.ARRIVING:
            self._repeat(event, entry)
        elif entry is None or entry.update != event.update:
            self.ledger.entries[key] = Entry(event.update)

    def _in_hand(self, round_: int) -> bool:
        """Say whether `round_` is one whose updates the round took that is draining or stepping."""
        return self.phase in (Phase.DRAINING, Phase.STEPPING) and self._takes(round_)

    def _offered_now(self, event: co.Offered) -> None:
        entry = self.ledger.find(event.device, event.round)
        if entry is not None and entry.standing is not Standing.ARRIVING:
            self._repeat(event, entry)
        elif not self._invited(event.device, event.round):
            self._turn_away(event, Verdict.REJECTED, "the device is not in this round's cohort")
        else:
            self._welcome(event, entry)

    def _invited(self, device: str, round_: int) -> bool:
        opened = self.progress.find(round_)
        return opened is not None and in_cohort(device, opened.salt, opened.fraction)

    def _welcome(self, event: co.Offered, entry: Entry | None) -> None:
        if event.question is not None:
            self._out.append(co.Search(event.device, event.round, event.update, event.question))
            return
        key = event.device, event.round
        # A new id while the old update is still incomplete: the device lost its outbox and trained again.
        if entry is None or entry.update != event.update:
            self.ledger.entries[key] = Entry(event.update)
        self._asked.add(event.device)
        self._waiting_for.add(key)
        self._out.append(co.Keep(event.device, event.round, event.update))

    # --- answers ------------------------------------------------------------------------------------------------------

    def _repeat(self, event: co.Offered, known: Entry) -> None:
        if not event.opening:
            return
        if event.question is None:
            self.ledger.tally.count(Verdict.DUPLICATE)
        if known.update != event.update:
            reason = "another update of this device has its verdict"
            self._reply(event.device, event.round, event.update, Verdict.DUPLICATE, reason)
        elif known.standing is Standing.SETTLED:
            self._reply(event.device, event.round, event.update, known.verdict, known.reason)

    def _turn_away(self, event: co.Offered, verdict: Verdict, reason: str) -> None:
        if event.opening:
            if event.question is None:
                self.ledger.tally.count(verdict, reason)
            # In the words of the update's own run: a device takes no other receipt for it.
            self._out.append(
                co.Reply(event.device, Receipt(event.run, event.round, event.update, verdict, reason))
            )

    def _put_off(self, event: co.Offered, now: float, reason: str) -> None:
        if event.opening:
            receipt = Receipt(
                event.run,
                event.round,
                event.update,
                Verdict.RETRY,
                reason,
                self._next_turn(now),
                question=event.question or 0,
            )
            self._out.append(co.Reply(event.device, receipt))

    def _next_turn(self, now: float) -> float:
        """Return the seconds until the next one that is put off is to be back, after all those that were before it."""
        turn = max(self._last_turn + 1.0 / A_SECOND, now + START_PAUSE_S)
        self._last_turn = min(turn, now + LONGEST_S)
        return self._last_turn - now

    def _reply(self, device: str, round_: int, update: bytes, verdict: Verdict, reason: str) -> None:
        self._out.append(co.Reply(device, Receipt(self.terms.run, round_, update, verdict, reason)))

    def _searched(self, event: co.Searched) -> None:
        """Ask for what is missing; nothing needs to be said of an update that is on its way to its verdict."""
        entry = self.ledger.find(event.device, event.round)
        arriving = entry is None or entry.standing is Standing.ARRIVING
        if self.phase is Phase.OPEN and self._takes(event.round) and arriving and event.missing:
            receipt = Receipt(
                self.terms.run,
                event.round,
                event.update,
                Verdict.RETRY,
                missing=event.missing,
                question=event.question,
            )
            self._out.append(co.Reply(event.device, receipt))

    # --- into the fold ------------------------------------------------------------------------------------------------

    def _completed(self, event: co.Completed, now: float) -> None:
        entry = self.ledger.entries.get((event.device, event.round))
        if self.phase is not Phase.OPEN:
            return  # the round closed meanwhile, and with that gives its answer, or has given it
        if entry is None or entry.update != event.update or entry.standing is not Standing.ARRIVING:
            return
        if reason := self._mismatch(event):
            self._settle(event.device, event.round, event.update, Verdict.REJECTED, reason)
            self._consider(now)
        else:
            self.ledger.ready(event.device, event.round, now)
            self._absorb_next()

    def _mismatch(self, event: co.Completed) -> str:
        if event.layout != self._current().layout:
            return "the update is for another model layout: was the device built for another model?"
        if event.model != (wanted := self._base(event.round)):
            return f"the update starts from model {event.model}, the round from {wanted}"
        return ""

    def _base(self, round_: int) -> int:
        """Return the model from which updates start that answer this round; 0 where its updates are not taken."""
        opened = self.progress.find(round_)
        return opened.model if opened else 0

    def _absorb_next(self) -> None:
        """Give the rule what is whole, in that order, but no more than the buffer holds.

        Which updates a full buffer holds is then settled by their order in the journal alone: a restart fills it with
        the same.
        """
        while self._has_room() and (key := self.ledger.next_ready()) is not None:
            self.ledger.absorbing_begins(*key)
            self._out.append(co.Absorb(*key, self.ledger.entries[key].update))

    def _has_room(self) -> bool:
        taken = self.ledger.accepted + self.ledger.absorbing
        return not self.policy.asynchronous or taken < self.policy.buffer

    def _absorbed(self, event: co.Absorbed, now: float) -> None:
        if self._settle(event.device, event.round, event.update, Verdict.ACCEPTED):
            staleness = self._current().model - self._base(event.round)
            self.ledger.tally.add(event.facts, staleness)
        self._consider(now)

    def _spoiled(self, event: co.Spoiled, now: float) -> None:
        self._settle(event.device, event.round, event.update, Verdict.REJECTED, event.reason)
        if self.phase is Phase.OPEN:
            self._absorb_next()
        self._consider(now)

    def _settle(self, device: str, round_: int, update: bytes, verdict: Verdict, reason: str = "") -> bool:
        entry = self.ledger.entries.get((device, round_))
        if entry is None or entry.update != update or entry.standing is Standing.SETTLED:
            return False  # the round was given up while the rule was at work
        self.ledger.settle(device, round_, verdict, reason)
        self._waiting_for.discard((device, round_))
        self._reply(device, round_, update, verdict, reason)
        return True
