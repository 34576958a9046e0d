"""From MQTT messages to updates that lie whole and durable in the journal.

Bytes are held in memory only until the journal's next group commit; how many that may be is bounded, and a reader that
has to wait stops acknowledging, so the broker waits too.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

from fedmq.aggregator.anteroom import Anteroom
from fedmq.errors import MessageError, StoreError
from fedmq.protocol import coordination as co
from fedmq.protocol.messages import Birth, Chunk, Update
from fedmq.store.journal import Piece
from fedmq.wire.chunks import OVERHEAD_BYTES, Assembly, check_body
from fedmq.wire.envelope import decode, front, skim
from fedmq.wire.topics import StatusTopic, UpdateTopic

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Executor

    from fedmq.protocol.ledger import Key
    from fedmq.protocol.messages import Task
    from fedmq.store.journal import Journal, Spot
    from fedmq.transport.interface import Message
    from fedmq.wire.topics import Topics

    Dispatch: TypeAlias = Callable[[co.CoordinatorEvent], Sequence[co.CoordinatorEffect]]

log = logging.getLogger(__name__)

WAITING_BYTES: Final = 4 * 2**20
"""Bytes that may wait for the journal's next commit before the reader has to wait too."""
DISK_PAUSE_S: Final = 1.0
"""Wait before the journal is tried again after the disk refused."""


@dataclass(frozen=True, slots=True)
class Header:
    """What an update says first, and what decides whether it is wanted: the base model and its layout."""

    model: int
    layout: bytes


@dataclass(slots=True)
class Parcel:
    """One update on its way into the journal; `seen` once it came whole in a single message.

    `header` is unknown where it comes in chunks and the first one is too short to hold it, or makes no sense.
    """

    device: str
    round: int
    update: bytes
    header: Header | None = None
    assembly: Assembly | None = None
    seen: bool = False
    spots: dict[int, Spot] = field(default_factory=dict)

    @property
    def durable(self) -> bool:
        """Whether every piece is committed."""
        return len(self.spots) == (self.assembly.count if self.assembly else 1)

    @property
    def whole(self) -> bool:
        """Whether every piece has come."""
        return self.seen or (self.assembly is not None and self.assembly.complete)

    def places(self) -> list[Spot]:
        """Return the pieces' places in the order of the body."""
        return [self.spots[index] for index in sorted(self.spots)]


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
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self.garbled = 0
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

        A device that lost its outbox in mid-round has two updates there; the later one took the earlier one's place.
        """
        last = {(piece.device, piece.round): _update_id(piece) for piece, _ in pieces}
        for piece, spot in pieces:
            counts = _update_id(piece) == last[piece.device, piece.round]
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
        if not self._anteroom.keep(place, payload):
            self._take_in(place, payload)

    def _take_in(self, place: UpdateTopic, payload: bytes) -> None:
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
        if parcel is None or parcel.seen:
            return None
        if parcel.assembly is not None:
            raise MessageError("a whole update came under the name of one that comes in chunks")
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
            parcel.header = _header(chunk.data)
        return parcel

    def _offer(self, piece: Piece, round_: int, run: bytes, update: bytes, *, opening: bool) -> Parcel | None:
        effects = self._dispatch(co.Offered(piece.device, run, round_, update, len(piece.payload), opening))
        if self._journal is None or not any(isinstance(effect, co.Keep) for effect in effects):
            return None
        parcel = self._parcels.get((piece.device, round_))
        if parcel is None or parcel.update != update:
            self._anteroom.gone((piece.device, round_))
            parcel = self._parcels[piece.device, round_] = Parcel(piece.device, round_, update)
        return parcel

    # --- commits ------------------------------------------------------------------------------------------------------

    async def commit_forever(self) -> None:
        """Write what waits to the journal, group after group. While the disk refuses, hold everything and try again."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            group, self._waiting = self._waiting, []
            written = await self._write(group)
            self._waiting_bytes -= sum(len(piece.payload) for _, piece in group)
            self._room.set()
            for parcel, piece, spot in written:
                self._committed(parcel, piece, spot)

    async def _write(self, group: Sequence[tuple[Parcel, Piece]]) -> list[tuple[Parcel, Piece, Spot]]:
        """Write the pieces and return them with their places; without those whose round closed while they waited.

        In the next round's journal they would come back after a restart before others that were counted in it.
        """
        loop = asyncio.get_running_loop()
        while (journal := self._journal) is not None:
            taken = [(parcel, piece) for parcel, piece in group if self._is_current(parcel)]
            try:
                pieces = [piece for _, piece in taken]
                spots = await loop.run_in_executor(self._writer, journal.append, pieces)
                return [(*pair, spot) for pair, spot in zip(taken, spots, strict=True)]
            except StoreError as error:
                log.critical("updates wait, no receipts are given: %s", error)
                await asyncio.sleep(DISK_PAUSE_S)
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


def _header(data: bytes) -> Header | None:
    """Read the header of the update that `data` begins; None where that cannot be done."""
    fields = front(data, Update, 4)
    return None if fields is None else Header(*fields[2:])


def _update_id(piece: Piece) -> bytes:
    """Return the id of the update that a journaled piece belongs to."""
    if piece.chunk is None:
        return skim(piece.payload, Update).update
    return skim(piece.payload, Chunk).stem


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
        chunks = (skim(self.journal.read(spot).payload, Chunk).data for spot in self.spots)
        return decode(check_body(b"".join(chunks), self.assembly.total, self.assembly.digest), Update)
