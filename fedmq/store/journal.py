"""The journal of one open round: every admitted piece of an update, durable before anyone hears of it.

Two files take turns, one per round, each only ever appended to: the magic, the round's task, then one record per piece,
in the very bytes in which it came over MQTT. Reading the file again is therefore the same as receiving it again, and an
update is absorbed from here, so that any number of devices costs the memory of a few updates: a few megabytes of what
was just written are at hand, everything else is read back.

A record is ``length, CRC-32`` (little-endian, four bytes each) and its content: for a piece, a msgpack array of device,
chunk number and round, and the payload behind it. A torn or damaged tail is cut off when the file is opened again.
"""

from __future__ import annotations

import os
import struct
import threading
import zlib
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import TYPE_CHECKING, Final

import msgpack

from fedmq.errors import StoreError
from fedmq.store.files import disk, sync_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

MAGIC: Final = b"fedmq-journal-1\n"
_HEAD: Final = struct.Struct("<II")
_MOST_RECORD: Final = 2**31 - 1
_MOST_LABEL: Final = 128
"""Bytes within which a piece's label ends: a device name of 64 characters, and two numbers."""
_MOST_BUFFERS: Final = 512  # well under IOV_MAX, which is 1024 on Linux

RECENT_BYTES: Final = 4 * 2**20
"""Bytes of pieces just written that stay in memory: they are read once, mostly within milliseconds."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One admitted PUBLISH: who sent it, the chunk level of its topic (None for a whole update), its payload.

    `round` is that of its topic; 0 stands for the journal's own.
    """

    device: str
    chunk: int | None
    payload: bytes
    round: int = 0


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a record stands in the file."""

    start: int
    length: int


@dataclass(slots=True)
class Recent:
    """Pieces just written, until they are read; `RECENT_BYTES` at most. For any thread.

    When it is full, newer ones are left out: pieces are read in the order in which they came, so the oldest go first.
    """

    _pieces: dict[Spot, Piece] = field(default_factory=dict)
    _bytes: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def keep(self, spots: Sequence[Spot], pieces: Sequence[Piece]) -> None:
        """Remember what stands at each spot, as far as there is room."""
        with self._lock:
            for spot, piece in zip(spots, pieces, strict=True):
                if self._bytes + len(piece.payload) <= RECENT_BYTES:
                    self._pieces[spot] = piece
                    self._bytes += len(piece.payload)

    def take(self, spot: Spot) -> Piece | None:
        """Return what stands at the spot and forget it; None where it is not known."""
        with self._lock:
            piece = self._pieces.pop(spot, None)
            self._bytes -= len(piece.payload) if piece is not None else 0
        return piece

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._pieces.clear()
            self._bytes = 0


class Journal:
    """One round's file. `append` from one thread; `read` from any thread, at any time after."""

    def __init__(self, path: Path, handle: int, end: int, opening: bytes) -> None:
        """Use `create` or `resume`."""
        self.path = path
        self.opening = opening
        self._handle = handle
        self._end = end
        self._recent = Recent()

    @classmethod
    def create(cls, path: Path, opening: bytes) -> Journal:
        """Begin a journal whose first record is `opening`, the encoded task; durable on return. Raises StoreError.

        A file that stands there already is written over: its round is closed.
        """
        known = path.exists()
        with disk("create the journal", path):
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            journal = cls(path, handle, 0, opening)
            try:
                journal._write([MAGIC, *_record(opening)])
                if not known:
                    sync_folder(path.parent)
            except OSError:
                journal.close()
                if not known:
                    path.unlink()  # else the next try would take its name for durable
                raise
        return journal

    @classmethod
    def resume(cls, path: Path) -> tuple[Journal, list[tuple[Piece, Spot]]] | None:
        """Open the journal of an interrupted round and return what it holds, in order; None where there is none.

        Raises StoreError.
        """
        if not path.exists():
            return None
        with disk("read the journal", path):
            handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            spots = list(_scan(handle))
            if not spots:
                os.close(handle)
                return None
            end = spots[-1].start + spots[-1].length
            os.ftruncate(handle, end)
        journal = cls(path, handle, end, _pread(handle, spots[0]))
        return journal, [(journal.read(spot), spot) for spot in spots[1:]]

    def append(self, pieces: Sequence[Piece]) -> list[Spot]:
        """Write the pieces and return their places; all are durable on return. Raises StoreError: none counts then."""
        spots, buffers, end = [], [], self._end
        for piece in pieces:
            record = _record(msgpack.packb([piece.device, piece.chunk, piece.round]), piece.payload)
            length = sum(map(len, record))
            spots.append(Spot(end + _HEAD.size, length - _HEAD.size))
            end += length
            buffers += record
        with disk("write the journal", self.path):
            self._write(buffers)
        self._recent.keep(spots, pieces)  # only now: what is not durable must not be found
        return spots

    def read(self, spot: Spot) -> Piece:
        """Return the piece that stands at `spot`, from memory where it was written just now. Raises StoreError."""
        recent = self._recent.take(spot)
        if recent is not None:
            return recent
        with disk("read the journal", self.path):
            return _piece(_pread(self._handle, spot))

    def places(self) -> Iterator[tuple[Piece, Spot]]:
        """Yield every piece that is in the file, with its place, one at a time. Raises StoreError."""
        with disk("read the journal", self.path):
            yield from ((self.read(spot), spot) for spot in islice(_scan(self._handle), 1, None))

    def close(self) -> None:
        """Close the file; it stays for a later `resume`."""
        self._recent.clear()
        handle, self._handle = self._handle, -1  # a number that never names another file
        if handle >= 0:
            os.close(handle)

    def discard(self) -> None:
        """Empty and close the file: its round's model is durable, or the round was abandoned.

        Nothing waits for the disk here. A power cut may bring the content back, but by then the checkpoint says that
        its round is closed. Raises StoreError; the file is as it was then, and open.
        """
        if self._handle >= 0:
            with disk("empty the journal", self.path):
                os.ftruncate(self._handle, 0)
        self.close()

    def _write(self, buffers: list[bytes]) -> None:
        """Append and sync; on failure cut back to the last durable end, so that no half record stays.

        Where even that fails, the next try writes over it.
        """
        try:
            os.lseek(self._handle, self._end, os.SEEK_SET)
            for first in range(0, len(buffers), _MOST_BUFFERS):
                _writev(self._handle, buffers[first : first + _MOST_BUFFERS])
            os.fdatasync(self._handle)
        except OSError:
            os.ftruncate(self._handle, self._end)
            raise
        self._end += sum(map(len, buffers))


