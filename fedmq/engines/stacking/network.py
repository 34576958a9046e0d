"""One compiled Keras model as pure functions of one device's state, and the same mapped over many devices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import keras
import numpy as np

from fedmq.engines.stacking.optimizers import optimizer_of
from fedmq.trainers.batches import layer_seeds
from fedmq.trainers.variables import sort_weights

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from fedmq.engines.stacking.calculus import Calculus, Nest, Tensor
    from fedmq.vectors import Vector

ops: Final = keras.ops


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """Where a variable's numbers stand in the vector."""

    begin: int
    end: int
    shape: tuple[int, ...]
    dtype: str


class StackedNetwork:
    """A model's training and testing, stacked; `padded` says whether batches may hold rows that weigh nothing.

    A device's state is a dictionary: ``weights``, ``rest`` (what no optimizer moves), ``slots`` (the optimizer's), and
    ``told``, the figures so far: sum of losses, rows, and what each metric remembers.
    """

    def __init__(self, model: Any, calculus: Calculus, sample: tuple[Any, ...], *, padded: bool) -> None:  # noqa: ANN401  # keras has no types
        """Make ready for examples like those of `sample`, one or two rows."""
        self._model, self._calculus, self._padded = model, calculus, padded
        sorted_ = sort_weights(model, ())
        self.layout: Final = sorted_.layout
        self._places = dict(zip(map(id, sorted_.shared), _pieces(sorted_.shared), strict=True))
        self._seeds = [id(variable) for variable in sorted_.seeds]
        self._first = {id(variable): _numpy(variable) for variable in sorted_.other}
        self.optimizer: Final = optimizer_of(model)
        self._metrics = _metrics(model, sample)
        self._metrics_first = [[_numpy(v) for v in metric.variables] for metric in self._metrics]
        self.initial: Vector = self.layout.pack([_numpy(variable) for variable in sorted_.shared])
        self.enter = calculus.stacked(self._enter)
        self.leave = calculus.stacked(self._leave)
        self.step = calculus.stacked(self._step)
        self.pulled_step = calculus.stacked(self._pulled_step)
        self.look = calculus.stacked(self._look)

    def seeds(self, seed: int) -> NDArray[np.int64]:
        """Return what the model's random layers begin a round with."""
        return layer_seeds(seed, len(self._seeds))

    def figures(self, told: Sequence[Any], device: int) -> dict[str, float]:
        """Return the figures of one device of a stack, by Keras' names."""
        loss, rows, *remembered = told
        if not rows[device]:
            return {}
        found = {"loss": float(loss[device] / rows[device])}
        for metric, state in zip(self._metrics, remembered, strict=True):
            found[metric.name] = float(
                metric.stateless_result([ops.convert_to_tensor(v[device]) for v in state])
            )
        return found

    def save(self, vector: Vector, path: str) -> None:
        """Write the Keras model with these weights."""
        floats = [v for v in self._model.weights if id(v) in self._places]
        for variable, array in zip(floats, self.layout.unpack(vector), strict=True):
            variable.assign(array)
        self._model.save(path)

    # What follows is of one device, and mapped. `shared` is the same for all.

    def _enter(self, shared: Nest, own: Nest) -> Nest:  # noqa: ARG002  # the interface
        """Return a round's first state."""
        vector, seeds, rate = own
        model = self._model
        return {
            "weights": [self._value(variable, vector, seeds) for variable in model.trainable_variables],
            "rest": [self._value(variable, vector, seeds) for variable in model.non_trainable_variables],
            "slots": self.optimizer.first(rate),
            "told": self._nothing_told(),
        }

    def _leave(self, shared: Nest, own: Nest) -> Tensor:  # noqa: ARG002  # the interface
        """Return the vector of a state."""
        model = self._model
        values = dict(zip(map(id, model.trainable_variables), own["weights"], strict=True))
        values |= zip(map(id, model.non_trainable_variables), own["rest"], strict=True)
        return ops.concatenate([ops.reshape(ops.cast(values[key], "float32"), (-1,)) for key in self._places])

    def _step(self, shared: Nest, own: Nest) -> Nest:
        state, batch = own
        return self._moved(shared, state, batch, lambda slopes: slopes)

    def _pulled_step(self, shared: Nest, own: Nest) -> Nest:
        state, batch, pull = own
        start, linear = (self._trainable_parts(vector) for vector in (pull["start"], pull["linear"]))

        def add(slopes: list[Tensor]) -> list[Tensor]:
            terms = zip(slopes, linear, state["weights"], start, strict=True)
            return [slope + line + pull["strength"] * (weight - base) for slope, line, weight, base in terms]

        return self._moved(shared, state, batch, add)

    def _moved(self, shared: Nest, state: Nest, batch: Nest, pull: Any) -> Nest:  # noqa: ANN401  # a function of slopes
        examples = self._taken(shared, batch["rows"])
        (loss, scores, rest), slopes = self._calculus.slopes(
            lambda weights: self._loss(weights, state["rest"], examples, batch["mask"], training=True),
            state["weights"],
        )
        slopes = [
            ops.zeros_like(weight) if slope is None else slope
            for weight, slope in zip(state["weights"], slopes, strict=True)
        ]
        weights, slots = self.optimizer.step(state["weights"], pull(slopes), state["slots"], batch["rate"])
        if not self.optimizer.is_plain:
            weights = _where(batch["taken"], weights, state["weights"])
        return {
            "weights": weights,
            "rest": _where(batch["taken"], rest, state["rest"]),
            "slots": _where(batch["taken"], slots, state["slots"]),
            "told": self._told(state["told"], loss, examples, scores, batch),
        }

    def _look(self, shared: Nest, own: Nest) -> Nest:
        """Return the state with the figures of one batch, tested and not trained on, added."""
        state, batch = own
        examples = self._taken(shared, batch["rows"])
        _, (loss, scores, _) = self._loss(
            state["weights"], state["rest"], examples, batch["mask"], training=False
        )
        return {**state, "told": self._told(state["told"], loss, examples, scores, batch)}

    def _taken(self, parts: Nest, rows: Tensor) -> Nest:
        return keras.tree.map_structure(lambda array: self._calculus.taken(array, rows), parts)

    def _loss(
        self, weights: Nest, rest: Nest, examples: tuple[Nest, ...], mask: Tensor, *, training: bool
    ) -> tuple[Tensor, tuple[Tensor, Tensor, Nest]]:
        """Return the batch's loss as Keras computes it, and beside it: loss, what the model answers, and the rest."""
        model = self._model
        mode = {"training": training} if model._call_has_training_arg else {}  # noqa: SLF001  # no public way
        scores, rest, extra = model.stateless_call(weights, rest, examples[0], return_losses=True, **mode)
        y, importance = _label(examples), self._importance(examples, mask)
        mapping = [
            *zip(model.trainable_variables, weights, strict=True),
            *zip(model.non_trainable_variables, rest, strict=True),
        ]
        with keras.StatelessScope(state_mapping=mapping):
            model._losses_override = list(extra)  # noqa: SLF001  # as Keras' own trainer for JAX does
            try:
                loss = model.compute_loss(examples[0], y, scores, importance, training=training)
            finally:
                model._losses_override = []  # noqa: SLF001  # (same)
        return loss, (loss, scores, rest)

    def _importance(self, examples: tuple[Nest, ...], mask: Tensor) -> Tensor | None:
        """Return sample weights that make the mean over a padded batch one over those rows that are there."""
        given = examples[2] if len(examples) > 2 else None  # noqa: PLR2004  # x, y, weights
        if not self._padded:
            return given
        scale = mask * (mask.shape[0] / ops.maximum(ops.sum(mask), 1.0))
        return scale if given is None else given * ops.reshape(scale, (-1,) + (1,) * (len(given.shape) - 1))

    def _told(
        self, told: Nest, loss: Tensor, examples: tuple[Nest, ...], scores: Tensor, batch: Nest
    ) -> Nest:
        """Add a batch's figures where its step is one whose figures count."""
        rows = ops.sum(batch["mask"]) * batch["counts"]
        mask = {"sample_weight": batch["mask"]} if self._padded else {}
        found = [told[0] + ops.cast(loss, "float32") * rows, told[1] + rows]
        for metric, state in zip(self._metrics, told[2:], strict=True):
            after = metric.stateless_update_state(state, _label(examples), scores, **mask)
            found.append(_where(batch["counts"] > 0, after, state))
        return found

    def _nothing_told(self) -> Nest:
        metrics = [[ops.convert_to_tensor(value) for value in state] for state in self._metrics_first]
        return [ops.zeros(()), ops.zeros(()), *metrics]

    def _value(self, variable: Any, vector: Tensor, seeds: Tensor) -> Tensor:  # noqa: ANN401  # keras has no types
        key = id(variable)
        if key in self._places:
            piece = self._places[key]
            return ops.cast(ops.reshape(vector[piece.begin : piece.end], piece.shape), piece.dtype)
        if key in self._seeds:
            seed = seeds[self._seeds.index(key)]
            return ops.cast(ops.stack([seed, ops.zeros_like(seed)]), variable.dtype)
        return ops.convert_to_tensor(self._first[key])

    def _trainable_parts(self, vector: Tensor) -> list[Tensor]:
        return [self._value(variable, vector, None) for variable in self._model.trainable_variables]


