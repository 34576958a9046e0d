"""Long bodies in pieces: cut by the broker's packet limit, put together again within bounds."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

from fedmq.errors import MessageError, MisuseError
from fedmq.protocol.messages import Chunk
from fedmq.wire import limits

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Claims: TypeAlias = tuple[bytes, bytes, int, int, bytes]
"""What every chunk of one body says alike: run, stem, count, total and digest."""

OVERHEAD_BYTES: Final = 512
"""Room left in a packet for topic, MQTT header, properties and the chunk's own fields."""
MOST_CUTTINGS: Final = 4
"""Ways of cutting one frame that are collected side by side; more would only be a way to fill the memory."""


def chunk_room(packet_bytes: int, wanted: int = limits.CHUNK_BYTES) -> int:
    """Return how many bytes of a body fit into one packet, at most `wanted` (1 or more).

    Raises MisuseError for a packet limit below what the protocol needs.
    """
    if packet_bytes < limits.LEAST_PACKET_BYTES:
        raise MisuseError(
            f"the broker takes packets of {packet_bytes} bytes at most, fedmq needs {limits.LEAST_PACKET_BYTES}: raise "
            "its maximum packet size"
        )
    return min(wanted, min(packet_bytes, limits.PACKET_BYTES) - OVERHEAD_BYTES)


def chunk_count(nbytes: int, room: int) -> int:
    """Return into how many chunks of at most `room` bytes a body is cut."""
    return max(1, -(-nbytes // room))


def body_digest(body: bytes) -> bytes:
    """Return the digest that goes with each chunk of `body`."""
    return hashlib.sha256(body).digest()[: limits.DIGEST]


def cut(  # noqa: PLR0913 - what a chunk says
    body: bytes,
    run: bytes,
    stem: bytes,
    room: int,
    digest: bytes | None = None,
    *,
    indexes: Iterable[int] | None = None,
) -> Iterator[Chunk]:
    """Return the chunks of `body` one after the other, each with at most `room` bytes of it; or those with `indexes`.

    All but the last are of one length, and that follows from their number: two rooms that make as many chunks make the
    same. `digest` is the body's, for callers who know it already.

    Raises MisuseError when that would take more chunks, or a longer body, than the protocol allows.
    """
    count = -(-len(body) // room) if room > 0 else 0
    if not 1 <= count <= limits.CHUNKS or len(body) > limits.BODY_BYTES:
        raise MisuseError(f"a body of {len(body)} bytes cannot be cut into chunks of {room}")
    known = digest or body_digest(body)
    length = -(-len(body) // count)
    return (
        Chunk(run, stem, index, count, len(body), known, body[index * length : (index + 1) * length])
        for index in (range(count) if indexes is None else indexes)
    )


@dataclass(slots=True)
class Assembly:
    """Which chunks of one body have come; the bytes themselves may lie elsewhere (a journal).

    All chunks must agree on run, stem, count, total and digest with the first one, in any order, with any repeats.
    """

    run: bytes
    stem: bytes
    count: int
    total: int
    digest: bytes
    _have: set[int] = field(default_factory=set)
    _bytes: int = 0

    @classmethod
    def begin(cls, chunk: Chunk, most: int) -> Assembly:
        """Start with the first chunk that came (not taken in yet); `most` bounds the whole body in bytes.

        Raises MessageError where the chunk's claims break that bound or each other.
        """
        if not 1 <= chunk.total <= most:
            raise MessageError(f"a body of {chunk.total} bytes is announced; at most {most} are taken")
        if not 1 <= chunk.count <= chunk.total:
            raise MessageError(f"{chunk.count} chunks are announced for {chunk.total} bytes")
        return cls(chunk.run, chunk.stem, chunk.count, chunk.total, chunk.digest)

    @property
    def complete(self) -> bool:
        """Whether every chunk has come."""
        return len(self._have) == self.count

    def owns(self, chunk: Chunk) -> bool:
        """Say whether the chunk claims to be of this body."""
        return _claims(chunk) == (self.run, self.stem, self.count, self.total, self.digest)

    def missing(self) -> list[int]:
        """Return the indexes that have not come."""
        return [index for index in range(self.count) if index not in self._have]

    def take(self, chunk: Chunk) -> bool:
        """Note the chunk; False when it had come before. Raises MessageError when it does not belong here."""
        if not self.owns(chunk):
            raise MessageError("a chunk of another body came under this one's name")
        if not 0 <= chunk.index < self.count:
            raise MessageError(f"chunk {chunk.index} of {self.count}, counted from 0")
        if chunk.index in self._have:
            return False
        if self._bytes + len(chunk.data) > self.total:
            raise MessageError(f"the chunks hold more than the announced {self.total} bytes")
        self._have.add(chunk.index)
        self._bytes += len(chunk.data)
        return True


def check_body(body: bytes, total: int, digest: bytes) -> bytes:
    """Return `body` if it is what its chunks announced. Raises MessageError otherwise."""
    if len(body) != total or body_digest(body) != digest:
        raise MessageError(f"the chunks do not add up: {len(body)} bytes of {total}, or another digest")
    return body


class Collector:
    """Puts one body together in memory; it holds at most the announced bytes."""

    def __init__(self, most: int) -> None:
        """Take the body whose chunk comes first, at most `most` bytes."""
        self._most = most
        self._assembly: Assembly | None = None
        self._pieces: dict[int, bytes] = {}

    def take(self, chunk: Chunk) -> bytes | None:
        """Take one chunk; return the whole body once it is complete, and be empty again.

        Raises MessageError for a chunk that contradicts the others, and when all together are not the announced body.
        """
        if self._assembly is None:
            self._assembly = Assembly.begin(chunk, self._most)
        if self._assembly.take(chunk):
            self._pieces[chunk.index] = chunk.data
        return self._whole(self._assembly) if self._assembly.complete else None

    def missing(self) -> list[int] | None:
        """Return the indexes of the chunks that have not come; None where none has."""
        return None if self._assembly is None else self._assembly.missing()

    def _whole(self, assembly: Assembly) -> bytes:
        body = b"".join(self._pieces[index] for index in range(assembly.count))
        self._assembly, self._pieces = None, {}
        return check_body(body, assembly.total, assembly.digest)


class FrameCollector:
    """Puts a model frame together from retained chunks, among which there may be left-overs.

    Those of another run are passed over. Those from when the same frame was cut otherwise are collected beside the
    others, and what is whole first is the frame.
    """

    def __init__(self, run: bytes, most: int) -> None:
        """Take a frame of this run, at most `most` bytes."""
        self._run, self._most = run, most
        self._cuttings: dict[Claims, Collector] = {}

    def take(self, chunk: Chunk) -> bytes | None:
        """Take one chunk; return the whole body once it is complete. Raises MessageError where it is damaged."""
        if chunk.run != self._run or chunk.stem or chunk.total > self._most:
            return None
        claims = _claims(chunk)
        if claims not in self._cuttings and len(self._cuttings) == MOST_CUTTINGS:
            del self._cuttings[next(iter(self._cuttings))]
        return self._cuttings.setdefault(claims, Collector(self._most)).take(chunk)

    def missing(self) -> list[int] | None:
        """Return the indexes of the chunks that have not come; None where none has, or some from different cuttings."""
        if len(self._cuttings) != 1:
            return None
        (collector,) = self._cuttings.values()
        return collector.missing()


def _claims(chunk: Chunk) -> Claims:
    return chunk.run, chunk.stem, chunk.count, chunk.total, chunk.digest
