"""Which rows make up which step of several devices at once: shares of all sizes side by side, padded and masked."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedmq.trainers.batches import Rows, Schedule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from fedmq.engines.engine import Job


@dataclass(frozen=True, slots=True, eq=False)
class Steps:
    """One device's round: `rows` and `mask` have shape (steps, batch), `last` and `taken` are one entry for each step.

    Where a batch is smaller than the others its row is filled up with zeros, and `mask` is zero there. `last` tells
    the steps of the last epoch, whose figures are reported, `taken` those that a device really takes: what follows is
    padding.
    """

    rows: Rows
    mask: NDArray[np.float32]
    last: NDArray[np.bool_]
    taken: NDArray[np.bool_]

    @classmethod
    def of(cls, job: Job, examples: int) -> Steps:
        """Return the steps of `job` on a share of that many examples: the very batches that a trainer makes of it."""
        schedule = Schedule(examples, job.chosen)
        width, edges = min(job.chosen.batch_size, examples), schedule.cuts.tolist()
        rows = np.zeros((schedule.steps, width), np.int64)
        mask = np.zeros((schedule.steps, width), np.float32)
        last = np.zeros(schedule.steps, np.bool_)
        step = begun = 0
        for order, limit in schedule.epochs(job.seed):
            begun = step
            for start, stop in itertools.pairwise(edges[: limit + 1]):
                rows[step, : stop - start] = order[start:stop]
                mask[step, : stop - start] = 1
                step += 1
        last[begun:] = True
        return cls(rows, mask, last, np.ones(schedule.steps, np.bool_))

    def padded(self, steps: int, width: int) -> Steps:
        """Return the same with idle steps at the end, and places in each batch that nobody takes."""
        more, wider = steps - self.rows.shape[0], width - self.rows.shape[1]
        both, one = ((0, more), (0, wider)), (0, more)
        return Steps(
            np.pad(self.rows, both), np.pad(self.mask, both), np.pad(self.last, one), np.pad(self.taken, one)
        )


def stacked(several: Sequence[Steps]) -> Steps:
    """Return them as one whose arrays have the devices in front: all are padded to the longest and widest."""
    count = max(each.rows.shape[0] for each in several)
    width = max(each.rows.shape[1] for each in several)
    even = [each.padded(count, width) for each in several]
    return Steps(
        np.stack([each.rows for each in even]),
        np.stack([each.mask for each in even]),
        np.stack([each.last for each in even]),
        np.stack([each.taken for each in even]),
    )


def rounded(count: int) -> int:
    """Return `count` or a little more: one of four numbers between two powers of two.

    What is compiled or stacked by length has few lengths then, and wastes a fifth at most.
    """
    grain = 1 << max(0, count.bit_length() - 3)
    return -(-count // grain) * grain


def alike(
    jobs: Sequence[Job], key: Callable[[Job], Hashable], most: int
) -> Iterator[tuple[list[int], list[Job]]]:
    """Yield groups of at most `most` jobs with the same `key`, each with its jobs' places among `jobs`."""
    groups = defaultdict[Hashable, list[int]](list)
    for place, job in enumerate(jobs):
        groups[key(job)].append(place)
    for places in groups.values():
        for start in range(0, len(places), most):
            some = places[start : start + most]
            yield some, [jobs[place] for place in some]
