"""Durable updates into the fold, in a worker thread, many to a trip."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fedmq.aggregator.modelling import Answer
from fedmq.errors import FedmqError, PeerError, StoreError
from fedmq.protocol import coordination as co

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from concurrent.futures import Executor

    from fedmq.aggregator.intake import Dispatch, Intake
    from fedmq.aggregator.modelling import Modelling
    from fedmq.aggregator.parcel import Parcel, Source
    from fedmq.protocol.messages import Update

AT_ONCE: Final = 64
"""Updates per trip to the worker: a trip costs about as much as absorbing a kilobyte."""


@dataclass(frozen=True, slots=True)
class Job:
    """One update to absorb, or only to look into (its header is not known yet)."""

    device: str
    round: int
    update: bytes
    source: Source
    look: bool


class Absorption:
    """The queue between intake and fold."""

    def __init__(self, intake: Intake, modelling: Modelling, dispatch: Dispatch, worker: Executor) -> None:
        """Work on `worker`, an executor of one thread; tell of the outcome through `dispatch`."""
        self._intake, self._modelling, self._dispatch, self._worker = intake, modelling, dispatch, worker
        self._jobs: deque[Job] = deque()
        self._arrived = asyncio.Event()
        self._looking = 0

    def ready(self, parcel: Parcel) -> None:
        """Take up a parcel that has become whole and durable; the coordinator hears of them in this very order."""
        header = parcel.header
        if header is None or self._looking:
            self._add(parcel, look=True)
        else:
            event = co.Completed(parcel.device, parcel.round, parcel.update, header.model, header.layout)
            self._dispatch(event)

    def absorb(self, effect: co.Absorb) -> None:
        """Carry the effect out."""
        parcel = self._intake.parcel(effect.device, effect.round, effect.update)
        if parcel is not None:  # else the round was given up in this very moment
            self._add(parcel, look=False)

    def _add(self, parcel: Parcel, *, look: bool) -> None:
        source = self._intake.source(parcel)
        if source is None:
            return
        self._jobs.append(Job(parcel.device, parcel.round, parcel.update, source, look))
        self._looking += look
        self._arrived.set()

    async def absorb_forever(self) -> None:
        """Work the queue off."""
        loop = asyncio.get_running_loop()
        while True:
            await self._arrived.wait()
            jobs = [self._jobs.popleft() for _ in range(min(AT_ONCE, len(self._jobs)))]
            if not self._jobs:
                self._arrived.clear()
            for event in await loop.run_in_executor(self._worker, self._work, jobs):
                self._dispatch(event)
            self._looking -= sum(job.look for job in jobs)

    def _work(self, jobs: Sequence[Job]) -> list[co.CoordinatorEvent]:
        count = self._modelling.at_once
        lots = [jobs[start : start + count] for start in range(0, len(jobs), count)]
        return [event for lot in lots for event in self._work_together(lot)]

    def _work_together(self, jobs: Sequence[Job]) -> list[co.CoordinatorEvent]:
        read = [(job, _read(job)) for job in jobs]
        answers = [
            Answer(update, job.round)
            for job, update in read
            if not job.look and not isinstance(update, FedmqError)
        ]
        wrong = iter(self._modelling.absorb_all(answers))
        return [_told(job, update, wrong) for job, update in read]


def _read(job: Job) -> Update | FedmqError:
    try:
        return job.source.read()
    except (PeerError, StoreError) as error:
        return error


def _told(job: Job, update: Update | FedmqError, wrong: Iterator[FedmqError | None]) -> co.CoordinatorEvent:
    """Return what came of a job; `wrong` has the next thing that was wrong with an update that could be read."""
    if isinstance(update, FedmqError):
        return co.Spoiled(job.device, job.round, job.update, str(update))
    if job.look:
        return co.Completed(job.device, job.round, job.update, update.model, update.layout)
    error = next(wrong)
    if error is not None:  # a MisuseError where its round was given up meanwhile
        return co.Spoiled(job.device, job.round, job.update, str(error))
    return co.Absorbed(job.device, job.round, job.update, update.facts)