def _pieces(variables: Sequence[Any]) -> list[Piece]:
    begin, pieces = 0, []
    for variable in variables:
        end = begin + int(np.prod(variable.shape, dtype=np.int64))
        pieces.append(Piece(begin, end, tuple(variable.shape), variable.dtype))
        begin = end
    return pieces


def _metrics(model: Any, sample: tuple[Any, ...]) -> list[Any]:  # noqa: ANN401  # as above
    """Return the metrics that the model was compiled with, made on a `sample`; of several outputs, none."""
    scores = model(sample[0])
    if len(sample) < 2 or not hasattr(scores, "shape"):  # noqa: PLR2004  # x, y
        return []
    model.compute_metrics(sample[0], sample[1], scores)
    model.reset_metrics()
    return [metric for held in model.metrics for metric in getattr(held, "metrics", [])]


def _numpy(variable: Any) -> NDArray[Any]:  # noqa: ANN401  # as above
    return np.asarray(keras.ops.convert_to_numpy(variable))


def _label(examples: tuple[Nest, ...]) -> Nest:
    return examples[1] if len(examples) > 1 else None


def _where(chosen: Tensor, new: Sequence[Tensor], old: Sequence[Tensor]) -> list[Tensor]:
    return [ops.where(chosen, one, other) for one, other in zip(new, old, strict=True)]
