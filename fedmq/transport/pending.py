"""What the broker has yet to answer on one link, and the watchdog that decides when it never will."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Codes: TypeAlias = "Sequence[int] | None"
"""An answer: the broker's reason codes, or None where the link broke first."""

_DEADLINE: Final = attrgetter("deadline")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a request may go unanswered before the link counts as broken.

    `seconds`, and on top the time that all bytes under way take at `slowest` bytes a second: a poor mobile link is
    slow, not dead. Where the broker sends all the while, `seconds` from its last byte on, up to `longest_s` in all: an
    answer stands behind everything that the broker repeats after a cut. `connect_s` bounds the wait for the answer to
    CONNECT.
    """

    seconds: float = 15.0
    slowest: float = 8_192.0
    longest_s: float = 600.0
    connect_s: float = 10.0


@dataclass(slots=True)
class Request:
    """One request: the type of packet that answers it, what it is in words, its bytes, and until when it may take.

    `answer` is what the caller waits for. A caller that was cancelled has cancelled it: the request stays.
    """

    kind: int
    what: str
    size: int
    patience_s: float
    deadline: float
    landed: Callable[[], None] | None
    answer: asyncio.Future[Codes]


class Pending:
    """The requests of one link, by packet identifier.

    `on_late(what, patience_s)` is called once an answer is overdue; `heard()` says when, by the event loop's clock, the
    last byte came from the broker. One timer serves all requests: most are answered in a thousandth of their patience,
    and arming a timer for each cost more than sending it.
    """

    def __init__(
        self,
        patience: Patience,
        on_late: Callable[[str, float], None],
        heard: Callable[[], float] = lambda: -math.inf,
    ) -> None:
        self.under_way = 0
        self._patience = patience
        self._on_late = on_late
        self._heard = heard
        self._loop = asyncio.get_running_loop()
        self._requests: dict[int, Request] = {}
        self._alarm: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._requests)

    def __contains__(self, identifier: int) -> bool:
        return identifier in self._requests

    def add(
        self,
        identifier: int,
        kind: int,
        what: str,
        *,
        size: int = 0,
        landed: Callable[[], None] | None = None,
    ) -> asyncio.Future[Codes]:
        """Return a future for the answer to request `identifier`, a packet of type `kind`.

        `size` bytes count as under way until the broker has answered, or the link broke; then `landed` is called,
        whether or not anybody still waits.
        """
        self.under_way += size
        patience_s = self._patience.seconds + self.under_way / self._patience.slowest
        deadline = self._loop.time() + patience_s
        answer: asyncio.Future[Codes] = self._loop.create_future()
        self._requests[identifier] = Request(kind, what, size, patience_s, deadline, landed, answer)
        if self._alarm is None or deadline < self._alarm.when():
            self._arm(deadline)
        return answer

    def settle(self, kind: int, identifier: int, codes: Sequence[int]) -> None:
        """Take in an answer; one that nobody asked for is ignored."""
        request = self._requests.get(identifier)
        if request is not None and request.kind == kind:
            del self._requests[identifier]
            self._finish(request, codes)

    def give_up(self) -> None:
        """Answer None to all requests: the link is broken."""
        requests, self._requests = self._requests, {}
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        for request in requests.values():
            self._finish(request, None)

    def _finish(self, request: Request, codes: Codes) -> None:
        self.under_way -= request.size
        if request.landed is not None:
            request.landed()
        if not request.answer.done():
            request.answer.set_result(codes)

    def _arm(self, deadline: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = self._loop.call_at(deadline, self._look)

    def _look(self) -> None:
        self._alarm = None
        if not self._requests:
            return
        next_due: Request = min(self._requests.values(), key=_DEADLINE)
        due = self._due(next_due)
        if due <= self._loop.time():
            self._on_late(next_due.what, next_due.patience_s)
        else:
            self._arm(due)

    def _due(self, request: Request) -> float:
        """Return when its answer is overdue, as things are."""
        last = request.deadline - request.patience_s + self._patience.longest_s
        return max(request.deadline, min(self._heard() + self._patience.seconds, last))
