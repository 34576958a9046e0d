"""What a device keeps, as values: the vectors of one run, one update's change of them, and how an update can end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from fedmq.device.outbox import KEPT
from fedmq.device.residual import Piece, Residual

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from fedmq.vectors import Vector

Vectors: TypeAlias = Mapping[str, "Vector"]
Arrays: TypeAlias = Mapping[str, np.ndarray]

MOST_WAITING: Final = 2 * KEPT
"""Changes that may wait: more than an outbox holds updates."""
NOTED: Final = 2 * MOST_WAITING
"""Settled updates that are noted beside the vectors: more than can wait."""
RESIDUAL: Final = "feedback.residual"
"""Name of the residual among the vectors."""
_VECTOR: Final = "vector/"
_BACK: Final = "back"


class End(Enum):
    """How an update has ended, for what is kept of it."""

    MOVED = auto()
    """The model has moved by it."""
    RETURNED = auto()
    """It was not counted: it came late, or not at all, or its round was given up, or another one counted."""
    REFUSED = auto()
    """A guard would not have it. What it was made of would not be taken another time either, so the residual goes too:
    else one number that is too large would be refused again and again."""
    DROPPED = auto()
    """It was for another run."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What a change comes from: an update of `round`, trained from version `model`; whether it is known as accepted."""

    run: bytes
    round: int
    model: int
    accepted: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """What is added when an update has moved the model, and what is owed again where it does not count."""

    vectors: Vectors
    back: Vector | None = None

    @classmethod
    def of_arrays(cls, arrays: Arrays) -> Change:
        """Return what `arrays` gave."""
        back = arrays.get(_BACK)
        return cls(_vectors(arrays), None if back is None else back.astype(np.float32))

    def arrays(self) -> dict[str, np.ndarray]:
        """Return it as arrays by name."""
        vectors = {_VECTOR + name: vector for name, vector in self.vectors.items()}
        return vectors if self.back is None else {**vectors, _BACK: self.back}


@dataclass(frozen=True, slots=True)
class Keepsake:
    """The vectors of one run; `settled` are the updates whose changes are in them, the latest last.

    `round` is the round of the update that last took the residual, `sent` are the updates that it has gone out with and
    whose ends are not in it yet.
    """

    run: bytes = b""
    vectors: Vectors = field(default_factory=dict)
    settled: tuple[bytes, ...] = ()
    round: int = 0
    sent: tuple[bytes, ...] = ()

    def of(self, run: bytes) -> Vectors:
        """Return the vectors if they are of this run, else none."""
        return self.vectors if self.run == run else {}

    def plus(self, run: bytes, update: bytes, change: Vectors) -> Keepsake:
        """Return this with one update's change added; another run begins with nothing."""
        before = self._in(run)
        sums = {name: _sum(before.vectors.get(name), vector) for name, vector in change.items()}
        return replace(before, vectors={**before.vectors, **sums}, settled=self._noted((update,)))

    def sending(
        self, origin: Origin, update: bytes, residual: Residual, waiting: Collection[bytes]
    ) -> Keepsake:
        """Return this as it is with the update on its way; `waiting` are those of which the end is not known."""
        before = self._in(origin.run)
        vectors = {**before.vectors, RESIDUAL: residual.left}
        sent = (*(known for known in before.sent if known in waiting and known != update), update)
        return Keepsake(origin.run, vectors, self._noted(residual.taken), origin.round, sent)

    def refused(self, run: bytes, update: bytes) -> Keepsake:
        """Return this without the residual, if it is of this run."""
        rest = {name: vector for name, vector in self.vectors.items() if name != RESIDUAL or self.run != run}
        return replace(self, vectors=rest, settled=self._noted((update,)))

    def residual(self, run: bytes) -> list[Piece]:
        """Return what codecs lost, if anything."""
        lost = self.of(run).get(RESIDUAL)
        return [] if lost is None else [Piece(self.round, lost)]

    @classmethod
    def of_arrays(cls, arrays: Arrays) -> Keepsake:
        """Return what `arrays` gave, an older fedmq's too. Raises KeyError or ValueError where something else did."""
        round_ = arrays["round"].item() if "round" in arrays else 0
        sent = _apart(arrays["sent"]) if "sent" in arrays else ()
        return cls(arrays["run"].tobytes(), _vectors(arrays), _apart(arrays["settled"]), round_, sent)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return it as arrays by name."""
        vectors = {_VECTOR + name: vector for name, vector in self.vectors.items()}
        notes = {"settled": _joined(self.settled), "sent": _joined(self.sent), "round": np.array(self.round)}
        return {"run": _joined((self.run,)), **notes, **vectors}

    def _in(self, run: bytes) -> Keepsake:
        return self if self.run == run else Keepsake(run)

    def _noted(self, updates: tuple[bytes, ...]) -> tuple[bytes, ...]:
        return (*self.settled, *updates)[-NOTED:]


def _sum(known: Vector | None, change: Vector) -> Vector:
    return change if known is None or known.shape != change.shape else known + change


def _vectors(arrays: Arrays) -> Vectors:
    return {
        name.removeprefix(_VECTOR): array.astype(np.float32)
        for name, array in arrays.items()
        if name.startswith(_VECTOR)
    }


def _joined(updates: Iterable[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(updates), dtype=np.uint8)


def _apart(joined: np.ndarray) -> tuple[bytes, ...]:
    content = joined.tobytes()
    return tuple(content[at : at + 8] for at in range(0, len(content), 8))