def journal_opening(path: Path) -> bytes:
    """Return the opening of a journal without changing it. Raises StoreError."""
    return next(_contents(path))


def journal_pieces(path: Path) -> Iterator[Piece]:
    """Yield the pieces of a journal one by one, however large it is, without changing it. Raises StoreError."""
    return map(_piece, islice(_contents(path), 1, None))


def _contents(path: Path) -> Iterator[bytes]:
    with disk("read the journal", path):
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        spots = _scan(handle)
        first = next(spots, None)
        if first is None:
            raise StoreError(f"{path} is no journal, or its beginning is damaged")
        for spot in chain([first], spots):
            with disk("read the journal", path):
                content = _pread(handle, spot)
            yield content
    finally:
        os.close(handle)


def read_journal(path: Path) -> tuple[bytes, list[Piece]]:
    """Return the opening and the pieces of a journal without changing it. Raises StoreError."""
    return journal_opening(path), list(journal_pieces(path))


def _record(*parts: bytes) -> list[bytes]:
    """Return a record as buffers to write one after the other: a payload of megabytes is not copied into it."""
    crc = 0
    for part in parts:
        crc = zlib.crc32(part, crc)
    return [_HEAD.pack(sum(map(len, parts)), crc), *parts]


def _piece(content: bytes) -> Piece:
    """Read a piece's record: a msgpack array of device, chunk and round, and behind it the payload.

    Journals of fedmq 0.1 have no round there.
    """
    unpacker = msgpack.Unpacker(max_buffer_size=0)
    unpacker.feed(memoryview(content)[:_MOST_LABEL])
    device, chunk, *round_ = unpacker.unpack()
    return Piece(device, chunk, content[unpacker.tell() :], *round_)


def _writev(handle: int, buffers: list[bytes]) -> None:
    """Write all of `buffers`; the system may take less at a time than it was given."""
    views = [memoryview(buffer) for buffer in buffers]
    while views:
        done = os.writev(handle, views)
        while views and done >= len(views[0]):
            done -= len(views.pop(0))
        if done:
            views[0] = views[0][done:]


def _pread(handle: int, spot: Spot) -> bytes:
    """Read a whole record; one call to the system may give less, above 2 GiB for one."""
    parts, at, end = [], spot.start, spot.start + spot.length
    while at < end:
        part = os.pread(handle, end - at, at)
        if not part:
            raise OSError(0, "the file ends early")
        parts.append(part)
        at += len(part)
    return b"".join(parts)


def _scan(handle: int) -> Iterator[Spot]:
    """Yield the places of all sound records, up to the first that is not.

    No record is empty: where the power was cut, zeros may stand, and would be sound ones of no length.
    """
    size = os.fstat(handle).st_size
    at = len(MAGIC)
    if os.pread(handle, at, 0) != MAGIC:
        return
    while at + _HEAD.size <= size:
        length, crc = _HEAD.unpack(os.pread(handle, _HEAD.size, at))
        spot = Spot(at + _HEAD.size, length)
        if (
            not 0 < length <= _MOST_RECORD
            or spot.start + length > size
            or zlib.crc32(_pread(handle, spot)) != crc
        ):
            return
        yield spot
        at = spot.start + length
