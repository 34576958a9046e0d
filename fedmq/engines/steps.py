"""Which rows make up which step of several devices at once: shares of all sizes side by side, padded and masked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedmq.trainers.batches import Rows, Schedule, shuffler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from fedmq.device.interface import Trained
    from fedmq.engines.engine import Job


@dataclass(frozen=True, slots=True, eq=False)
class Steps:
    """The rounds of several devices: `rows` and `mask` have shape (devices, steps, batch), the others (devices, steps).

    Where a batch is smaller than the others its row is filled up with zeros, and `mask` is zero there. `last` tells
    the steps of the last epoch, whose figures are reported, `taken` those that a device really takes: what follows is
    padding.
    """

    rows: Rows
    mask: NDArray[np.float32]
    last: NDArray[np.bool_]
    taken: NDArray[np.bool_]

    @classmethod
    def of(cls, jobs: Sequence[Job], examples: Sequence[int], *, length: int = 0, width: int = 0) -> Steps:
        """Return the steps of `jobs` on shares of that many examples: the very batches that a trainer makes of them.

        They are as long and wide as the longest and widest of them, or as `length` and `width` where that is more.
        """
        schedules = [Schedule(count, job.chosen) for job, count in zip(jobs, examples, strict=True)]
        length = max(length, *(schedule.steps for schedule in schedules))
        width = max(width, *(schedule.width for schedule in schedules))
        shape = (len(jobs), length, width)
        steps = cls(
            np.zeros(shape, np.int64),
            np.zeros(shape, np.float32),
            np.zeros(shape[:2], np.bool_),
            np.zeros(shape[:2], np.bool_),
        )
        groups = defaultdict[Schedule, list[int]](list)
        for place, schedule in enumerate(schedules):
            groups[schedule].append(place)
        for schedule, places in groups.items():
            steps._lay(places, schedule, [jobs[place].seed for place in places])
        return steps

    @property
    def length(self) -> int:
        """How many steps there is place for."""
        return len(self.mask[0])

    @property
    def width(self) -> int:
        """How many examples a step has place for."""
        return len(self.mask[0, 0])

    def counts(self) -> list[int]:
        """Return how many steps each device takes."""
        counts: list[int] = self.taken.sum(axis=1).tolist()
        return counts

    def _lay(self, places: Sequence[int], schedule: Schedule, seeds: Sequence[int]) -> None:
        """Write the epochs of devices with one schedule, one behind the other."""
        begun = end = 0
        generators = [shuffler(seed) for seed in seeds]
        for limit in schedule.limits():
            orders = np.stack([generator.permutation(schedule.rows) for generator in generators])
            begun, end = end, end + limit
            seen = min(limit * schedule.width, schedule.rows)
            full, rest = divmod(seen, schedule.width)
            square = places, slice(begun, begun + full), slice(schedule.width)
            self.rows[square] = orders[:, : seen - rest].reshape(-1, full, schedule.width)
            self.mask[square] = 1
            if rest:
                self.rows[places, end - 1, :rest] = orders[:, seen - rest : seen]
                self.mask[places, end - 1, :rest] = 1
        self.last[places, begun:end] = True
        self.taken[places, :end] = True


def picked(jobs: Sequence[Job], places: Rows) -> Rows:
    """Return the rows among each device's examples that stand at these places of its job; `places` where it has all."""
    if all(job.rows is None for job in jobs):
        return places
    each = zip(jobs, places, strict=True)
    return np.stack([own if job.rows is None else job.rows[own] for job, own in each])


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


def in_stacks(
    jobs: Sequence[Job],
    key: Callable[[Job], Hashable],
    most: int,
    train: Callable[[Sequence[Job]], Sequence[Trained]],
) -> list[Trained]:
    """Return what `train` makes of all `jobs`, in order; it gets those of one `key` together, `most` at a time."""
    results: dict[int, Trained] = {}
    for places, group in alike(jobs, key, most):
        results.update(zip(places, train(group), strict=True))
    return [results[place] for place in range(len(jobs))]
