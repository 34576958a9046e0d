"""Faults to plant in a process: each takes the place of methods of the product."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, cast

from fedmq.aggregator.intake import Intake
from fedmq.device.sending import Sending
from fedmq.protocol.coordinator import Coordinator
from fedmq.protocol.ledger import Standing
from fedmq.protocol.messages import Verdict
from fedmq.protocol.participant import Participant
from fedmq.store.checkpoint import CheckpointFolder

if TYPE_CHECKING:
    from fedmq.protocol import coordination as co
    from fedmq.protocol import participation as pa
    from fedmq.protocol.ledger import Entry
    from fedmq.protocol.messages import Manifest, Task
    from fedmq.transport.interface import Connection

Place = tuple[type, str]

_send = Sending._send
_welcome = Coordinator._welcome
_offered_now = Coordinator._offered_now
_offer = Intake._offer
_tasked = Participant._tasked
_published = Participant._published


async def forgets_on_puback(self: Sending, connection: Connection, effect: pa.Send) -> None:
    """Forget an update as soon as the broker has it."""
    await _send(self, connection, effect)
    cast("dict[bytes, Any]", self._letters()).pop(effect.update, None)
    self._outbox.forget(effect.update)


def receipts_at_once(self: Coordinator, event: co.Offered, entry: Entry | None) -> None:
    """Thank for an update before it lies in the journal."""
    _welcome(self, event, entry)
    self._reply(event.device, event.round, event.update, Verdict.ACCEPTED, "")


def takes_every_copy(self: Coordinator, event: co.Offered) -> None:
    """Take an update that has its verdict for a new one."""
    known = self.ledger.find(event.device, event.round)
    if known is not None and known.standing is Standing.SETTLED:
        self._welcome(event, None)
    else:
        _offered_now(self, event)


def offers_every_copy(self: Intake, piece: Any, round_: int, *rest: Any, **named: Any) -> Any:  # noqa: ANN401
    """Take every copy of an update into the journal."""
    if piece.chunk is None:
        self._parcels.pop((piece.device, round_), None)
    return _offer(self, piece, round_, *rest, **named)


def takes_any_task(self: Participant, task: Task, now: float) -> None:
    """Believe whatever round the broker tells of."""
    self.task, self._answered = None, 0
    _tasked(self, task, now)


def takes_any_model(self: Participant, manifest: Manifest, now: float) -> None:
    """Believe whatever version the broker tells of."""
    self.manifest = None
    _published(self, manifest, now)


def finds_no_journal(self: CheckpointFolder) -> list[Any]:
    """Begin an interrupted round with nothing in it."""
    return []


FAULTS: Final[dict[str, dict[Place, Callable[..., Any]]]] = {
    "trusts_puback": {(Sending, "_send"): forgets_on_puback},
    "receipt_before_commit": {(Coordinator, "_welcome"): receipts_at_once},
    "no_dedup": {
        (Coordinator, "_offered_now"): takes_every_copy,
        (Intake, "_offer"): offers_every_copy,
    },
    "version_goes_back": {
        (Participant, "_tasked"): takes_any_task,
        (Participant, "_published"): takes_any_model,
    },
    "journal_not_replayed": {(CheckpointFolder, "journals"): finds_no_journal},
}


def planted(name: str) -> Callable[[], None]:
    """Plant the fault of that name, none where it is empty; return what takes it out again."""
    faults = FAULTS[name] if name else {}
    before = {(kind, method): getattr(kind, method) for kind, method in faults}
    for (kind, method), fault in faults.items():
        setattr(kind, method, fault)

    def undo() -> None:
        for (kind, method), inner in before.items():
            setattr(kind, method, inner)

    return undo


@contextlib.contextmanager
def fault(name: str) -> Iterator[None]:
    """Plant the fault of that name while the block runs."""
    undo = planted(name)
    try:
        yield
    finally:
        undo()
