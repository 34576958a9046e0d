"""Which devices are there: the coordinator's half that knows whom a round may count on.

A device announces itself with a birth, and its will says when it is gone. Births stand at the broker; but where the
broker's queue for the aggregator holds fewer messages than there are devices, those that do not fit are dropped without
a word. So an update that is accepted says too that its device is there; and while a round waits for devices, so does
any that is offered, and a question about one.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import TYPE_CHECKING, Final

from fedmq.protocol.admission import Admission
from fedmq.protocol.messages import Verdict
from fedmq.protocol.progress import Phase

if TYPE_CHECKING:
    from fedmq.protocol import coordination as co
    from fedmq.protocol.ledger import Ledger
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

    @abstractmethod
    def _open_or_wait(self, now: float) -> None:
        """Open a round if enough devices are there."""

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
        """
        ours = event.run == self.terms.run and event.round <= self.progress.round
        if ours and self.phase in (Phase.NEW, Phase.WAITING) and self._is_news(event.device):
            self._came(event.device, UNBORN, now)

    def _settle(self, device: str, round_: int, update: bytes, verdict: Verdict, reason: str = "") -> bool:
        """Take an update that is accepted for the birth of its device."""
        settled = super()._settle(device, round_, update, verdict, reason)
        if settled and verdict is Verdict.ACCEPTED and self._is_news(device):
            self._count(device, UNBORN)
        return settled

    def _is_news(self, device: str) -> bool:
        return device not in self.present and device not in self._strangers

    def _count(self, device: str, session: int) -> None:
        self.present[device] = session
        self.progress = self.progress.counted(len(self.present))

    def _came(self, device: str, session: int, now: float) -> None:
        self._count(device, session)
        if self.phase is Phase.WAITING:
            self._open_or_wait(now)
        elif self.phase is Phase.OPEN:
            self._ask(device)

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
        if event.session >= self.present.get(event.device, math.inf):
            self._gone(event.device, now)
        self._strangers.discard(event.device)

    def _gone(self, device: str, now: float) -> None:
        self.present.pop(device, None)
        for opened in self.progress.recent:
            self._waiting_for.discard((device, opened.round))
        self._consider(now)

    def _doubt_the_unborn(self) -> None:
        """Count no longer on devices whose birth nobody heard, and whose answer did not come.

        What was heard of them may have been on its way for long, and word of their end have come before it.
        """
        for device, _ in self._waiting_for:
            if self.present.get(device) == UNBORN:
                del self.present[device]
