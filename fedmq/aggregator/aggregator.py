"""The aggregator: events from MQTT, disk and clock into the coordinator, its effects out again.

Everything that touches the coordinator runs on the event loop. Two workers of one thread each stand beside it: one
writes the journal, one does the arithmetic and the checkpoints. Effects that have to wait for a worker or the broker
become *deeds*, done one after the other in the order in which the coordinator asked for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING, Final

from fedmq.aggregator.absorption import Absorption
from fedmq.aggregator.board import Board
from fedmq.aggregator.books import Books
from fedmq.aggregator.founding import begin, figured, make_coordinator, make_steering, steer
from fedmq.aggregator.intake import Intake
from fedmq.aggregator.postbox import Postbox
from fedmq.aggregator.publication import Publication
from fedmq.aggregator.resuming import interrupted
from fedmq.aggregator.workers import Workers
from fedmq.errors import Refused, TransportError
from fedmq.protocol import coordination as co
from fedmq.protocol.coordinator import Phase
from fedmq.protocol.messages import Beacon, Task, Verdict
from fedmq.protocol.pacing import is_outdated, spread_s
from fedmq.transport.interface import Outgoing, Profile
from fedmq.transport.session import Session
from fedmq.wire.chunks import chunk_room
from fedmq.wire.envelope import encode
from fedmq.wire.topics import Topics

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence

    from fedmq.aggregator.parcel import Parcel
    from fedmq.aggregator.settings import Federation
    from fedmq.protocol.messages import Report
    from fedmq.store.archive import Archive
    from fedmq.store.checkpoint import CheckpointFolder
    from fedmq.store.modelfile import StoredModel
    from fedmq.transport.interface import Connection, Transport
    from fedmq.vectors import Vector

log = logging.getLogger(__name__)

REFRESH_S: Final = 60.0
"""Pause before devices are looked for again while too few are there; doubled each time, up to `LONGEST_REFRESH_S`."""
LONGEST_REFRESH_S: Final = 900.0
PACE_S: Final = 5.0
"""Pause between two looks at how many devices there are."""
CONNECTIONS: Final = 2**16
"""Factor between the starts of the process and its connections in the epoch that the beacon tells."""
FAREWELL_S: Final = 2.0
"""Time for saying good-bye; the last will says it otherwise."""


@dataclass(frozen=True, slots=True)
class Remember:
    """A deed of the shell's own: write down how many devices there are, before the round's end does."""


class Aggregator:
    """One federation's aggregator; `run` lives as long as the federation, or until it is cancelled."""

    def __init__(  # noqa: PLR0913 - the parts that an aggregator is made of
        self,
        federation: Federation,
        transport: Transport,
        folder: CheckpointFolder,
        first: StoredModel,
        *,
        evaluate: Callable[[Vector], Awaitable[Mapping[str, float]]] | None = None,
        on_report: Callable[[Report], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        entropy: Callable[[int], bytes] = os.urandom,
        archive: Archive | None = None,
    ) -> None:
        """Go on from the checkpoint in `folder`, or found the federation with the `first` model.

        `evaluate` is asked about each new model (`Modelling.evaluated`), where held-out data is at hand; `on_report`
        hears of every round. `entropy` gives the run's name and the cohorts' secret, so a simulation can repeat a run.
        Accepted updates are kept in `archive`, where one is given, and nowhere else once their round has closed.
        Raises ConfigError when the checkpoint belongs to another model, StoreError when it cannot be read.
        """
        self.federation = federation
        self.topics = Topics(federation.name)
        self.ended = asyncio.Event()
        self.reason = ""
        self._folder, self._clock = folder, clock
        self._evaluate, self._on_report = evaluate, on_report
        self._workers = Workers()
        state, self.modelling = begin(federation, folder, first, entropy)
        self._steering = make_steering(federation, state, self.modelling)
        if archive is not None:
            archive.begin(state, self.modelling.plain, self.modelling.weights)
        self._coordinator = make_coordinator(federation, state, self.modelling, self._steering)
        self._board = Board()
        self._publication = Publication(
            self.topics, self._board, self.modelling, federation.encoding.chunk_bytes
        )
        self._intake = Intake(
            self.topics, self._dispatch, self._ready, self._workers.journal, federation.policy.buffer
        )
        self._absorption = Absorption(self._intake, self.modelling, self._dispatch, self._workers.fold)
        self._books = Books(
            state,
            folder,
            archive,
            workers=self._workers,
            intake=self._intake,
            coordinator=self._coordinator,
            modelling=self.modelling,
        )
        self._deeds: asyncio.Queue[co.CoordinatorEffect | Remember] = asyncio.Queue()
        self._errands: set[asyncio.Task[None]] = set()
        self._alarm: asyncio.TimerHandle | None = None
        self._connections = 0
        self._told_s = 0.0
        self._session = Session(
            transport,
            Profile(f"fedmq:{federation.name}", will=self._beacon(alive=False)),
            on_connected=self._on_connected,
            on_messages=self._intake.take,
            on_lost=self._on_lost,
            random=Random(),  # noqa: S311 - jitter, not a secret
        )
        self._postbox = Postbox(self.topics, self._session)

    # --- life ---------------------------------------------------------------------------------------------------------

    async def run(self) -> str:
        """Serve until the federation has ended, and return why. Cancelling it stops the process, not the federation."""
        await self._publication.begin()
        session = asyncio.create_task(self._session.run())
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(work) for work in self._works(session)]
                await self.ended.wait()
                await self._postbox.drained()
                for task in tasks:
                    task.cancel()
        finally:
            await self._close(session)
        return self.reason

    def _works(self, session: asyncio.Task[None]) -> list[Coroutine[object, object, None]]:
        return [
            _outcome(session),
            self._intake.commit_forever(),
            self._absorption.absorb_forever(),
            self._postbox.send_forever(),
            self._do_deeds(),
            self._refresh_forever(),
            self._pace_forever(),
        ]

    @property
    def garbled(self) -> int:
        """How many messages came under an update's topic that were none."""
        return self._intake.garbled

    def stop(self, reason: str) -> None:
        """End the federation: the open round is given up, devices are told."""
        self._dispatch(co.StopAsked(reason))

    async def _close(self, session: asyncio.Task[None]) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        with contextlib.suppress(TransportError, TimeoutError):
            async with asyncio.timeout(FAREWELL_S):
                await self._session.try_publish(self._beacon(alive=False))
        session.cancel()
        await asyncio.gather(session, return_exceptions=True)
        self._workers.close()
        for errand in self._errands:
            errand.cancel()
        self._books.close()

    # --- beginnings ---------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        """Begin, or take up the round that a stop interrupted."""
        found = interrupted(self._folder, self._books.state, self.modelling.weights.version)
        if found is None:
            self._dispatch(co.Started())
            return
        self.modelling.begin(found.task)
        self._intake.open(found.task, found.journal)
        self._dispatch(co.Started(found.task))
        self._intake.replay(found.pieces)

    # --- the link -----------------------------------------------------------------------------------------------------

    async def _on_connected(self, connection: Connection) -> None:
        room = chunk_room(connection.limits.packet_bytes, self.federation.encoding.chunk_bytes)
        await self._publication.cut_anew(room)
        await self._board.attach(connection)
        await connection.subscribe(*self.topics.aggregator_filters)
        await self._call_devices()  # only now, subscribed
        if self._coordinator.phase is Phase.NEW:
            self._start()

    async def _refresh_forever(self) -> None:
        """Look for devices again from time to time, as long as no round can open for want of them.

        Births may have been dropped on the way. Those that stand come again with a subscription; but where the broker's
        queue for us holds fewer than there are, it has room for the same ones each time. So all are called, too.
        """
        pause = REFRESH_S
        while True:
            await asyncio.sleep(pause)
            waiting, connection = self._coordinator.phase is Phase.WAITING, self._session.connection
            pause = min(2.0 * pause, LONGEST_REFRESH_S) if waiting else REFRESH_S
            if waiting and connection is not None:
                with contextlib.suppress(TransportError):
                    await connection.subscribe(*self.topics.aggregator_filters)
                    await self._call_devices()

    async def _call_devices(self) -> None:
        """Tell a new epoch: devices that see it announce themselves again, and send again what has no receipt."""
        self._connections += 1
        await self._publication.put(self.topics.beacon, self._beacon_message(alive=True))

    async def _pace_forever(self) -> None:
        """Tell devices anew over what time to spread, when there are many more or fewer of them.

        And write it down: after a restart nobody else knows, just when all of them come back.
        """
        while True:
            await asyncio.sleep(PACE_S)
            if self._connections and is_outdated(self._told_s, spread_s(self._coordinator.fleet)):
                await self._publication.put(self.topics.beacon, self._beacon_message(alive=True))
                self._deeds.put_nowait(Remember())

    def _on_lost(self, _: TransportError) -> None:
        self._board.detach()

    # --- the coordinator ----------------------------------------------------------------------------------------------

    def _dispatch(self, event: co.CoordinatorEvent) -> Sequence[co.CoordinatorEffect]:
        effects = self._coordinator.handle(event, self._clock())
        for effect in effects:
            self._carry_out(effect)
        return effects

    def _carry_out(self, effect: co.CoordinatorEffect) -> None:
        match effect:
            case co.Keep() | co.Search():
                pass  # the intake sees it among the effects of its own event
            case co.Reply(device, receipt):
                self._postbox.post(device, receipt)
                if receipt.verdict is Verdict.REJECTED:
                    loop = asyncio.get_running_loop()
                    loop.call_soon(self._intake.refused, device, receipt.round)
            case co.Absorb():
                self._absorption.absorb(effect)
            case co.Finish() | co.Discard():
                self._intake.hold()
                self._deeds.put_nowait(effect)
            case co.WakeAt(at):
                self._wake_at(at)
            case _:
                self._deeds.put_nowait(effect)

    def _wake_at(self, at: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        loop = asyncio.get_running_loop()
        self._alarm = loop.call_later(max(0.0, at - self._clock()), self._dispatch, co.Ticked())

    def _ready(self, parcel: Parcel) -> None:
        self._absorption.ready(parcel)

    # --- deeds --------------------------------------------------------------------------------------------------------

    async def _do_deeds(self) -> None:
        while True:
            await self._do(await self._deeds.get())
            if self._deeds.empty():  # devices wait for nothing now
                self._intake.release()
                await self._books.empty_journals()

    async def _do(self, effect: co.CoordinatorEffect | Remember) -> None:
        match effect:
            case Remember():
                await self._books.save_fleet()
            case co.Announce(task, begin):
                await self._announce(task, begin=begin)
            case co.Finish():
                await self._finish(effect)
            case co.Discard():
                await self._discard()
            case co.Tell(report):
                self._tell(report)
            case co.End(reason, task):
                await self._end(reason, task)
            case _:
                raise AssertionError(effect)

    async def _announce(self, task: Task, *, begin: bool) -> None:
        if begin:
            journal, _ = await asyncio.gather(
                self._books.begin_journal(task),
                self._workers.run(
                    self._workers.fold, self.modelling.begin, task, len(self._coordinator.present)
                ),
            )
            self._intake.open(task, journal)
        await self._errands_done()  # whoever hears of a round finds its model
        await self._publication.put(self.topics.task, task)
        await self._publication.clear_old_frames()

    async def _finish(self, effect: co.Finish) -> None:
        try:
            present = len(self._coordinator.present)
            moved = await self._workers.run(
                self._workers.fold, self.modelling.finish, effect.version, present
            )
        except Refused as error:
            self._dispatch(co.StepFailed(effect.round, str(error)))
            await self._discard()
            return
        progress = self._coordinator.progress.stepped(effect.version)
        verdicts = self._coordinator.ledger.snapshot(effect.round)
        log.info("round %d moves the model: %s", effect.round, dict(moved.measurements))
        state = replace(self._books.state, progress=progress, verdicts=verdicts)
        await self._books.keep(moved.weights, present)
        # Frames may be up before the checkpoint is durable: nothing names them until the manifest does.
        await asyncio.gather(self._books.save(state, moved.weights), self._publication.put_frames())
        await self._books.retire_journal()
        self._errand(self._publication.put_manifest())
        evaluation = await self._evaluate(self.modelling.evaluated()) if self._evaluate else {}
        steer(self._steering, self._coordinator, self.modelling, present=present, now=self._clock())
        self._dispatch(
            co.Stepped(effect.round, effect.version, len(moved.weights.frames[-1].body), evaluation)
        )

    async def _discard(self) -> None:
        """Forget the round, once the checkpoint says that it is closed: its number must not be given out again."""
        await self._workers.run(self._workers.fold, self.modelling.discard)
        await self._books.save_now()
        await self._books.retire_journal()

    def _tell(self, report: Report) -> None:
        report = figured(report, self._steering)
        if self._on_report is not None:
            self._on_report(report)
        self._errand(self._publication.put(self.topics.report, report))

    def _errand(self, work: Coroutine[object, object, None]) -> None:
        """Publish beside what follows, which `_errands_done` holds up where it must not come first."""
        self._errands.add(asyncio.create_task(work))

    async def _errands_done(self) -> None:
        errands, self._errands = self._errands, set()
        await asyncio.gather(*errands)

    async def _end(self, reason: str, task: Task) -> None:
        await self._books.save_now()
        await self._errands_done()
        await self._publication.put(self.topics.task, task)
        await self._publication.clear_old_frames()
        await self._books.empty_journals()
        if not self._board.is_even:
            log.warning("the federation has ended (%s); waiting for the broker to tell devices so", reason)
        await self._board.even()
        self.reason = reason
        self.ended.set()

    # --- the beacon ---------------------------------------------------------------------------------------------------

    def _beacon_message(self, *, alive: bool) -> Beacon:
        epoch = self._books.state.epoch * CONNECTIONS + self._connections % CONNECTIONS
        self._told_s = spread_s(self._coordinator.fleet)
        return Beacon(alive, self._books.state.run, epoch, self._told_s)

    def _beacon(self, *, alive: bool) -> Outgoing:
        data = encode(self._beacon_message(alive=alive))
        return Outgoing(self.topics.beacon, data, retain=True)


async def _outcome(task: asyncio.Task[None]) -> None:
    """Wait for `task` without owning it, and pass its failure on."""
    await asyncio.wait({task})
    task.result()
