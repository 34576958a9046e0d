"""Error feedback on the device: what codecs lost of its updates, and updates that did not count, ride with the next.

The residual is a sum. An update takes all of it along (`Whole`), and leaves behind what its codec lost; where the
update turns out not to have been counted, what it had delivered is a piece of the residual again. So whatever a link
does, and as long as nothing ages, everything that was ever trained is in the model or in the residual.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from itertools import repeat
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from fedmq.vectors import Vector

log = logging.getLogger(__name__)

LARGEST: Final = 1e30
"""A sum with a number beyond this is given up: codecs square and add, and a residual that overflows would for ever."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of the residual, as it was in `round`; `update` is what brought it back, empty for what codecs lost."""

    round: int
    vector: Vector
    update: bytes = b""

    def aged(self, round_: int, keep: float) -> Vector:
        """Return what is left of it in a later round; the product is rounded alike on every machine."""
        share = math.prod(repeat(keep, max(0, round_ - self.round)))
        return self.vector if share == 1.0 else np.float32(share) * self.vector


@dataclass(frozen=True, slots=True)
class Residual:
    """What an update does to the residual.

    left: all of it while the update is on its way. back: what comes back where the update is not counted. taken: the
    updates that had come back, and are in this one.
    """

    left: Vector
    back: Vector
    taken: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Whole:
    """A delta with the residual in it; where `mask` is False, the residual stays as it is.

    `aged` is the residual that there was, None where there was none.
    """

    vector: Vector
    aged: Vector | None
    mask: NDArray[np.bool_] | None
    taken: tuple[bytes, ...]

    @classmethod
    def of(
        cls, delta: Vector, pieces: Iterable[Piece], round_: int, keep: float, mask: NDArray[np.bool_] | None
    ) -> Whole:
        """Return `delta` of `round_` plus all `pieces`, each aged by `keep` to the power of the rounds since.

        Where `delta` itself is among what codecs lost (the device has trained this round before, and was restarted), it
        is not added again. Pieces of another length are of another model, and are left out; so is a residual that makes
        the sum overflow.
        """
        fitting = [piece for piece in pieces if piece.vector.shape == delta.shape]
        taken = tuple(piece.update for piece in fitting if piece.update)
        aged = _sum(fitting, round_, keep)
        trained = any(piece.round == round_ and not piece.update for piece in fitting)
        vector = delta if aged is None else _within(mask, aged if trained else delta + aged, delta)
        if aged is None or np.all(np.abs(vector) < LARGEST):
            return cls(vector, aged, mask, taken)
        log.error("what codecs have lost adds up to numbers that no update can carry: it is forgotten")
        return cls(delta, None, mask, taken)

    def after(self, delivered: Vector) -> Residual:
        """Return what to write down, where the aggregator decodes `delivered`."""
        nothing = np.zeros_like(delivered)
        left = _within(self.mask, self.vector - delivered, nothing if self.aged is None else self.aged)
        return Residual(left, _within(self.mask, delivered, nothing), self.taken)


def _sum(pieces: Sequence[Piece], round_: int, keep: float) -> Vector | None:
    """Return the aged sum, in an order that does not hang on which receipt came first."""
    total: Vector | None = None
    for piece in sorted(pieces, key=lambda piece: (piece.round, piece.update)):
        aged = piece.aged(round_, keep)
        total = aged if total is None else total + aged
    return total


def _within(mask: NDArray[np.bool_] | None, inside: Vector, outside: Vector) -> Vector:
    return inside if mask is None else np.where(mask, inside, outside)
