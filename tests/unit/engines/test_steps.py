"""Steps of several devices side by side: the batches of a trainer, padded and masked."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest

from fedmq.device.interface import Trained
from fedmq.engines import Job
from fedmq.engines.steps import Steps, alike, in_stacks, rounded
from fedmq.trainers.batches import Schedule

NOTHING = np.zeros(1, np.float32)


def job(seed: int = 1, **settings: float) -> Job:
    return Job("d", NOTHING, settings, seed)


@pytest.mark.parametrize(
    ("examples", "batch", "epochs", "most"), [(7, 3, 2, None), (7, 3, 3, 4), (2, 10, 2, None)]
)
def test_rows_are_the_batches_of_a_trainer(examples: int, batch: int, epochs: int, most: int | None) -> None:
    settings = {"batch_size": batch, "epochs": epochs} | ({} if most is None else {"max_steps": most})
    asked = job(5, **settings)
    steps = Steps.of([asked], [examples])
    edges = Schedule(examples, asked.chosen).cuts.tolist()
    wanted = [
        order[start:stop].tolist()
        for order, limit in Schedule(examples, asked.chosen).epochs(5)
        for start, stop in itertools.pairwise(edges[: limit + 1])
    ]
    assert [
        rows[mask > 0].tolist() for rows, mask in zip(steps.rows[0], steps.mask[0], strict=True)
    ] == wanted
    assert steps.taken.all()
    assert steps.counts() == [len(wanted)]


def test_the_last_epoch_is_the_one_that_is_reported() -> None:
    assert Steps.of([job(epochs=2, batch_size=4)], [8]).last.tolist() == [[False, False, True, True]]
    assert Steps.of([job(epochs=2, batch_size=4, max_steps=3)], [8]).last.tolist() == [[False, False, True]]


def test_steps_are_as_long_and_wide_as_the_largest() -> None:
    asked = [job(batch_size=4), job(batch_size=4)]
    both = Steps.of(asked, [3, 9])
    assert both.rows.shape == both.mask.shape == (2, 3, 4)
    assert both.taken.tolist() == [[True, False, False], [True, True, True]]
    assert both.mask.sum(axis=2).tolist() == [[3, 0, 0], [4, 4, 1]]
    assert both.counts() == [1, 3]
    assert not (both.rows * (1 - both.mask)).any()
    roomy = Steps.of(asked, [3, 9], length=4, width=6)
    assert roomy.rows.shape == (2, 4, 6)
    assert roomy.mask.sum(axis=2).tolist() == [[3, 0, 0, 0], [4, 4, 1, 0]]
    assert roomy.counts() == [1, 3]


def test_a_device_has_the_steps_that_it_would_have_alone() -> None:
    asked = [job(seed, batch_size=4, epochs=3) for seed in (1, 2, 3)]
    both = Steps.of(asked, [3, 9, 4])
    for place, (each, count) in enumerate(zip(asked, (3, 9, 4), strict=True)):
        alone = Steps.of([each], [count])
        _, length, width = alone.rows.shape
        assert both.rows[place, :length, :width].tolist() == alone.rows[0].tolist()
        assert both.mask[place, :length, :width].tolist() == alone.mask[0].tolist()
        assert both.last[place, :length].tolist() == alone.last[0].tolist()


def test_few_lengths_and_little_waste() -> None:
    lengths = [rounded(count) for count in range(1, 1000)]
    assert all(count <= length <= 1.25 * count for count, length in enumerate(lengths, 1))
    assert len(set(lengths)) < 40


def test_jobs_alike_come_together_with_their_places() -> None:
    jobs = [job(seed) for seed in (1, 2, 1, 1, 2)]
    groups = [
        (places, [each.seed for each in some]) for places, some in alike(jobs, lambda each: each.seed, 2)
    ]
    assert groups == [([0, 2], [1, 1]), ([3], [1]), ([1, 4], [2, 2])]


def test_what_is_trained_together_comes_back_in_the_order_in_which_it_was_asked_for() -> None:
    asked: list[list[int]] = []

    def train(jobs: Sequence[Job]) -> list[Trained]:
        asked.append([each.seed for each in jobs])
        return [Trained(NOTHING, each.seed, 1, {}) for each in jobs]

    found = in_stacks([job(seed) for seed in (3, 2, 3, 1, 3)], lambda each: each.seed, 2, train)
    assert asked == [[3, 3], [3], [2], [1]]
    assert [each.examples for each in found] == [3, 2, 3, 1, 3]
