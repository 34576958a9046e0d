"""Which steps of several perceptrons move the widest layer together, and which examples they see."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np

from fedmq.engines.numpy.stacks import ROOM
from fedmq.engines.steps import picked

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fedmq.engines.engine import Job
    from fedmq.engines.numpy.stacks import Stack
    from fedmq.engines.steps import Steps
    from fedmq.trainers.batches import Rows
    from fedmq.trainers.numpy import Labels, NumpyTrainer

Index: TypeAlias = tuple[Any, Any]
"""Of devices and rows."""

_SHARE: Final = 8
"""A block has at most one example for each so many inputs: with more, inner products would cost more than they save."""

_WORTH: Final = 16
"""A number of the kernel left alone for a step is worth so many of those that inner products take: as measured."""

_MOST: Final = 384
"""Examples that a block of several epochs may have: the inner products of a full stack take 14 MB then."""


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Some steps: `labels` and `mask` have the shape (devices, steps, batch).

    `xs` are the examples that each device sees in them, of shape (devices, size, inputs) and good until the next block
    comes. `places` indexes, for each step, those that it takes, in an array of shape (devices, size + 1, ...): the last
    row is for where it takes none.
    """

    xs: Stack
    places: Sequence[Index]
    labels: Labels
    mask: Stack


@dataclass(frozen=True, slots=True, eq=False)
class Batches:
    """The steps of `jobs` on the examples of their `trainers`, with `epoch` steps in an epoch at most.

    Nothing in the blocks that come of it depends on who else is in the stack, but on `steps` and `epoch`.
    """

    jobs: Sequence[Job]
    trainers: Sequence[NumpyTrainer]
    steps: Steps
    epoch: int

    def blocks(self, outputs: int) -> Iterator[Block]:
        """Yield the blocks, in order, for a widest layer with so many outputs.

        Where a device has few examples, or goes through them often, one block holds all its steps: each example then is
        carried through the kernel once, however many epochs there are.
        """
        rows = picked(self.jobs, self.steps.rows)
        labels = np.stack([trainer.y[own] for trainer, own in zip(self.trainers, rows, strict=True)])
        length = self._length(outputs)
        if self._in_one(length):
            yield self._whole(labels)
            return
        edges = [*range(0, self.steps.length, length), self.steps.length]
        for steps in itertools.starmap(slice, itertools.pairwise(edges)):
            yield self._part(rows[:, steps], labels[:, steps], self.steps.mask[:, steps])

    @property
    def _inputs(self) -> int:
        inputs: int = self.trainers[0].x.shape[1]
        return inputs

    def _length(self, outputs: int) -> int:
        """Return how many steps make a block whose examples are all new."""
        width = self.steps.width
        return max(1, min(self._inputs // _SHARE, _WORTH * outputs // width) // width)

    def _in_one(self, length: int) -> bool:
        """Return whether inner products of all examples cost less than those of many blocks."""
        again = self.epoch < self.steps.length
        fits = self.epoch * self.steps.width <= min(_MOST, self._inputs // 2)
        return again and fits and self.epoch * self.epoch <= length * self.steps.length

    def _whole(self, labels: Labels) -> Block:
        mask, devices = self.steps.mask, np.arange(len(self.jobs))[:, None]
        size = self.epoch * self.steps.width
        xs = self._room(size)
        for x, job, trainer in zip(xs, self.jobs, self.trainers, strict=True):
            own = trainer.x if job.rows is None else trainer.x[job.rows]
            x[: len(own)], x[len(own) :] = own, 0
        rows = np.where(mask > 0, self.steps.rows, size).swapaxes(0, 1)
        return Block(xs, [(devices, own) for own in rows], labels, mask)

    def _part(self, rows: Rows, labels: Labels, mask: Stack) -> Block:
        """Return a block of examples that stand in the order of its steps."""
        _, steps, width = rows.shape
        xs = self._room(steps * width)
        for x, trainer, own in zip(xs, self.trainers, rows, strict=True):
            # all are in range: clipping only spares a copy
            trainer.x.take(own.reshape(-1), axis=0, out=x, mode="clip")
        edges = range(0, steps * width, width)
        places = [(slice(None), slice(edge, edge + width)) for edge in edges]
        return Block(xs, places, labels, mask)

    def _room(self, size: int) -> Stack:
        return ROOM.take("xs", (len(self.jobs), size, self._inputs))
