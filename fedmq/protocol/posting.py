"""The outbox of a device: the participant's half that sends updates, and sends them again until they are settled.

What was sent before may have arrived, all of it or in part. So an update is sent as a whole once, and from then on the
device asks first which chunks are missing, and sends those. Where no answer comes it sends all of it again, and so on
in turns: whatever gets lost, and whoever does not understand the question, an update comes through in the end.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fedmq.protocol import participation as pa
from fedmq.protocol.allowance import Allowance
from fedmq.protocol.machine import Machine
from fedmq.protocol.pacing import lot, wait_s
from fedmq.protocol.spans import EVERYTHING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fedmq.protocol.spans import Spans

RECEIPT_PAUSE_S: Final = 30.0
"""Longest wait for a receipt before the update is asked about, or sent again; doubled each time, up to
`LONGEST_PAUSE_S`. Each device waits this long or up to half as long, each time another share, and where the fleet is
large, longer: those whose receipts were lost at one moment are not to ask at one moment, nor the same ones together
again."""
LONGEST_PAUSE_S: Final = 600.0
SCATTER: Final = 0.5
"""Share of what a receipt has a device wait that is waited for on top, by some more and by some less: else all that
were put off at one moment would be back at one moment."""
MOST_QUESTIONS: Final = 65_535
"""Highest number of a question."""
QUERY_BYTES: Final = 256
"""What asking about an update costs, and more."""


@dataclass(slots=True)
class Letter:
    """An update in the outbox: when it is due (again), and what is then to be sent of it; nothing for a question.

    It is never due while it is being sent. `question` is the number of the last question about it, as long as that has
    no answer. `sent` counts what was sent since the last word about it, `held` says whether the link's limit holds it
    up.
    """

    run: bytes
    round: int
    due: float = 0.0
    missing: Spans = ()
    question: int = 0
    sent: int = 0
    nbytes: int = 0
    held: bool = False


class Posting(Machine[pa.Phase, pa.ParticipantEvent, pa.ParticipantEffect]):
    """What becomes of each update in the outbox; `Participant` adds the tasks."""

    def __init__(self, outbox: Mapping[bytes, tuple[bytes, int]]) -> None:
        """Begin with what is on disk: `outbox` maps update to (run, round)."""
        super().__init__(pa.Phase.IDLE)
        self.connected = False
        self.outbox = {update: Letter(run, round_) for update, (run, round_) in outbox.items()}
        self._allowance = Allowance()
        self._spread_s = 0.0

    @abstractmethod
    def _go_on(self, now: float) -> None:
        """Do the next thing that can be done, and ask to be woken for the next that cannot yet."""

    @abstractmethod
    def _sleep(self, now: float) -> None:
        """Ask to be woken when the next thing falls due."""

    # --- the link -----------------------------------------------------------------------------------------------------

    def _connect(self, now: float) -> None:
        self.connected = True
        for letter in self.outbox.values():
            letter.due = now
            if letter.sent:
                letter.missing = ()
        self._go_on(now)

    def _allowed(self, nbytes: int | None, now: float) -> None:
        """Hear what the link may carry; when that is more than before, take up what had to wait for it."""
        if self._allowance.grant(nbytes):
            for letter in self.outbox.values():
                if letter.held:
                    letter.due = now
            self._go_on(now)

    def _affords(self, what: str, nbytes: int) -> bool:
        if self._allowance.covers(nbytes):
            return True
        sentence = self._allowance.complaint(what, nbytes)
        if sentence:
            self._out.append(pa.Log(sentence))
        return False

    # --- out, and out again -------------------------------------------------------------------------------------------

    def _post(self, update: bytes, letter: Letter) -> None:
        """Take an update in that was just made; it is due at once."""
        self.outbox[update] = letter
        self._allowance.update_bytes = letter.nbytes

    def _send_what_is_due(self, now: float) -> None:
        if not self.connected:
            return
        for update, letter in self.outbox.items():
            if now >= letter.due:
                nbytes = letter.nbytes if letter.missing else QUERY_BYTES
                letter.held = not self._affords(f"the update of round {letter.round}", nbytes)
                if letter.held:
                    letter.due = now + LONGEST_PAUSE_S
                    continue
                letter.question = letter.question if letter.missing else _question(now)
                self._out.append(pa.Send(letter.round, update, letter.missing, letter.question))
                letter.due, letter.missing = math.inf, () if letter.missing else EVERYTHING
                letter.sent += 1

    def _sent(self, update: bytes, now: float) -> None:
        """Wait for the receipt from now on; unless news came meanwhile, by which the update is due already."""
        letter = self.outbox.get(update)
        if letter is not None and letter.due == math.inf:
            longest = pause_after(RECEIPT_PAUSE_S, letter.sent - 1)
            letter.due = now + wait_s(longest, self._spread_s, lot(update, letter.sent))
        self._sleep(now)

    def _receipted(self, event: pa.Receipted, now: float) -> None:
        receipt = event.receipt
        letter = self.outbox.get(receipt.update)
        if letter is None or letter.run != receipt.run:
            return
        if receipt.question not in (0, letter.question):
            return  # the answer to an earlier question: a broker repeats what it has no acknowledgement for
        if receipt.verdict.settled:
            del self.outbox[receipt.update]
            self._out.append(pa.Forget(letter.round, receipt.update, receipt.verdict, receipt.reason))
        else:
            letter.due = now + receipt.retry_after_s * (1 + SCATTER * lot(receipt.update, 0))
            letter.missing = receipt.missing
            letter.question = letter.sent = 0
        self._go_on(now)

    def _dues(self) -> list[float]:
        """Return when each update is due that is not being sent."""
        return [letter.due for letter in self.outbox.values() if letter.due < math.inf]


def _question(now: float) -> int:
    """Return a number that no other question has lately had, in an earlier life of the device neither."""
    return 1 + int(now * 1000) % MOST_QUESTIONS


def pause_after(first: float, times: int) -> float:
    """Return `first` seconds, doubled with each time before, up to `LONGEST_PAUSE_S`."""
    return min(first * 2.0 ** min(times, 10), LONGEST_PAUSE_S)
