"""Who can say that nothing was lost: the devices' ledgers beside the updates that the aggregator kept.

Devices write down what they trained and what they were told; a line is with the system before anything follows from
it, so a killed process takes none along. The aggregator keeps the accepted updates of each round, and the SHA-256 of
the model that it made of them. `audit` holds one against the other, and takes the mean anew, in arithmetic of its own.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from fedmq.aggregator.keeping import kept_updates
from fedmq.errors import StoreError
from fedmq.protocol.messages import DELTA, Chunk, Update
from fedmq.store.archive import UPDATES, read_archive
from fedmq.store.journal import journal_pieces
from fedmq.vectors import fingerprint
from fedmq.wire.envelope import decode

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

    from fedmq.store.archive import KeptRound, Recording
    from fedmq.vectors import Vector

TRAINED: Final = "trained"
ACCEPTED: Final = "accepted"
UNSETTLED: Final = frozenset({TRAINED, "dropped"})


class Line(NamedTuple):
    """One thing that befell an update: trained (from `model`), or the word that its device had of it."""

    device: str
    what: str
    round: int
    update: str
    model: int = 0


class Ledger:
    """Lines in a file that processes append to side by side."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def write(self, line: Line) -> None:
        """Append a line, in one piece."""
        os.write(self._handle, (" ".join(map(str, line)) + "\n").encode())

    def close(self) -> None:
        """Close the file."""
        os.close(self._handle)

    def read(self) -> list[Line]:
        """Return what is in the file."""
        rows = (row.split() for row in self.path.read_text().splitlines())
        return [Line(row[0], row[1], int(row[2]), row[3], int(row[4])) for row in rows]


@dataclass(slots=True)
class Audit:
    """What came of holding ledgers and kept updates against each other; each violation is a sentence."""

    violations: list[str] = field(default_factory=list)
    rounds: int = 0
    updates: int = 0
    receipts: int = 0
    trained: int = 0
    told: Counter[str] = field(default_factory=Counter)
    models: list[bytes] = field(default_factory=list)
    kept: dict[int, int] = field(default_factory=dict)

    def require(self, holds: object, sentence: str) -> None:
        """Note a violation unless `holds`."""
        if not holds:
            self.violations.append(sentence)

    @property
    def said(self) -> str:
        """The violations in one line; empty where there are none."""
        more = f" and {len(self.violations) - 3} more" if len(self.violations) > 3 else ""
        return "; ".join(self.violations[:3]) + more


def audit(lines: Sequence[Line], folder: Path, abandoned: Container[int] = ()) -> Audit:
    """Check a federation under `fedavg` with float32 updates; `folder` is its aggregator's, where updates are kept.

    `lines` were read before. `abandoned` are rounds that moved no model, so that what was accepted in them may be
    nowhere. Raises StoreError where the kept rounds have a gap: a version was skipped, or went back.
    """
    found = Audit()
    waiting = set(_journaled(folder))  # first: what leaves the journal is among the kept updates by then
    recording = read_archive(folder / UPDATES)
    counted: dict[str, tuple[str, int]] = {}
    vector = recording.weights.vector
    for kept in recording.rounds:
        vector = _check_round(found, recording, kept, vector, counted)
    _check_receipts(found, lines, counted)
    for line in _accepted(lines):
        here = line.update in counted or line.update in waiting or line.round in abandoned
        found.require(here, f"{line.device}'s update for round {line.round} was receipted, and is nowhere")
    _check_course(found, lines)
    return found


def _check_round(
    found: Audit, recording: Recording, kept: KeptRound, vector: Vector, counted: dict[str, tuple[str, int]]
) -> Vector:
    updates = [update for update, _ in kept_updates(recording, kept)]
    devices = [piece.device for piece in recording.pieces(kept) if not piece.chunk]
    twice = [device for device, count in Counter(devices).items() if count > 1]
    found.require(not twice, f"round {kept.round} holds two updates of {', '.join(twice)}")
    for device, update in zip(devices, updates, strict=True):
        name = update.update.hex()
        before = counted.setdefault(name, (device, kept.round))
        found.require(before == (device, kept.round), f"update {name} of {device} was counted in two rounds")
    vector = recomputed(vector, updates)
    found.require(
        fingerprint(vector) == kept.model,
        f"round {kept.round}'s model is not the mean of the updates kept of it",
    )
    found.rounds, found.updates = found.rounds + 1, found.updates + len(updates)
    found.models.append(kept.model)
    found.kept[kept.round] = len(updates)
    return vector


def recomputed(vector: Vector, updates: Sequence[Update]) -> Vector:
    """Return the model moved by the updates' mean, weighted by examples."""
    deltas = [np.frombuffer(update.sections[DELTA], "<f4") for update in updates]
    mean = mean_of(deltas, [update.facts.examples for update in updates])
    return np.add(vector, mean, dtype=np.float32)


def mean_of(deltas: Sequence[Vector], weights: Sequence[int]) -> Vector:
    """Return the weighted mean in sums that are rounded once: a product of 24 bits and few is exact in float64."""
    products = np.stack(deltas).astype(np.float64) * np.array(weights, np.float64)[:, np.newaxis]
    mean = np.array([math.fsum(column) for column in products.T]) / sum(weights)
    return mean.astype(np.float32)


def _journaled(folder: Path) -> Iterator[str]:
    """Yield the ids of what lies in journals: updates of the open round."""
    for path in folder.glob("*.journal"):
        with contextlib.suppress(StoreError):  # an empty one
            for piece in journal_pieces(path):
                if piece.chunk is None:
                    yield decode(piece.payload, Update).update.hex()
                else:
                    yield decode(piece.payload, Chunk).stem.hex()


def _check_receipts(found: Audit, lines: Sequence[Line], counted: Mapping[str, tuple[str, int]]) -> None:
    trained = {line.update for line in lines if line.what == TRAINED}
    words: dict[str, set[str]] = {}
    for line in lines:
        if line.what not in UNSETTLED:
            words.setdefault(line.update, set()).add(line.what)
    for update, heard in words.items():
        told = f"update {update} of {counted.get(update, ('somebody', 0))[0]} was told {' and '.join(sorted(heard))}"
        found.require(len(heard) == 1, told)
        found.require(update not in counted or heard == {ACCEPTED}, f"{told}, and counted")
    for update, (device, _) in counted.items():
        found.require(update in trained, f"update {update} counted, which {device} never made")
    found.trained, found.receipts = len(trained), len(_accepted(lines))
    found.told = Counter(line.what for line in set(lines) if line.what != TRAINED)


def _accepted(lines: Iterable[Line]) -> set[Line]:
    return {line for line in lines if line.what == ACCEPTED}


def _check_course(found: Audit, lines: Sequence[Line]) -> None:
    """A device must never train for an older round, or from an older model, than it has before."""
    course: dict[str, list[tuple[int, int]]] = {}
    for line in lines:
        if line.what == TRAINED:
            course.setdefault(line.device, []).append((line.round, line.model))
    for device, steps in course.items():
        for before, after in pairwise(steps):
            back = after[0] < before[0] or after[1] < before[1]
            found.require(not back, f"{device} went back from round, model {before} to {after}")
