"""One round's updates put aside whole, each with its claim, until it is known how they fall into groups."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from operator import attrgetter
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from fedmq.errors import DecodeError, Refused
from fedmq.rules.claim import Claim
from fedmq.rules.robust.spool import Spool
from fedmq.rules.robust.view import View

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fedmq.vectors import Layout, Vector

MOST_ASIDE: Final = 4096
"""No more updates are put aside: similarities between all pairs are then 134 MB."""


@dataclass(frozen=True, slots=True, eq=False)
class Update:
    """One update: what its device claims, where its numbers are, and the digest of both."""

    digest: bytes
    claim: Claim
    spool: Spool
    place: int

    def read(self, size: int) -> Vector:
        """Return its numbers."""
        numbers = np.empty(size, np.float32)
        self.spool.read(self.place, slice(0, size), numbers)
        return numbers


@dataclass(slots=True, eq=False)
class Aside:
    """Updates of one layout, in a file without a name; merged ones may be in several."""

    layout: Layout
    spool: Spool
    updates: list[Update] = field(default_factory=list)

    @classmethod
    def empty(cls, layout: Layout, folder: Path | None) -> Aside:
        """Return one without updates; its file is made in `folder` with the first."""
        return cls(layout, Spool(layout.size, folder))

    def require_room(self) -> None:
        """Raise Refused where it is full."""
        if len(self.updates) >= MOST_ASIDE:
            raise Refused(
                f"round that groups devices has room for {MOST_ASIDE} updates: let fewer devices take part"
            )

    def append(self, delta: Vector, claim: Claim) -> None:
        """Take one update. Raises StoreError where the disk will not."""
        digest = hashlib.sha256(_claim_bytes(claim) + delta.astype("<f4", copy=False).tobytes()).digest()
        self.updates.append(Update(digest, claim, self.spool, self.spool.append(delta)))

    def joined(self, other: Aside, folder: Path | None = None) -> Aside:
        """Return the updates of both, which stay in the files that they are in."""
        both = Aside.empty(self.layout, folder)
        both.updates += self.updates + other.updates
        return both

    def ordered(self) -> Sequence[Update]:
        """Return the updates in the order of their digests, whatever order they came in."""
        return sorted(self.updates, key=attrgetter("digest"))

    def products(self) -> NDArray[np.float64]:
        """Return the inner products of the trainable parts of all pairs, in the order of `ordered`."""
        places = [(update.spool, update.place) for update in self.ordered()]
        return View(self.layout, np.ones(len(places)), places, int).gram()

    def dump(self) -> list[bytes]:
        """Return claim (JSON) and numbers (float32, little-endian) of each update, one after another."""
        pairs = ((_claim_bytes(update.claim), update.read(self.layout.size)) for update in self.ordered())
        return [body for claim, numbers in pairs for body in (claim, numbers.astype("<f4").tobytes())]

    @classmethod
    def load(cls, bodies: Sequence[bytes], layout: Layout, folder: Path | None) -> Aside:
        """Return what `dump` gave; raise DecodeError where it cannot have been that."""
        found = cls.empty(layout, folder)
        for claim, numbers in zip(bodies[::2], bodies[1::2], strict=False):
            if len(numbers) != 4 * layout.size:
                raise DecodeError(
                    f"update put aside takes {len(numbers)} bytes, {4 * layout.size} are wanted: is it cut?"
                )
            found.append(np.frombuffer(numbers, "<f4").astype(np.float32), _claim(claim))
        return found


def _claim_bytes(claim: Claim) -> bytes:
    metrics = dict(sorted(claim.metrics.items()))
    return json.dumps([claim.examples, claim.steps, metrics, claim.staleness]).encode()


def _claim(data: bytes) -> Claim:
    try:
        examples, steps, metrics, staleness = json.loads(data)
        figures = {str(name): float(figure) for name, figure in metrics.items()}
        return Claim(int(examples), int(steps), figures, int(staleness))
    except (ValueError, TypeError, AttributeError):
        raise DecodeError("update put aside has a claim that cannot be read: was it damaged?") from None
