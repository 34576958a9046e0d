"""What of a closed round's journal is kept, the updates that it accepted; and how they are read again."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import TYPE_CHECKING, TypeAlias

from fedmq.aggregator.parcel import cutting
from fedmq.errors import MessageError, StoreError
from fedmq.protocol.messages import Chunk, Task, Update
from fedmq.store.archive import KeptRound
from fedmq.vectors import fingerprint
from fedmq.wire import limits
from fedmq.wire.chunks import Collector
from fedmq.wire.envelope import decode

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fedmq.store.archive import Archive, Recording
    from fedmq.store.checkpoint import Weights
    from fedmq.store.journal import Journal, Piece, Spot

log = logging.getLogger(__name__)

Taken: TypeAlias = Collection[tuple[str, bytes]]
"""Device and id of the updates that one round has accepted."""


def keep_round(  # noqa: PLR0913 - what a round's file says
    archive: Archive,
    journal: Journal,
    taken: Taken,
    weights: Weights,
    present: int = 0,
    *,
    codecs: Mapping[int, str] | None = None,
) -> None:
    """Keep the updates that a round has accepted and that made `weights` while `present` devices were there. Blocking.

    `codecs` are those of the rounds that these updates may answer; the task's alone where none are given. A disk that
    refuses ends the keeping, not the federation: that lives from its checkpoints alone.
    """
    task = decode(journal.opening, Task)
    kept = KeptRound(
        round=task.round,
        base=task.model,
        version=weights.version,
        model=fingerprint(weights.vector),
        updates=len(taken),
        present=present,
        task=journal.opening,
        settings=archive.settings,
        codecs=tuple((codecs or {}).items()),
    )
    try:
        archive.keep(kept, map(journal.read, _places(journal, taken)))
    except StoreError as error:
        log.error("round %d's updates and later ones are not kept: %s", task.round, error)  # noqa: TRY400 - a sentence


def _places(journal: Journal, taken: Taken) -> list[Spot]:
    """Return where the accepted updates' pieces are, update after update, each one's chunks in order.

    Of a device that sent two for one round, as after it lost its outbox, only the one that counted is meant; of one
    that was cut in two ways, the later.
    """
    found: dict[tuple[str, bytes], tuple[int, dict[int, Spot]]] = {name: (0, {}) for name in taken}
    for piece, spot in journal.places():
        update, count = cutting(piece)
        name = piece.device, update
        if name in found and found[name][0] != count:
            found[name] = count, {}
        if name in found:
            found[name][1][piece.chunk or 0] = spot
    return [found[name][1][index] for name in sorted(found) for index in sorted(found[name][1])]


def kept_updates(recording: Recording, kept: KeptRound) -> Iterator[tuple[Update, int]]:
    """Yield the updates of a kept round, one at a time, each with the round that it answers.

    Raises StoreError where the file is damaged.
    """
    path, count = recording.path(kept), 0
    try:
        for piece, update in _whole(recording.pieces(kept)):
            yield update, piece.round or kept.round
            count += 1
    except MessageError as error:
        raise StoreError(f"{path} is damaged, restore it: {error}") from None
    if count != kept.updates:
        raise StoreError(f"{path} holds {count} of {kept.updates} updates: it is damaged, restore it")


def _whole(pieces: Iterator[Piece]) -> Iterator[tuple[Piece, Update]]:
    """Yield each update with the piece that completed it."""
    collector = Collector(limits.BODY_BYTES)  # empty again after each update
    for piece in pieces:
        body = piece.payload if piece.chunk is None else collector.take(decode(piece.payload, Chunk))
        if body is not None:
            yield piece, decode(body, Update)
