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
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import islice
from random import Random
from typing import TYPE_CHECKING, Final, TypeVar

from fedmq.aggregator.absorption import Absorption
from fedmq.aggregator.board import Board
from fedmq.aggregator.intake import Intake
from fedmq.aggregator.keeping import keep_round
from fedmq.aggregator.modelling import Modelling
from fedmq.aggregator.postbox import Postbox
from fedmq.aggregator.steering import Seen, Steering
from fedmq.codecs.rate import loosest
from fedmq.errors import ConfigError, MessageError, Refused, StoreError, TransportError
from fedmq.protocol import coordination as co
from fedmq.protocol.coordinator import Coordinator, Phase, Terms
from fedmq.protocol.messages import Beacon, Task, Verdict
from fedmq.store.checkpoint import State, ledger_of
from fedmq.transport.interface import Outgoing, Profile
from fedmq.transport.session import Session
from fedmq.wire.chunks import chunk_count, chunk_room, cut
from fedmq.wire.envelope import decode, encode
from fedmq.wire.limits import METRICS
from fedmq.wire.topics import Topics

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence

    from fedmq.aggregator.intake import Parcel
    from fedmq.aggregator.settings import Federation
    from fedmq.protocol.messages import Message as Letter
    from fedmq.protocol.messages import Report
    from fedmq.store.archive import Archive
    from fedmq.store.checkpoint import CheckpointFolder, Encoded, Weights
    from fedmq.store.journal import Journal, Piece, Spot
    from fedmq.store.modelfile import StoredModel
    from fedmq.transport.interface import Connection, Transport
    from fedmq.vectors import Vector

log = logging.getLogger(__name__)

Result = TypeVar("Result")

