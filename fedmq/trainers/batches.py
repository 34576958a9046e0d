"""Which rows make up which mini-batch: the same in every engine, for the same seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fedmq.trainers.settings import Settings

Rows: TypeAlias = NDArray[np.int64]
"""Row numbers, or edges between runs of them: one dimension of int64."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """How a round's optimizer steps are spread over epochs, for a share of `rows` examples."""

    rows: int
    settings: Settings

    @property
    def cuts(self) -> Rows:
        """Edges of the batches within an epoch: batch i holds an epoch's rows from ``cuts[i]`` to ``cuts[i + 1]``."""
        return np.append(np.arange(0, self.rows, self.settings.batch_size), self.rows)

    @property
    def width(self) -> int:
        """Examples in a full batch."""
        return min(self.settings.batch_size, self.rows)

    @property
    def steps(self) -> int:
        """Optimizer steps in the whole round."""
        wanted = self.settings.epochs * self._per_epoch
        return min(wanted, self.settings.max_steps or wanted)

    def limits(self) -> Iterator[int]:
        """Yield the number of steps in each epoch; `max_steps` may cut the last one short."""
        left = self.steps
        while left > 0:
            yield min(left, self._per_epoch)
            left -= self._per_epoch

    def epochs(self, seed: int) -> Iterator[tuple[Rows, int]]:
        """Yield each epoch's order of all rows, shuffled by Philox(`seed`), and its number of steps."""
        generator = shuffler(seed)
        for limit in self.limits():
            yield generator.permutation(self.rows), limit

    @property
    def _per_epoch(self) -> int:
        return -(-self.rows // self.settings.batch_size)


def shuffler(seed: int) -> np.random.Generator:
    """Return what shuffles the examples of one round, epoch after epoch."""
    return np.random.Generator(np.random.Philox(seed))


def layer_seeds(seed: int, count: int) -> Rows:
    """Return `count` numbers below 2**31 to seed dropout and its like, in a stream apart from the shuffle's."""
    if not count:
        return np.zeros(0, np.int64)
    source = np.random.SeedSequence((seed, 1))
    return np.random.Generator(np.random.Philox(source)).integers(0, 2**31, size=count)
