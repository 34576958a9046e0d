"""From MQTT messages to updates that lie whole and durable in the journal.

Bytes are held in memory only until the journal's next group commit; how many that may be is bounded, and a reader that
has to wait stops acknowledging, so the broker waits too.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final, TypeAlias

from fedmq.aggregator.anteroom import Anteroom
from fedmq.aggregator.parcel import Header, Parcel, Source, cutting, header_in
from fedmq.errors import MessageError, StoreError
from fedmq.protocol import coordination as co
from fedmq.protocol.messages import Birth, Chunk, Query, Update
from fedmq.protocol.spans import gaps
from fedmq.store.journal import Piece
from fedmq.store.trouble import DISK_PAUSE_S, Trouble
from fedmq.wire.chunks import OVERHEAD_BYTES, Assembly
from fedmq.wire.envelope import decode, skim
from fedmq.wire.topics import QueryTopic, StatusTopic

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Executor

    from fedmq.protocol.ledger import Key
    from fedmq.protocol.messages import Task
    from fedmq.store.journal import Journal, Spot
    from fedmq.transport.interface import Message
    from fedmq.wire.topics import Topics, UpdateTopic

    Dispatch: TypeAlias = Callable[[co.CoordinatorEvent], Sequence[co.CoordinatorEffect]]

log = logging.getLogger(__name__)

WAITING_BYTES: Final = 4 * 2**20
"""Bytes that may wait for the journal's next commit before the reader has to wait too."""