DISK_PAUSE_S: Final = 1.0
"""Wait before a checkpoint is tried again after the disk refused."""
REFRESH_S: Final = 60.0
"""Pause between two looks for devices while too few are there: birth certificates may have been dropped on the way."""
CONNECTIONS: Final = 2**16
"""Factor between the starts of the process and its connections in the epoch that the beacon tells."""
FACTS_BYTES: Final = 8192
"""Room for an update's facts and its header beside the encoded delta."""
FAREWELL_S: Final = 2.0
"""Time for saying good-bye; the last will says it otherwise."""


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
        self._transport, self._folder, self._clock = transport, folder, clock
        self._evaluate, self._on_report = evaluate, on_report
        self._entropy = entropy
        self._writer = ThreadPoolExecutor(1, "fedmq-journal")
        self._worker = ThreadPoolExecutor(1, "fedmq-fold")
        self._state, self.modelling = self._load(first)
        self._steering = self._make_steering()
        self._archive = archive
        if archive is not None:
            archive.begin(self._state, self.modelling.plain, self.modelling.weights)
        self._coordinator = self._make_coordinator()
        self._board = Board()
        self._intake = Intake(
            self.topics, self._dispatch, self._ready, self._writer, federation.policy.buffer
        )
        self._absorption = Absorption(self._intake, self.modelling, self._dispatch, self._worker)
        self._deeds: asyncio.Queue[co.CoordinatorEffect] = asyncio.Queue()
        self._errands: set[asyncio.Task[None]] = set()
        self._closed: list[Journal] = []
        self._alarm: asyncio.TimerHandle | None = None
        self._room = federation.encoding.chunk_bytes
        self._connections = 0
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
        self._board.take_down(self._gone())
        await self._put_model()
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
        self._worker.shutdown(wait=True)
        self._writer.shutdown(wait=True)
        for errand in self._errands:
            errand.cancel()
        journal = self._intake.close()
        for left in [*self._closed, journal]:  # of a closed round or not: the checkpoint says which
            if left is not None:
                left.close()

    # --- beginnings ---------------------------------------------------------------------------------------------------

    def _load(self, first: StoredModel) -> tuple[State, Modelling]:
        found = self._folder.load()
        if found is None:
            return self._found(first)
        state, weights = found
        if state.layout != first.layout.digest:
            raise ConfigError(
                f"{self._folder.folder} holds a federation for another model layout: name another folder, or remove it"
            )
        state = replace(state, epoch=state.epoch + 1)
        self._folder.save(state)
        return state, Modelling(self.federation, state.run, first.layout, weights, folder=self._folder.folder)

    def _found(self, first: StoredModel) -> tuple[State, Modelling]:
        state = State(run=self._entropy(8), seed=self._entropy(16), layout=first.layout.digest, epoch=1)
        modelling = Modelling.found(
            self.federation, state.run, first.layout, first.vector, folder=self._folder.folder
        )
        self._folder.save(state, modelling.weights)
        return state, modelling

    def _make_coordinator(self) -> Coordinator:
        terms = Terms(
            run=self._state.run,
            layout=self._state.layout,
            seed=self._state.seed,
            codec=str(self._steering.up),
            update_bytes=self._update_bytes(),
            training=self.federation.telling,
        )
        return Coordinator(
            terms,
            self.federation.policy,
            self.federation.stop,
            progress=self._state.progress,
            ledger=ledger_of(self._state),
        )

    def _make_steering(self) -> Steering:
        encoding, recent = self.federation.encoding, self._state.progress.recent
        self.modelling.codecs.recall({opened.round: opened.codec for opened in recent})
        earlier = (opened.codec for opened in recent if opened.codec)
        return Steering(encoding.budget, encoding.up, encoding.down, earlier)

    def _update_bytes(self) -> int:
        """Return the most bytes that an update can take: what its codec can give, and room for facts.

        However a budget turns the codec: late updates come in codecs of earlier rounds.
        """
        encoding = self.federation.encoding
        codec = loosest(encoding.up) if encoding.budget.up else encoding.up
        return codec.most_bytes(self.modelling.layout.sizes) + FACTS_BYTES

    def _start(self) -> None:
        """Begin, or take up the round that a stop interrupted."""
        resumed: Task | None = None
        for journal, pieces in self._folder.journals():
            task = self._readable(journal.opening)
            if resumed is None and task is not None and self._goes_on(task):
                resumed = task
                self._take_up(task, journal, pieces)
            else:
                journal.discard()
        if resumed is None:
            self._dispatch(co.Started())

    def _take_up(self, task: Task, journal: Journal, pieces: Sequence[tuple[Piece, Spot]]) -> None:
        log.info("round %d goes on, with %d pieces of updates in its journal", task.round, len(pieces))
        self.modelling.begin(task)
        self._intake.open(task, journal)
        self._dispatch(co.Started(task))
        self._intake.replay(pieces)

    def _goes_on(self, task: Task) -> bool:
        """Say whether the task's round is still open, as far as the checkpoint knows."""
        closed = max(self._state.verdicts, default=0)
        return (
            task.run == self._state.run
            and task.model == self.modelling.weights.version
            and task.round > closed
        )

    def _readable(self, opening: bytes) -> Task | None:
        try:
            return decode(opening, Task)
        except MessageError as error:
            log.warning(
                "the interrupted round's journal is of another fedmq (%s): the round begins anew", error
            )
            return None

    # --- the link -----------------------------------------------------------------------------------------------------

    async def _on_connected(self, connection: Connection) -> None:
        room = chunk_room(connection.limits.packet_bytes, self.federation.encoding.chunk_bytes)
        if room != self._room:
            self._room = room
            await self._put_model(anew=True)
        await self._board.attach(connection)
        await connection.subscribe(*self.topics.aggregator_filters)
        # Only now, subscribed: devices that see a new epoch send again what has no receipt.
        self._connections += 1
        await self._put(self.topics.beacon, self._beacon_message(alive=True))
        if self._coordinator.phase is Phase.NEW:
            self._start()

    async def _refresh_forever(self) -> None:
        """Ask for all birth certificates again from time to time, as long as no round can open for want of devices."""
        while True:
            await asyncio.sleep(REFRESH_S)
            connection = self._session.connection
            if connection is not None and self._coordinator.phase is Phase.WAITING:
                with contextlib.suppress(TransportError):
                    await connection.subscribe(*self.topics.aggregator_filters)

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
            case co.Keep():
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
                await self._empty_journals()

    async def _do(self, effect: co.CoordinatorEffect) -> None:
        match effect:
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
                self._insist(self._writer, self._folder.begin_journal, task.round, encode(task)),
                self._in(self._worker, self.modelling.begin, task, len(self._coordinator.present)),
            )
            self._intake.open(task, journal)
        await self._errands_done()  # whoever hears of a round finds its model
        await self._put(self.topics.task, task)
        await self._clear_old_frames()

    async def _finish(self, effect: co.Finish) -> None:
        try:
            present = len(self._coordinator.present)
            moved = await self._in(self._worker, self.modelling.finish, effect.version, present)
        except Refused as error:
            self._dispatch(co.StepFailed(effect.round, str(error)))
            await self._discard()
            return
        progress = self._coordinator.progress.stepped(effect.version)
        verdicts = self._coordinator.ledger.snapshot(effect.round)
        log.info("round %d moves the model: %s", effect.round, dict(moved.measurements))
        state = replace(self._state, progress=progress, verdicts=verdicts)
        await self._keep(moved.weights, present)
        # Frames may be up before the checkpoint is durable: nothing names them until the manifest does.
        await asyncio.gather(self._save(state, moved.weights), self._put_frames())
        await self._retire_journal()
        self._errand(self._put_manifest())
        evaluation = await self._evaluate(self.modelling.evaluated()) if self._evaluate else {}
        self._steer(effect.round, moved.weights, present)
        self._dispatch(co.Stepped(effect.round, effect.version, self._bytes_down(moved.weights), evaluation))

    def _steer(self, round_: int, weights: Weights, present: int) -> None:
        """Turn the codecs of what follows by what this round took, where there is a budget to keep to."""
        tally, last = self._coordinator.ledger.tally, weights.frames[-1]
        seconds = self._clock() - self._coordinator.opened
        step = 0 if last.step.key else len(last.body)
        self._steering.seen(Seen(round_, tally.received, tally.bytes_up, present, seconds, step))
        self._coordinator.turn(str(self._steering.up))
        self.modelling.downlink.down = self._steering.down

    async def _keep(self, weights: Weights, present: int) -> None:
        """Keep the round's updates where that is wanted, before the checkpoint closes it: so none can be missed."""
        journal = self._intake.journal
        if self._archive is not None and journal is not None:
            taken = self._coordinator.ledger.taken()
            keep = partial(keep_round, codecs=self.modelling.codecs.lines)
            await self._in(self._worker, keep, self._archive, journal, taken, weights, present)

    async def _discard(self) -> None:
        """Forget the round, once the checkpoint says that it is closed: its number must not be given out again."""
        await self._in(self._worker, self.modelling.discard)
        await self._save(self._state_now())
        await self._retire_journal()

    async def _retire_journal(self) -> None:
        """Take in no more, now that the checkpoint says that the round is closed; its journal is emptied at leisure.

        Yet before another one is retired: the round after the next writes to the same file.
        """
        await self._empty_journals()
        journal = self._intake.close()
        if journal is not None:
            self._closed.append(journal)

    async def _empty_journals(self) -> None:
        """Give the space of closed rounds back."""
        while self._closed:
            await self._in(self._writer, lambda: None)  # what was being written is written
            await self._insist(self._worker, self._closed[0].discard)  # and nobody is reading
            del self._closed[0]

    def _tell(self, report: Report) -> None:
        ours = self._steering.figures(report.round)
        if ours:
            theirs = dict(islice(report.metrics.items(), METRICS - len(ours)))
            report = replace(report, metrics={**theirs, **ours})
        if self._on_report is not None:
            self._on_report(report)
        self._errand(self._put(self.topics.report, report))

    def _errand(self, work: Coroutine[object, object, None]) -> None:
        """Publish beside what follows, which `_errands_done` holds up where it must not come first."""
        self._errands.add(asyncio.create_task(work))

    async def _errands_done(self) -> None:
        errands, self._errands = self._errands, set()
        await asyncio.gather(*errands)

    async def _end(self, reason: str, task: Task) -> None:
        await self._save(self._state_now())
        await self._errands_done()
        await self._put(self.topics.task, task)
        await self._clear_old_frames()
        await self._empty_journals()
        self.reason = reason
        self.ended.set()

    def _state_now(self) -> State:
        coordinator = self._coordinator
        return replace(self._state, progress=coordinator.progress, verdicts=coordinator.ledger.snapshot())

    async def _save(self, state: State, weights: Weights | None = None) -> None:
        await self._insist(self._worker, self._folder.save, state, weights)
        self._state = state

    # --- publishing ---------------------------------------------------------------------------------------------------

    async def _put_model(self, *, anew: bool = False) -> None:
        """Put up the model as it stands; with `anew`, also the frames that stand already, in other chunks."""
        await self._put_frames(anew=anew)
        await self._put_manifest()
        await self._clear_old_frames()

    async def _put_frames(self, *, anew: bool = False) -> None:
        """Put up the frames that lead to the current version."""
        standing = set() if anew else set(self._board.topics())
        for encoded in self.modelling.weights.frames:
            if self.topics.frame(encoded.step, 0) not in standing:
                await self._board.put(self._chunks(encoded))

    def _chunks(self, encoded: Encoded) -> Iterator[Outgoing]:
        for chunk in cut(encoded.body, self._state.run, b"", self._room, encoded.digest):
            topic = self.topics.frame(encoded.step, chunk.index)
            yield Outgoing(topic, encode(chunk), retain=True)

    async def _put_manifest(self) -> None:
        await self._put(self.topics.manifest, self.modelling.manifest())

    async def _clear_old_frames(self) -> None:
        """Take down the chunks that are of no frame that stands: of older frames, or of another cutting."""
        frames = self.modelling.weights.frames
        counts = {each.step: chunk_count(len(each.body), self._room) for each in frames}
        places = ((topic, self.topics.parse_frame(topic)) for topic in self._board.topics())
        await self._board.clear(
            [topic for topic, place in places if place is not None and place[1] >= counts.get(place[0], 0)]
        )

    def _gone(self) -> Iterator[str]:
        """Yield the topics that an earlier life of this process may have left standing."""
        for step, nbytes in self.modelling.weights.gone:
            for index in range(chunk_count(nbytes, self._room)):
                yield self.topics.frame(step, index)

    async def _put(self, topic: str, message: Letter) -> None:
        await self._board.put([Outgoing(topic, encode(message), retain=True)])

    def _bytes_down(self, weights: Weights) -> int:
        """Return what one device that kept up downloads for this version."""
        return len(weights.frames[-1].body)

    def _beacon_message(self, *, alive: bool) -> Beacon:
        return Beacon(
            alive, self._state.run, self._state.epoch * CONNECTIONS + self._connections % CONNECTIONS
        )

    def _beacon(self, *, alive: bool) -> Outgoing:
        data = encode(self._beacon_message(alive=alive))
        return Outgoing(self.topics.beacon, data, retain=True)

    # --- workers ------------------------------------------------------------------------------------------------------

    async def _in(
        self, executor: ThreadPoolExecutor, work: Callable[..., Result], *arguments: object
    ) -> Result:
        return await asyncio.get_running_loop().run_in_executor(executor, work, *arguments)

    async def _insist(
        self, executor: ThreadPoolExecutor, work: Callable[..., Result], *arguments: object
    ) -> Result:
        """Do it, and while the disk refuses do it again: a full disk is a pause, not an end."""
        while True:
            try:
                return await self._in(executor, work, *arguments)
            except StoreError as error:
                log.critical("the federation pauses: %s", error)
                await asyncio.sleep(DISK_PAUSE_S)


async def _outcome(task: asyncio.Task[None]) -> None:
    """Wait for `task` without owning it, and pass its failure on."""
    await asyncio.wait({task})
    task.result()
