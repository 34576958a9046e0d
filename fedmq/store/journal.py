"""The journal of one open round: every admitted piece of an update, durable before anyone hears of it.

Two files take turns, one per round, each only ever appended to: the magic, the round's task, then one record per piece,
in the very bytes in which it came over MQTT. Reading the file again is therefore the same as receiving it again, and an
update is absorbed from here, so that any number of devices costs the memory of one update.

A record is ``length, CRC-32`` (little-endian, four bytes each) and its content: for a piece, a msgpack array of device
and chunk number, and the payload behind it. A torn or damaged tail is cut off when the file is opened again.
"""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass
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
"""Bytes within which a piece's label ends: a device name of 64 characters, and a number."""
_MOST_BUFFERS: Final = 512  # well under IOV_MAX, which is 1024 on Linux


@dataclass(frozen=True, slots=True)
class Piece:
    """One admitted PUBLISH: who sent it, the chunk level of its topic (None for a whole update), its payload."""

    device: str
    chunk: int | None
    payload: bytes


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a record stands in the file."""

    start: int
    length: int


class Journal:
    """One round's file. `append` from one thread; `read` from any thread, at any time after."""

    def __init__(self, path: Path, handle: int, end: int, opening: bytes) -> None:
        """Use `create` or `resume`."""
        self.path = path
        self.opening = opening
        self._handle = handle
        self._end = end

    @classmethod
    def create(cls, path: Path, opening: bytes) -> Journal:
        """Begin a journal whose first record is `opening`, the encoded task; durable on return. Raises StoreError.

        A file that stands there already is written over: its round is closed.
        """
        known = path.exists()
        with disk("create the journal", path):
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            journal = cls(path, handle, 0, opening)
            journal._write([MAGIC, *_record(opening)])
            if not known:
                sync_folder(path.parent)
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
            os.lseek(handle, end, os.SEEK_SET)
        journal = cls(path, handle, end, _pread(handle, spots[0]))
        return journal, [(journal.read(spot), spot) for spot in spots[1:]]

    def append(self, pieces: Sequence[Piece]) -> list[Spot]:
        """Write the pieces and return their places; all are durable on return. Raises StoreError: none counts then."""
        spots, buffers, end = [], [], self._end
        for piece in pieces:
            record = _record(msgpack.packb([piece.device, piece.chunk]), piece.payload)
            length = sum(map(len, record))
            spots.append(Spot(end + _HEAD.size, length - _HEAD.size))
            end += length
            buffers += record
        with disk("write the journal", self.path):
            self._write(buffers)
        return spots

    def read(self, spot: Spot) -> Piece:
        """Return the piece that stands at `spot`. Raises StoreError."""
        with disk("read the journal", self.path):
            return _piece(_pread(self._handle, spot))

    def close(self) -> None:
        """Close the file; it stays for a later `resume`."""
        handle, self._handle = self._handle, -1  # a number that never names another file
        if handle >= 0:
            os.close(handle)

    def discard(self) -> None:
        """Empty and close the file: its round's model is durable, or the round was abandoned.

        Nothing waits for the disk here. A power cut may bring the content back, but by then the checkpoint says that
        its round is closed.
        """
        if self._handle >= 0:
            os.ftruncate(self._handle, 0)
        self.close()

    def _write(self, buffers: list[bytes]) -> None:
        """Append and sync; on failure cut back to the last durable end, so that no half record stays."""
        try:
            for first in range(0, len(buffers), _MOST_BUFFERS):
                _writev(self._handle, buffers[first : first + _MOST_BUFFERS])
            os.fdatasync(self._handle)
        except OSError:
            os.ftruncate(self._handle, self._end)
            os.lseek(self._handle, self._end, os.SEEK_SET)
            raise
        self._end += sum(map(len, buffers))


def read_journal(path: Path) -> tuple[bytes, list[Piece]]:
    """Return the opening and the pieces of a journal without changing it. Raises StoreError."""
    with disk("read the journal", path):
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            contents = [_pread(handle, spot) for spot in _scan(handle)]
        finally:
            os.close(handle)
    if not contents:
        raise StoreError(f"{path} is no journal, or its beginning is damaged")
    return contents[0], [_piece(content) for content in contents[1:]]


def _record(*parts: bytes) -> list[bytes]:
    """Return a record as buffers to write one after the other: a payload of megabytes is not copied into it."""
    crc = 0
    for part in parts:
        crc = zlib.crc32(part, crc)
    return [_HEAD.pack(sum(map(len, parts)), crc), *parts]


def _piece(content: bytes) -> Piece:
    """Read a piece's record: a msgpack array of device and chunk, and behind it the payload."""
    unpacker = msgpack.Unpacker(max_buffer_size=0)
    unpacker.feed(memoryview(content)[:_MOST_LABEL])
    device, chunk = unpacker.unpack()
    return Piece(device, chunk, content[unpacker.tell() :])


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
    """Yield the places of all sound records, up to the first that is not."""
    size = os.fstat(handle).st_size
    at = len(MAGIC)
    if os.pread(handle, at, 0) != MAGIC:
        return
    while at + _HEAD.size <= size:
        length, crc = _HEAD.unpack(os.pread(handle, _HEAD.size, at))
        spot = Spot(at + _HEAD.size, length)
        if length > _MOST_RECORD or spot.start + length > size or zlib.crc32(_pread(handle, spot)) != crc:
            return
        yield spot
        at = spot.start + length
