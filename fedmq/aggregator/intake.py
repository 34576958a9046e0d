"""From MQTT messages to updates that lie whole and durable in the journal.

Bytes are held in memory only until the journal's next group commit; how many that may be is bounded, and a reader that
has to wait stops acknowledging, so the broker waits too.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

from fedmq.errors import MessageError, StoreError
from fedmq.protocol import coordination as co
from fedmq.protocol.messages import Birth, Chunk, Update
from fedmq.store.journal import Piece
from fedmq.wire.chunks import OVERHEAD_BYTES, Assembly, check_body
from fedmq.wire.envelope import decode
from fedmq.wire.topics import StatusTopic, UpdateTopic

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Executor

    from fedmq.protocol.messages import Task
    from fedmq.store.journal import Journal, Spot
    from fedmq.transport.interface import Message
    from fedmq.wire.topics import Topics

    Dispatch: TypeAlias = Callable[[co.CoordinatorEvent], Sequence[co.CoordinatorEffect]]

log = logging.getLogger(__name__)

WAITING_BYTES: Final = 8 * 2**20
"""Bytes that may wait for the journal's next commit before the reader has to wait too."""
DISK_PAUSE_S: Final = 1.0
"""Wait before the journal is tried again after the disk refused."""


@dataclass(slots=True)
class Parcel:
    """One update on its way into the journal. `header` is set for one that came whole in a single message."""

    device: str
    update: bytes
    header: Update | None = None
    assembly: Assembly | None = None
    seen: bool = False
    spots: dict[int, Spot] = field(default_factory=dict)

    @property
    def durable(self) -> bool:
        """Whether every piece is committed."""
        return len(self.spots) == (self.assembly.count if self.assembly else 1)

    def places(self) -> list[Spot]:
        """Return the pieces' places in the order of the body."""
        return [self.spots[index] for index in sorted(self.spots)]


