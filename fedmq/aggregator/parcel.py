"""One update on its way into the journal: what of it has come, what is durable, and how it is read back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fedmq.protocol.messages import Chunk, Update
from fedmq.protocol.spans import Spans, gaps
from fedmq.wire.chunks import Assembly, check_body
from fedmq.wire.envelope import decode, front, skim

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fedmq.store.journal import Journal, Piece, Spot


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

    def missing(self, count: int) -> Spans:
        """Return which chunks of `count` are not durable yet; none where all have come and wait for the disk."""
        return () if self.whole else gaps(self.spots, count)

    def cut_otherwise(self, count: int) -> bool:
        """Tell whether what has come is of no use to a device that now cuts the update into `count` chunks."""
        return not self.whole and self.assembly is not None and self.assembly.count != count

    def places(self) -> list[Spot]:
        """Return the pieces' places in the order of the body."""
        return [self.spots[index] for index in sorted(self.spots)]


def header_in(data: bytes) -> Header | None:
    """Read the header of the update that `data` begins; None where that cannot be done."""
    fields = front(data, Update, 4)
    return None if fields is None else Header(*fields[2:])


def cutting(piece: Piece) -> tuple[bytes, int]:
    """Return the id of the update that a journaled piece belongs to, and into how many chunks that was cut; 0: none."""
    if piece.chunk is None:
        return skim(piece.payload, Update).update, 0
    chunk = skim(piece.payload, Chunk)
    return chunk.stem, chunk.count


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
