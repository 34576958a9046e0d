"""Which devices are there: the coordinator's half that knows whom a round may count on.

A device announces itself with a birth, and its will says when it is gone. Births stand at the broker; but where the
broker's queue for the aggregator holds fewer messages than there are devices, those that do not fit are dropped without
a word. So an update that is accepted says too that its device is there; and while a round waits for devices, so does
any that is offered, and a question about one.

A link may break in the middle of an update, and be back within seconds. So a device that dies when something of its
update has come in, or a question about it, has a **grace**: the open round counts on it for `Policy.grace_s` more, or
until the update has its verdict. Once it is heard again it is counted on as before. A good-bye looks like a last will,
and is taken for one: who says it with an update in its outbox will send the rest when it is started again.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import TYPE_CHECKING, Final

from fedmq.protocol.admission import Admission
from fedmq.protocol.cohort import members
from fedmq.protocol.messages import Verdict
from fedmq.protocol.progress import Phase

if TYPE_CHECKING:
    from fedmq.protocol import coordination as co
    from fedmq.protocol.ledger import Entry, Ledger
    from fedmq.protocol.messages import Task
    from fedmq.protocol.policy import Policy
    from fedmq.protocol.progress import Progress, Terms

UNBORN: Final = 0
"""The life of a device whose birth nobody heard: word of the end of any life means it."""


class Attendance(Admission):
    """Who is there, and who of them has an answer to give; `Coordinator` adds the rounds."""

    def __init__(self, terms: Terms, policy: Policy, progress: Progress, ledger: Ledger) -> None:
        """Begin with nobody."""
        super().__init__(terms, policy, progress, ledger)
        self.present: dict[str, int] = {}
        self._strangers: set[str] = set()
        self._dead: set[str] = set()
        self._questioners: set[str] = set()
        self._graces: dict[str, float] = {}

    @abstractmethod
    def _open_or_wait(self, now: float) -> None:
        """Open a round if enough devices are there."""

    @abstractmethod
    def _ticked(self, now: float) -> None:
        """Look at the clock: do what is due, and be woken when something will be next."""

    @property
    def fleet(self) -> int:
        """About how many devices there are, also while they are still coming in: as many as a round needs, at least."""
        return max(len(self.present), self.progress.fleet, self.policy.min_devices)

    def _born(self, event: co.Born, now: float) -> None:
        if event.layout != self.terms.layout:
            self._gone(event.device, now)  # it was rebuilt for another model: it will not answer
            self._strangers.add(event.device)
            return
        self._strangers.discard(event.device)
        self._came(event.device, event.session, now)

    def _heard(self, event: co.Offered, now: float) -> None:
        """Take an update, or a question about one, for its device's birth: if we have asked for it, before a round.

        In a round whoever may publish could else hold it up: it would wait for the answer of a device that is none.
        At any time it means that a device which died is back.
        """
        if event.run != self.terms.run or event.round > self.progress.round:
            return
        self._dead.discard(event.device)
        if self.phase in (Phase.NEW, Phase.WAITING) and self._is_news(event.device):
            self._came(event.device, UNBORN, now)

    def _settle(self, device: str, round_: int, update: bytes, verdict: Verdict, reason: str = "") -> bool:
        """Take an update that is accepted for the birth of its device, unless that died after it had sent it."""
        settled = super()._settle(device, round_, update, verdict, reason)
        if settled and verdict is Verdict.ACCEPTED and self._is_news(device) and device not in self._dead:
            self._count(device, UNBORN)
        return settled

    def _welcome(self, event: co.Offered, entry: Entry | None) -> None:
        """Take what comes after a death for a sign that the device is back: its birth may have been lost."""
        self._graces.pop(event.device, None)
        if event.question is not None:
            self._questioners.add(event.device)
        super()._welcome(event, entry)

    def _is_news(self, device: str) -> bool:
        return device not in self.present and device not in self._strangers

    def _count(self, device: str, session: int) -> None:
        self.present[device] = session
        self.progress = self.progress.counted(len(self.present))

    def _came(self, device: str, session: int, now: float) -> None:
        self._dead.discard(device)
        self._graces.pop(device, None)
        self._count(device, session)
        if self.phase is Phase.WAITING:
            self._open_or_wait(now)
        elif self.phase is Phase.OPEN:
            self._ask(device)

    def _ask_all(self, task: Task) -> None:
        """Count on those alone who are there and whom the task invites."""
        self._asked, self._waiting_for = set(), set()
        self._dead, self._questioners, self._graces = set(), set(), {}
        for device in members(self.present, task.salt, task.fraction):
            self._ask_invited(device, task.round)

    def _ask(self, device: str) -> None:
        """Count on `device` in the open round, if the task invites it and it has no verdict yet."""
        number = self._current().round
        if self._invited(device, number):
            self._ask_invited(device, number)

    def _ask_invited(self, device: str, number: int) -> None:
        self._asked.add(device)
        if not self.ledger.settled(device, number):
            self._waiting_for.add((device, number))

    def _died(self, event: co.Died, now: float) -> None:
        # An old will must not bury a device that has come back; one of a life that nobody saw begin does.
        if event.session >= self._life(event.device):
            if self._has_begun(event.device):
                self._dead.add(event.device)
            if self._may_return(event.device):
                self._give_grace(event.device, now)
            else:
                self._gone(event.device, now)
        self._strangers.discard(event.device)

    def _life(self, device: str) -> float:
        """Return the first of the device's lives whose end would be news: any, of one that sends and was not born."""
        return self.present.get(device, UNBORN if self._has_begun(device) else math.inf)

    def _gone(self, device: str, now: float) -> None:
        self.present.pop(device, None)
        self._count_out(device)
        self._consider(now)

    def _count_out(self, device: str) -> None:
        self._graces.pop(device, None)
        for opened in self.progress.recent:
            self._waiting_for.discard((device, opened.round))

    # --- grace --------------------------------------------------------------------------------------------------------

    def _has_begun(self, device: str) -> bool:
        """Say whether something of the device's update for this round has come in, or a question about it."""
        return (device, self.progress.round) in self.ledger.entries or device in self._questioners

    def _may_return(self, device: str) -> bool:
        """Say whether the open round has a grace for the device, for the sake of an update that has begun."""
        waited_for = self.phase is Phase.OPEN and (device, self.progress.round) in self._waiting_for
        return self.policy.gracious and waited_for and self._has_begun(device)

    def _give_grace(self, device: str, now: float) -> None:
        """Go on counting on a device that died; to hear of one death twice makes the grace no longer."""
        self.present.pop(device, None)
        self._graces.setdefault(device, now + self.policy.grace_s)
        self._ticked(now)

    def _end_graces(self, now: float) -> None:
        """Count no longer on those whose grace is over; all are equally long, so the first given ends first."""
        while self._graces and self._first_end() <= now:
            self._count_out(next(iter(self._graces)))

    def _first_end(self) -> float:
        return next(iter(self._graces.values()), math.inf)

    def _doubt_the_unborn(self) -> None:
        """Count no longer on devices whose birth nobody heard, and whose answer did not come.

        What was heard of them may have been on its way for long, and word of their end have come before it.
        """
        for device, _ in self._waiting_for:
            if self.present.get(device) == UNBORN:
                del self.present[device]
