"""An engine that stacks devices, for any backend of Keras that a `Calculus` is written for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

import keras
import numpy as np

from fedmq.device.interface import Trained
from fedmq.engines.stacking.checks import classes_of, shows_padding
from fedmq.engines.stacking.holdings import Holdings, shares_of
from fedmq.engines.stacking.network import StackedNetwork
from fedmq.engines.steps import Steps, in_stacks, picked, rounded
from fedmq.errors import ConfigError, FedmqError
from fedmq.trainers.batches import Schedule
from fedmq.trainers.module import first_line
from fedmq.trainers.settings import finite

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from fedmq.engines.engine import Job
    from fedmq.engines.stacking.calculus import Calculus, Nest
    from fedmq.trainers.module import Supply
    from fedmq.vectors import Layout, Vector

_Any = TypeVar("_Any")

_EVALUATED_AT_ONCE: Final = 512
_NARROW: Final = 64
"""Batches up to so many rows are all of the width that a task asks for, however few rows a share has."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How work is cut: `stack` devices in one computation, always as many, and `threads` computations side by side."""

    stack: int
    threads: int


class StackingEngine:
    """Trains a Keras model for the devices of `supplies`, `shape.stack` of them at a time.

    Every computation is of a full stack: where fewer jobs are left, copies of one of them fill it up, so that a job's
    result has nothing to do with those beside it. Raises ConfigError where model or data cannot be stacked.
    """

    def __init__(
        self,
        name: str,
        model: Any,  # noqa: ANN401  # keras has no types
        supplies: Mapping[str, Supply],
        calculus: Calculus,
        shape: Shape,
    ) -> None:
        self.name: Final = name
        self.stack, self.threads = shape.stack, shape.threads
        train = {device: supply.train for device, supply in supplies.items()}
        held = {d: supply.held_out for d, supply in supplies.items() if supply.held_out is not None}
        try:
            self._make(model, train, held, calculus)
        except FedmqError:
            raise
        except Exception as error:
            raise ConfigError(
                f"the model and its data cannot be stacked on {name} ({first_line(error)}): take another engine"
            ) from error

    def _make(
        self,
        model: Any,  # noqa: ANN401  # keras has no types
        train: Mapping[str, object],
        held: Mapping[str, object],
        calculus: Calculus,
    ) -> None:
        shares = shares_of(train, "the training data", classes_of(model))
        first = next(iter(shares.values()))
        sample = keras.tree.map_structure(lambda array: array[:1], first.parts)
        if not model.built:
            model(sample[0])
        self._padded = not shows_padding(model)
        self._network = StackedNetwork(model, calculus, sample, padded=self._padded)
        self._train = Holdings.of(shares, calculus.put)
        held_out = shares_of(held, "the held-out data", classes_of(model))
        self._held = Holdings.of(held_out, calculus.put) if held_out else None

    @property
    def layout(self) -> Layout:
        """The model's layout."""
        return self._network.layout

    def examples(self, device: str) -> int:
        """Return how many examples `device` trains on."""
        return self._train.rows[device]

    def initial(self) -> Vector:
        """Return the model's first weights."""
        return self._network.initial.copy()

    def save(self, model: Vector, path: Path) -> None:
        """Write the Keras model with these weights to a ``.keras`` file."""
        self._network.save(model, str(path))

    def evaluate(self, device: str, model: Vector) -> Mapping[str, float]:
        """Return the model's loss and compiled metrics on what `device` holds back, and its number as ``held_out``."""
        self.layout.unpack(model)
        return self._looked([device], [model])[0]

    def train(self, jobs: Sequence[Job]) -> list[Trained]:
        """Train all `jobs`, those together that may be stacked."""
        return in_stacks(jobs, self._kind, self.stack, self._together)

    def _kind(self, job: Job) -> Hashable:
        """Return what must be the same to be stacked; where padding would show, the number of examples is."""
        rows = self._count(job)
        if self._train.is_large(rows):
            return job.device, job.seed, id(job)
        if not self._padded:
            return job.chosen, _pulls(job), rows
        length = Schedule(rows, job.chosen).steps
        return job.chosen, _pulls(job), rounded(length), self._width(job)

    def _count(self, job: Job) -> int:
        return job.count(self._train.rows[job.device])

    def _width(self, job: Job) -> int:
        """Return how many rows wide the batches are: of few widths in all, since each is compiled for itself."""
        rows, batch = self._count(job), job.chosen.batch_size
        return min(batch, max(_NARROW, rounded(rows))) if self._padded else min(batch, rows)

    def _together(self, jobs: Sequence[Job]) -> list[Trained]:
        told = self._looked([job.device for job in jobs], [job.model for job in jobs])
        room = 1 if self._train.is_large(self._count(jobs[0])) else self.stack
        state = self._descended(_filled(jobs, room), len(jobs))
        vectors = np.array(self._network.leave((), _without_figures(state)))
        figures = keras.tree.map_structure(np.asarray, state["told"])
        return [
            self._trained(job, vectors[k], told[k], self._network.figures(figures, k))
            for k, job in enumerate(jobs)
        ]

    def _trained(
        self, job: Job, vector: Vector, held: Mapping[str, float], figures: Mapping[str, float]
    ) -> Trained:
        rows = self._count(job)
        steps = Schedule(rows, job.chosen).steps
        metrics = {**held, **{f"train_{name}": value for name, value in _plain(figures).items()}}
        reach = self._network.optimizer.reach(job.chosen.learning_rate, steps)
        return Trained(vector, rows, steps, finite(metrics), reach)

    def _descended(self, jobs: Sequence[Job], real: int) -> Nest:
        """Take every step of the stacked jobs, of which those from `real` on only fill the stack; return the state."""
        network = self._network
        counts = [self._count(job) for job in jobs]
        steps = Steps.of(jobs, counts, width=self._width(jobs[0]))
        steps.taken[real:] = False
        rate = np.float32(network.optimizer.chosen_rate(jobs[0].chosen.learning_rate))
        begins = np.asarray([self._train.begins[job.device] for job in jobs])
        rows = begins[:, None, None] + picked(jobs, steps.rows)
        models = np.stack([job.model for job in jobs]).astype(np.float32, copy=False)
        seeds = np.stack([network.seeds(job.seed) for job in jobs]).astype(np.int32)
        state = network.enter((), (models, seeds, np.full(len(jobs), rate)))
        pull = _stacked_pull(jobs, models) if _pulls(jobs[0]) else None
        for number in range(steps.rows.shape[1]):
            batch = _batch(steps, rows[:, number], number, rate, exact=not self._padded)
            own_parts = (state, batch) if pull is None else (state, batch, pull)
            step = network.step if pull is None else network.pulled_step
            state = step(self._train.parts, own_parts)
        return state

    def _looked(self, devices: Sequence[str], models: Sequence[Vector]) -> list[dict[str, float]]:
        """Return each device's figures of the model that it is given, on what it holds back."""
        held = self._held
        places = [k for k, device in enumerate(devices) if held is not None and device in held.rows]
        found: list[dict[str, float]] = [{} for _ in devices]
        if held is None or not places:
            return found
        for some in self._alike(held, places, [devices[k] for k in places]):
            figures = self._looked_at_once(held, [devices[k] for k in some], [models[k] for k in some])
            for k, told in zip(some, figures, strict=True):
                found[k] = finite({**_plain(told), "held_out": float(held.rows[devices[k]])})
        return found

    def _alike(self, held: Holdings, places: Sequence[int], devices: Sequence[str]) -> Iterator[list[int]]:
        """Yield stacks of places: of shares of any size, or of one size where padding would show."""
        groups = defaultdict[Hashable, list[int]](list)
        for place, device in zip(places, devices, strict=True):
            kind = device if held.is_large(held.rows[device]) else 0 if self._padded else held.rows[device]
            groups[kind].append(place)
        for group in groups.values():
            for start in range(0, len(group), self.stack):
                yield group[start : start + self.stack]

    def _looked_at_once(
        self, held: Holdings, devices: Sequence[str], models: Sequence[Vector]
    ) -> list[dict[str, float]]:
        room = len(devices) if held.is_large(held.rows[devices[0]]) else self.stack
        filled, vectors = (
            _filled(devices, room),
            np.stack(_filled(models, room)).astype(np.float32, copy=False),
        )
        seeds = np.stack([self._network.seeds(0)] * len(filled)).astype(np.int32)
        state = self._network.enter((), (vectors, seeds, np.zeros(len(filled), np.float32)))
        counts = np.asarray([held.rows[device] for device in filled])
        begins = np.asarray([held.begins[device] for device in filled])
        for rows, mask in _windows(counts, rounded(held.usual) if self._padded else None):
            batch = {
                "rows": (begins[:, None] + rows).astype(np.int32),
                "mask": mask,
                "counts": (mask.sum(axis=1) > 0).astype(np.float32),
            }
            state = self._network.look(held.parts, (state, batch))
        told = keras.tree.map_structure(np.asarray, state["told"])
        return [self._network.figures(told, k) for k in range(len(devices))]