class Intake:
    """Takes updates in for one round at a time."""

    def __init__(
        self,
        topics: Topics,
        dispatch: Dispatch,
        ready: Callable[[Parcel], None],
        writer: Executor,
        buffer: int = 0,
    ) -> None:
        """Raise events through `dispatch`, give whole and durable updates to `ready`.

        The journal is written on `writer`, an executor of one thread. With `buffer` no round has a use for more updates
        than that.
        """
        self.topics = topics
        self._dispatch = dispatch
        self._ready = ready
        self._writer = writer
        self._task: Task | None = None
        self._journal: Journal | None = None
        self._parcels: dict[Key, Parcel] = {}
        self._waiting: list[tuple[Parcel, Piece]] = []
        self._waiting_bytes = 0
        self._asked: dict[Key, Query] = {}
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self.garbled = 0
        self._trouble = Trouble("updates wait, no receipts are given")
        self._anteroom = Anteroom(buffer)

    # --- rounds -------------------------------------------------------------------------------------------------------

    def open(self, task: Task, journal: Journal) -> None:
        """Take in updates for this task, into this journal."""
        self._task, self._journal, self._parcels = task, journal, {}
        self._anteroom.begin()
        self._take_waiting()

    def hold(self) -> None:
        """Let updates wait from now on, for the next `open` or `release`: the round is closing."""
        self._anteroom.shut()

    def release(self) -> None:
        """Take in what waits where no round has been opened for it: all of it will be answered."""
        if self._journal is None:
            self._anteroom.begin()
            self._take_waiting()

    def refused(self, device: str, round_: int) -> None:
        """Let another update have the place of this one, which was no good."""
        self._anteroom.gone((device, round_))
        self._take_waiting()

    def _take_waiting(self) -> None:
        while (message := self._anteroom.next()) is not None:
            self._take_in(*message)

    @property
    def journal(self) -> Journal | None:
        """The open round's journal."""
        return self._journal

    def close(self) -> Journal | None:
        """Take in no more; return the journal, whose fate is the caller's."""
        journal, self._journal, self._parcels = self._journal, None, {}
        return journal

    def replay(self, pieces: Sequence[tuple[Piece, Spot]]) -> None:
        """Take in what the journal of an interrupted round holds, as if it had just come and been committed.

        A device that lost its outbox in mid-round has two updates there, one that came back over another broker perhaps
        two cuttings of one; the later took the earlier one's place.
        """
        last = {(piece.device, piece.round): cutting(piece) for piece, _ in pieces}
        for piece, spot in pieces:
            counts = cutting(piece) == last[piece.device, piece.round]
            parcel = self._admit(piece) if counts else None
            if parcel is not None:
                if parcel.whole:
                    self._anteroom.whole((parcel.device, parcel.round))
                self._committed(parcel, piece, spot)

    # --- arrival ------------------------------------------------------------------------------------------------------

    async def take(self, messages: Sequence[Message]) -> None:
        """Take in a batch of MQTT messages; waits while too much is on its way to the disk."""
        for message in messages:
            if self._waiting_bytes > WAITING_BYTES:
                self._room.clear()
                await self._room.wait()
            self._take(message)

    def _take(self, message: Message) -> None:
        try:
            place = self.topics.parse_up(message.topic)
        except MessageError as error:
            log.debug("ignored: %s", error)
            return
        if isinstance(place, StatusTopic):
            self._status(place.device, message.payload)
        elif not message.retained and not self._anteroom.keep(place, message.payload):
            self._take_in(place, message.payload)

    def _status(self, device: str, payload: bytes) -> None:
        try:
            birth = decode(payload, Birth)
        except MessageError as error:
            log.debug("the status of %s is unreadable: %s", device, error)
            return
        if birth.alive:
            self._dispatch(co.Born(device, birth.session, birth.layout))
        else:
            self._dispatch(co.Died(device, birth.session))

    def _take_in(self, place: UpdateTopic | QueryTopic, payload: bytes) -> None:
        if isinstance(place, QueryTopic):
            self._query(place, payload)
        else:
            self._update(place, payload)

    def _update(self, place: UpdateTopic, payload: bytes) -> None:
        piece = Piece(place.device, place.chunk, payload, place.round)
        parcel = self._admit(piece)
        if parcel is not None:
            if parcel.whole:
                self._anteroom.whole((parcel.device, parcel.round))
            self._waiting.append((parcel, piece))
            self._waiting_bytes += len(payload)
            self._arrived.set()

    def _admit(self, piece: Piece) -> Parcel | None:
        """Return the parcel that this piece is a new part of, None where it is unwelcome, known or garbled."""
        number = piece.round or (self._task.round if self._task else 0)
        try:
            self._check_size(piece)
            if piece.chunk is None:
                return self._admit_whole(piece, number, skim(piece.payload, Update))
            return self._admit_chunk(piece, number, skim(piece.payload, Chunk))
        except MessageError as error:
            self.garbled += 1
            self._dispatch(co.Garbled(piece.device, len(piece.payload), str(error)))
            return None

    def _check_size(self, piece: Piece) -> None:
        most = self._most + (OVERHEAD_BYTES if piece.chunk is not None else 0)
        if self._task is not None and len(piece.payload) > most:
            raise MessageError(f"an update of {len(piece.payload)} bytes came; the task allows {self._most}")

    @property
    def _most(self) -> int:
        return self._task.update_bytes if self._task else 0

    def _admit_whole(self, piece: Piece, round_: int, update: Update) -> Parcel | None:
        parcel = self._offer(piece, round_, update.run, update.update, opening=True)
        if parcel is None or parcel.whole:
            return None
        if (
            parcel.assembly is not None
        ):  # it came in chunks, and comes now over another broker, with room for it
            parcel = self._begin(piece.device, round_, update.update)
        parcel.header = Header(update.model, update.layout)
        parcel.seen = True
        return parcel

    def _admit_chunk(self, piece: Piece, round_: int, chunk: Chunk) -> Parcel | None:
        if chunk.index != piece.chunk:
            raise MessageError(f"chunk {chunk.index} came under the topic of chunk {piece.chunk}")
        parcel = self._offer(piece, round_, chunk.run, chunk.stem, opening=chunk.index == 0)
        if parcel is None:
            return None
        if parcel.seen:
            raise MessageError("a chunk came under the name of an update that came whole")
        if parcel.assembly is None:
            parcel.assembly = Assembly.begin(chunk, self._most)
        if not parcel.assembly.take(chunk):
            return None
        if chunk.index == 0:
            parcel.header = header_in(chunk.data)
        return parcel

    def _offer(self, piece: Piece, round_: int, run: bytes, update: bytes, *, opening: bool) -> Parcel | None:
        effects = self._dispatch(co.Offered(piece.device, run, round_, update, len(piece.payload), opening))
        if self._journal is None or not any(isinstance(effect, co.Keep) for effect in effects):
            return None
        parcel = self._parcels.get((piece.device, round_))
        if parcel is None or parcel.update != update:
            parcel = self._begin(piece.device, round_, update)
        return parcel

    def _begin(self, device: str, round_: int, update: bytes) -> Parcel:
        """Begin a parcel in place of what may be there of the device for this round."""
        self._anteroom.gone((device, round_))
        parcel = self._parcels[device, round_] = Parcel(device, round_, update)
        return parcel

    # --- questions ----------------------------------------------------------------------------------------------------

    def _query(self, place: QueryTopic, payload: bytes) -> None:
        try:
            query = decode(payload, Query)
        except MessageError as error:
            self.garbled += 1
            log.debug("a question of %s is unreadable: %s", place.device, error)
            return
        offered = co.Offered(
            place.device, query.run, place.round, query.update, len(payload), question=query.question
        )
        if any(isinstance(effect, co.Search) for effect in self._dispatch(offered)) and query.count:
            self._asked[place.device, place.round] = query
            self._arrived.set()

    def _answer(self, device: str, round_: int, query: Query) -> None:
        """Say which chunks are missing, now that all is durable that came before the question."""
        parcel = self.parcel(device, round_, query.update)
        if parcel is not None and parcel.cut_otherwise(query.count):
            parcel = self._begin(device, round_, query.update)
        missing = gaps((), query.count) if parcel is None else parcel.missing(query.count)
        self._dispatch(co.Searched(device, round_, query.update, missing, query.question))

    # --- commits ------------------------------------------------------------------------------------------------------

    async def commit_forever(self) -> None:
        """Write what waits to the journal, group after group. While the disk refuses, hold everything and try again."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            group, self._waiting = self._waiting, []
            asked, self._asked = self._asked, {}
            written = await self._write(group) if group else []
            self._waiting_bytes -= sum(len(piece.payload) for _, piece in group)
            self._room.set()
            for parcel, piece, spot in written:
                self._committed(parcel, piece, spot)
            for key, query in asked.items():
                self._answer(*key, query)

    async def _write(self, group: Sequence[tuple[Parcel, Piece]]) -> list[tuple[Parcel, Piece, Spot]]:
        """Write the pieces and return them with their places; without those whose round closed while they waited.

        In the next round's journal they would come back after a restart before others that were counted in it.
        """
        loop = asyncio.get_running_loop()
        while (journal := self._journal) is not None:
            taken = [(parcel, piece) for parcel, piece in group if self._is_current(parcel)]
            begin = loop.time()
            try:
                pieces = [piece for _, piece in taken]
                spots = await loop.run_in_executor(self._writer, journal.append, pieces)
            except StoreError as error:
                self._trouble.refused(error)
                await asyncio.sleep(DISK_PAUSE_S)
            else:
                self._trouble.wrote(loop.time() - begin)
                return [(*pair, spot) for pair, spot in zip(taken, spots, strict=True)]
        return []

    def _committed(self, parcel: Parcel, piece: Piece, spot: Spot) -> None:
        parcel.spots[piece.chunk or 0] = spot
        if parcel.durable and self._is_current(parcel):
            self._ready(parcel)

    def _is_current(self, parcel: Parcel) -> bool:
        """Say whether the parcel is still the one that the open round has of its device for its round."""
        return self._parcels.get((parcel.device, parcel.round)) is parcel

    # --- reading back -------------------------------------------------------------------------------------------------

    def parcel(self, device: str, round_: int, update: bytes) -> Parcel | None:
        """Return the device's parcel for this round if this is its update."""
        parcel = self._parcels.get((device, round_))
        return parcel if parcel is not None and parcel.update == update else None

    def source(self, parcel: Parcel) -> Source | None:
        """Return where a durable parcel stands, for `Source.read` in a worker; None after its round was closed."""
        if self._journal is None:
            return None
        return Source(self._journal, parcel.places(), parcel.assembly)
