"""A device's examples for Keras: arrays, or a `tf.data.Dataset`, streamed where it does not fit into memory."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias, cast

import numpy as np

from fedmq.errors import ConfigError
from fedmq.trainers.batches import Rows, Schedule
from fedmq.trainers.keras.network import Begin, Stretch
from fedmq.trainers.keras.runtime import keras, tf
from fedmq.trainers.keras.tensors import Examples
from fedmq.trainers.shares import Share, leaves, share

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fedmq.trainers.settings import Settings
    from fedmq.trainers.shares import Examples as Given

Data: TypeAlias = "tuple[Given | None, ...] | tf.data.Dataset"
"""(x,), (x, y) or (x, y, sample weights), or a dataset of batches of these."""

MEMORY_BYTES: Final = 256 * 2**20
"""A dataset that takes no more than this is held in memory; a quarter of what a small device has."""

_ORDERED_AT_ONCE: Final = 2**20
"""Row numbers handed to one call of the compiled loop: 8 MiB, however many epochs a task asks for."""


class Source(Protocol):
    """Where a trainer's examples come from."""

    @property
    def rows(self) -> int:
        """How many examples there are."""

    def steps(self, settings: Settings) -> int:
        """Return how many optimizer steps a round takes."""

    def stretches(self, settings: Settings, seed: int) -> Iterator[Stretch]:
        """Yield a round's steps."""

    def parts(self) -> Iterator[Examples]:
        """Yield all examples, once."""


class InMemory:
    """Examples held as tensors; shuffled anew by Philox in every epoch."""

    def __init__(self, given: Share) -> None:
        self._examples = Examples.of(given.parts, given.rows)
        self.rows = given.rows
        self._picked: Rows | None = None

    def picked(self, rows: Rows) -> InMemory:
        """Return these of them, to train on; the tensors are the same."""
        other = copy.copy(self)
        other.rows, other._picked = len(rows), rows  # noqa: SLF001  # its own
        return other

    def steps(self, settings: Settings) -> int:
        """Return how many optimizer steps a round takes."""
        return Schedule(self.rows, settings).steps

    def stretches(self, settings: Settings, seed: int) -> Iterator[Stretch]:
        """Yield a round's steps, as many epochs at a time as a bounded memory allows."""
        schedule = Schedule(self.rows, settings)
        begin, orders, limits = Begin.ROUND, list[Rows](), list[int]()
        for order, limit in schedule.epochs(seed):
            orders.append(order if self._picked is None else self._picked[order])
            limits.append(limit)
            if len(orders) * self.rows >= _ORDERED_AT_ONCE:
                yield self._stretch(begin, orders, schedule.cuts, limits)
                begin, orders, limits = Begin.EPOCH, [], []
        if orders:
            yield self._stretch(begin, orders, schedule.cuts, limits)

    def parts(self) -> Iterator[Examples]:
        """Yield all examples."""
        yield self._examples

    def _stretch(self, begin: Begin, orders: list[Rows], cuts: Rows, limits: list[int]) -> Stretch:
        return Stretch(begin, self._examples, np.stack(orders), cuts, np.asarray(limits, np.int64))


class Streamed:
    """A dataset too large for memory, in the batches and the order in which it comes; `batch_size` has no say.

    It is read through once to count it.
    """

    def __init__(self, dataset: tf.data.Dataset, what: str) -> None:
        self._dataset = dataset
        self._what = what
        sizes = [batch.rows for batch in self.parts()]
        self.rows, self._batches = sum(sizes), len(sizes)

    def steps(self, settings: Settings) -> int:
        """Return how many optimizer steps a round takes."""
        wanted = settings.epochs * self._batches
        return min(wanted, settings.max_steps or wanted)

    def stretches(self, settings: Settings, seed: int) -> Iterator[Stretch]:  # noqa: ARG002  # the order is the dataset's
        """Yield a round's steps, one at a time."""
        left, begin = self.steps(settings), Begin.ROUND
        while left > 0:
            for batch in self.parts():
                if left > 0:
                    yield _one_step(begin, batch)
                begin, left = Begin.BATCH, left - 1
            begin = Begin.EPOCH

    def parts(self) -> Iterator[Examples]:
        """Yield the dataset's batches."""
        for given in _batches(self._dataset, self._what):
            yield Examples.of(given.parts, given.rows)


def source(data: Data, what: str, memory_bytes: int = MEMORY_BYTES) -> Source:
    """Return the source for what a user gave. Raises ConfigError when it holds nothing that can be trained on."""
    if not isinstance(data, tf.data.Dataset):
        return InMemory(share(data if isinstance(data, tuple) else (data,), what))
    if data.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise ConfigError(
            f"{what} is a dataset without end: take off its repeat(), a task says how many epochs to train"
        )
    held = _held(data, what, memory_bytes)
    return Streamed(data, what) if held is None else InMemory(held)


def _held(dataset: tf.data.Dataset, what: str, memory_bytes: int) -> Share | None:
    """Return the dataset's examples in memory, or None where they take more than `memory_bytes`."""
    batches, size = [], 0
    for batch in _batches(dataset, what):
        size += sum(leaf.nbytes for leaf in leaves(batch.parts))
        if size > memory_bytes:
            return None
        batches.append(batch.parts)
    if not batches:
        raise ConfigError(f"{what} is empty: give it at least one example")
    return share(keras.tree.map_structure(lambda *arrays: np.concatenate(arrays), *batches), what)


def _batches(dataset: tf.data.Dataset, what: str) -> Iterator[Share]:
    for element in dataset.as_numpy_iterator():
        yield share(cast("tuple[Given, ...]", element if isinstance(element, tuple) else (element,)), what)


def _one_step(begin: Begin, batch: Examples) -> Stretch:
    rows = np.arange(batch.rows)
    return Stretch(begin, batch, rows[None], np.asarray([0, batch.rows]), np.asarray([1]))