def _filled(some: Sequence[_Any], room: int) -> list[_Any]:
    """Return `some`, and copies of the first for the rest of the room."""
    return [*some, *[some[0]] * (room - len(some))]


def _batch(steps: Steps, rows: NDArray[np.int64], number: int, rate: np.float32, *, exact: bool) -> Nest:
    """Return what a step is told of each device: `rows` of all; `exact` leaves out the places that nobody takes."""
    mask, taken = steps.mask[:, number], steps.taken[:, number]
    width = int(mask[0].sum()) if exact else mask.shape[1]
    return {
        "rows": rows[:, :width].astype(np.int32),
        "mask": np.ascontiguousarray(mask[:, :width]),
        "taken": taken,
        "rate": np.where(taken, rate, np.float32(0)),
        "counts": (taken & steps.last[:, number]).astype(np.float32),
    }


def _windows(
    counts: NDArray[np.int64], width: int | None
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Yield rows and masks that go through shares of these sizes, a batch after the other.

    All are of one `width`; without one they end where the shares, all of one size, do.
    """
    longest = int(counts.max())
    step = min(_EVALUATED_AT_ONCE, width or longest)
    for start in range(0, longest, step):
        rows = np.arange(start, start + step if width else min(start + step, longest))[None, :]
        mask = (rows < counts[:, None]).astype(np.float32)
        yield np.where(mask > 0, rows, 0), mask


def _pulls(job: Job) -> bool:
    pull = job.pulled
    return pull.linear is not None or pull.strength > 0


def _stacked_pull(jobs: Sequence[Job], models: NDArray[np.float32]) -> Nest:
    pulls = [job.pulled for job in jobs]
    nothing = np.zeros(models.shape[1], np.float32)
    return {
        "start": models,
        "linear": np.stack([nothing if pull.linear is None else pull.linear for pull in pulls]),
        "strength": np.asarray([pull.strength for pull in pulls], np.float32),
    }


def _without_figures(state: Nest) -> Nest:
    return {name: state[name] for name in ("weights", "rest")}


def _plain(figures: Mapping[str, float]) -> dict[str, float]:
    """Call the one accuracy that a model was compiled with ``accuracy``, whatever its Keras class."""
    accuracies = {"acc", "binary_accuracy", "categorical_accuracy", "sparse_categorical_accuracy"}
    found = [name for name in figures if name in accuracies]
    if len(found) != 1 or "accuracy" in figures:
        return dict(figures)
    return {"accuracy" if name == found[0] else name: value for name, value in figures.items()}