class Intake:
    """Takes updates in for one round at a time."""

    def __init__(
        self, topics: Topics, dispatch: Dispatch, ready: Callable[[Parcel], None], writer: Executor
    ) -> None:
        """Raise events through `dispatch`, give whole and durable updates to `ready`.

        The journal is written on `writer`, an executor of one thread.
        """
        self.topics = topics
        self._dispatch = dispatch
        self._ready = ready
        self._writer = writer
        self._task: Task | None = None
        self._journal: Journal | None = None
        self._parcels: dict[str, Parcel] = {}
        self._waiting: list[tuple[Parcel, Piece]] = []
        self._waiting_bytes = 0
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self.garbled = 0

    # --- rounds -------------------------------------------------------------------------------------------------------

    def open(self, task: Task, journal: Journal) -> None:
        """Take in updates for this task, into this journal."""
        self._task, self._journal, self._parcels = task, journal, {}

    def close(self) -> Journal | None:
        """Take in no more; return the journal, whose fate is the caller's."""
        journal, self._journal, self._parcels = self._journal, None, {}
        return journal

    def replay(self, pieces: Sequence[tuple[Piece, Spot]]) -> None:
        """Take in what the journal of an interrupted round holds, as if it had just come and been committed.

        A device that lost its outbox in mid-round has two updates there; the later one took the earlier one's place.
        """
        last = {piece.device: _update_id(piece) for piece, _ in pieces}
        for piece, spot in pieces:
            parcel = self._admit(piece) if _update_id(piece) == last[piece.device] else None
            if parcel is not None:
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
        elif not message.retained:
            self._update(place, message.payload)

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

    def _update(self, place: UpdateTopic, payload: bytes) -> None:
        piece = Piece(place.device, place.chunk, payload)
        parcel = self._admit(piece, place.round)
        if parcel is not None:
            self._waiting.append((parcel, piece))
            self._waiting_bytes += len(payload)
            self._arrived.set()

    def _admit(self, piece: Piece, round_: int | None = None) -> Parcel | None:
        """Return the parcel that this piece is a new part of, None where it is unwelcome, known or garbled."""
        number = round_ if round_ is not None else (self._task.round if self._task else 0)
        try:
            self._check_size(piece)
            if piece.chunk is None:
                return self._admit_whole(piece, number, decode(piece.payload, Update))
            return self._admit_chunk(piece, number, decode(piece.payload, Chunk))
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
        if parcel is None or parcel.seen:
            return None
        if parcel.assembly is not None:
            raise MessageError("a whole update came under the name of one that comes in chunks")
        parcel.header = Update(update.run, update.update, update.model, update.layout, update.facts, {})
        parcel.seen = True
        return parcel

    def _admit_chunk(self, piece: Piece, round_: int, chunk: Chunk) -> Parcel | None:
        if chunk.index != piece.chunk:
            raise MessageError(f"chunk {chunk.index} came under the topic of chunk {piece.chunk}")
        parcel = self._offer(piece, round_, chunk.run, chunk.stem, opening=chunk.index == 0)
        if parcel is None:
            return None
        if parcel.header is not None:
            raise MessageError("a chunk came under the name of an update that came whole")
        if parcel.assembly is None:
            parcel.assembly = Assembly.begin(chunk, self._most)
        return parcel if parcel.assembly.take(chunk) else None

    def _offer(self, piece: Piece, round_: int, run: bytes, update: bytes, *, opening: bool) -> Parcel | None:
        effects = self._dispatch(co.Offered(piece.device, run, round_, update, len(piece.payload), opening))
        if self._journal is None or not any(isinstance(effect, co.Keep) for effect in effects):
            return None
        parcel = self._parcels.get(piece.device)
        if parcel is None or parcel.update != update:
            parcel = self._parcels[piece.device] = Parcel(piece.device, update)
        return parcel

    # --- commits ------------------------------------------------------------------------------------------------------

    async def commit_forever(self) -> None:
        """Write what waits to the journal, group after group. While the disk refuses, hold everything and try again."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            group, self._waiting = self._waiting, []
            spots = await self._write([piece for _, piece in group])
            self._waiting_bytes -= sum(len(piece.payload) for _, piece in group)
            self._room.set()
            for (parcel, piece), spot in zip(group, spots, strict=False):
                self._committed(parcel, piece, spot)

    async def _write(self, pieces: list[Piece]) -> list[Spot]:
        """Return the pieces' places; none where the round closed while they waited."""
        loop = asyncio.get_running_loop()
        while (journal := self._journal) is not None:
            try:
                return await loop.run_in_executor(self._writer, journal.append, pieces)
            except StoreError as error:
                log.critical("updates wait, no receipts are given: %s", error)
                await asyncio.sleep(DISK_PAUSE_S)
        return []

    def _committed(self, parcel: Parcel, piece: Piece, spot: Spot) -> None:
        parcel.spots[piece.chunk or 0] = spot
        if parcel.durable and self._parcels.get(parcel.device) is parcel:
            self._ready(parcel)

    # --- reading back -------------------------------------------------------------------------------------------------

    def parcel(self, device: str, update: bytes) -> Parcel | None:
        """Return the device's parcel if this is its update."""
        parcel = self._parcels.get(device)
        return parcel if parcel is not None and parcel.update == update else None

    def source(self, parcel: Parcel) -> Source | None:
        """Return where a durable parcel stands, for `Source.read` in a worker; None after its round was closed."""
        if self._journal is None:
            return None
        return Source(self._journal, parcel.places(), parcel.assembly)


def _update_id(piece: Piece) -> bytes:
    """Return the id of the update that a journaled piece belongs to."""
    if piece.chunk is None:
        return decode(piece.payload, Update).update
    return decode(piece.payload, Chunk).stem


@dataclass(frozen=True, slots=True)
class Source:
    """A complete update in the journal."""

    journal: Journal
    spots: Sequence[Spot]
    assembly: Assembly | None

    def read(self) -> Update:
        """Return the update. Blocking. Raises MessageError when the body is not what was announced, StoreError."""
        if self.assembly is None:
            return decode(self.journal.read(self.spots[0]).payload, Update)
        chunks = (decode(self.journal.read(spot).payload, Chunk).data for spot in self.spots)
        return decode(check_body(b"".join(chunks), self.assembly.total, self.assembly.digest), Update)
