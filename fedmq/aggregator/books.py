"""The aggregator's books: checkpoint, journals and kept updates of its rounds, written in the order that a crash needs.

A round's updates are kept before the checkpoint closes it, and its journal is emptied after: so none of them is ever in
neither, and the checkpoint says of a journal that is still there whether it has been counted.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from fedmq.aggregator.keeping import keep_round
from fedmq.wire.envelope import encode

if TYPE_CHECKING:
    from fedmq.aggregator.intake import Intake
    from fedmq.aggregator.modelling import Modelling
    from fedmq.aggregator.workers import Workers
    from fedmq.protocol.coordinator import Coordinator
    from fedmq.protocol.messages import Task
    from fedmq.store.archive import Archive
    from fedmq.store.checkpoint import CheckpointFolder, State, Weights
    from fedmq.store.journal import Journal


class Books:
    """One federation's; `state` is what its last checkpoint says."""

    def __init__(  # noqa: PLR0913 - what is written, and what writes it
        self,
        state: State,
        folder: CheckpointFolder,
        archive: Archive | None,
        *,
        workers: Workers,
        intake: Intake,
        coordinator: Coordinator,
        modelling: Modelling,
    ) -> None:
        """Go on from `state`, which stands in `folder`."""
        self.state = state
        self._folder, self._archive, self._workers = folder, archive, workers
        self._intake, self._coordinator, self._modelling = intake, coordinator, modelling
        self._closed: list[Journal] = []

    # --- checkpoints --------------------------------------------------------------------------------------------------

    async def save(self, state: State, weights: Weights | None = None) -> None:
        """Write a checkpoint, however long that takes."""
        await self._workers.insist(self._workers.fold, self._folder.save, state, weights)
        self.state = state

    async def save_now(self) -> None:
        """Write how far the federation has come; an open round is closed by that."""
        coordinator = self._coordinator
        verdicts = coordinator.ledger.snapshot()
        await self.save(replace(self.state, progress=coordinator.progress, verdicts=verdicts))

    async def save_fleet(self) -> None:
        """Write how many devices there are, and nothing else of an open round."""
        progress = replace(self.state.progress, fleet=self._coordinator.progress.fleet)
        await self.save(replace(self.state, progress=progress))

    async def keep(self, weights: Weights, present: int) -> None:
        """Keep the round's updates where that is wanted, before the checkpoint closes it: so none can be missed."""
        journal = self._intake.journal
        if self._archive is not None and journal is not None:
            taken = self._coordinator.ledger.taken()
            keep = partial(keep_round, codecs=self._modelling.codecs.lines)
            await self._workers.run(self._workers.fold, keep, self._archive, journal, taken, weights, present)

    # --- journals -----------------------------------------------------------------------------------------------------

    async def begin_journal(self, task: Task) -> Journal:
        """Begin the journal of a round, however long that takes."""
        return await self._workers.insist(
            self._workers.journal, self._folder.begin_journal, task.round, encode(task)
        )

    async def retire_journal(self) -> None:
        """Take in no more, now that the checkpoint says that the round is closed; its journal is emptied at leisure.

        Yet before another one is retired: the round after the next writes to the same file.
        """
        await self.empty_journals()
        journal = self._intake.close()
        if journal is not None:
            self._closed.append(journal)

    async def empty_journals(self) -> None:
        """Give the space of closed rounds back."""
        while self._closed:
            await self._workers.run(self._workers.journal, lambda: None)  # what was being written is written
            await self._workers.insist(self._workers.fold, self._closed[0].discard)  # and nobody is reading
            del self._closed[0]

    @property
    def unemptied(self) -> int:
        """How many journals of closed rounds are still to be emptied."""
        return len(self._closed)

    def close(self) -> None:
        """Close the files; of a closed round or not: the checkpoint says which."""
        journal = self._intake.close()
        for left in [*self._closed, journal]:
            if left is not None:
                left.close()
