"""The round that a stop interrupted, if its journal says that there was one."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedmq.errors import MessageError
from fedmq.protocol.messages import Task
from fedmq.wire.envelope import decode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fedmq.store.checkpoint import CheckpointFolder, State
    from fedmq.store.journal import Journal, Piece, Spot

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Interrupted:
    """An open round as it stands on disk."""

    task: Task
    journal: Journal
    pieces: Sequence[tuple[Piece, Spot]]


def interrupted(folder: CheckpointFolder, state: State, version: int) -> Interrupted | None:
    """Return the round that goes on from model `version`; journals of any other are emptied. Raises StoreError."""
    found: Interrupted | None = None
    for journal, pieces in folder.journals():
        task = _readable(journal.opening)
        if found is None and task is not None and _goes_on(task, state, version):
            found = Interrupted(task, journal, pieces)
            log.info("round %d goes on, with %d pieces of updates in its journal", task.round, len(pieces))
        else:
            journal.discard()
    return found


def _goes_on(task: Task, state: State, version: int) -> bool:
    """Say whether the task's round is still open, as far as the checkpoint knows."""
    closed = max(state.verdicts, default=0)
    return task.run == state.run and task.model == version and task.round > closed


def _readable(opening: bytes) -> Task | None:
    try:
        return decode(opening, Task)
    except MessageError as error:
        log.warning("the interrupted round's journal is of another fedmq (%s): the round begins anew", error)
        return None
