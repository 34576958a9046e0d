"""Whether an exported model trains as Keras does: tried, not assumed."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

from fedmq.errors import ConfigError
from fedmq.trainers.keras.optimizers import OptimizerState
from fedmq.trainers.keras.runtime import keras, tf
from fedmq.trainers.keras.trainer import KerasTrainer
from fedmq.trainers.litert.file import Optimizer
from fedmq.trainers.litert.model import LitertModel
from fedmq.trainers.litert.optimizers import Traced
from fedmq.trainers.litert.trainer import LitertTrainer
from fedmq.vectors import split

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from fedmq.trainers.litert.file import ModelFile
    from fedmq.trainers.shares import Share
    from fedmq.vectors import Vector

TOLERANCE: Final = 1e-3
"""How far the two may be apart, as a share of how far they have moved; rounding alone is a hundred times less."""

_RATE: Final = 0.01
_STEPS: Final = 3


def check(model: keras.Model, file: ModelFile, given: Share, personal: Sequence[str]) -> None:
    """Train with both and compare. Raises ConfigError where they do not agree.

    Gradients are compared by an epoch of plain SGD, the last batch of it a ragged one: an optimizer like Adam takes
    steps of full length where a gradient is nothing but rounding. What such an optimizer makes of gradients is compared
    by itself.
    """
    plain = replace(file.description, optimizer=Optimizer("sgd", _RATE))
    shared = LitertModel(replace(file, description=plain))
    ours, first = LitertTrainer(shared, given.parts, held_out=given.parts), shared.initial()
    task = {"batch_size": plain.batch_size}
    with _compiled_with(model, keras.optimizers.SGD(_RATE)):
        theirs = KerasTrainer(model, given.parts, held_out=given.parts, personal=personal)
        expected = theirs.train(first, task, seed=1)
    found = ours.train(first, task, seed=1)
    weights, figures = _apart(expected.vector, found.vector, first), _figures(expected.metrics, found.metrics)
    if not max(weights, figures) < TOLERANCE:
        raise ConfigError(
            f"the exported model {model.name!r} does not train as Keras does (weights {weights:.1%} apart, figures "
            f"{figures:.1%}): does a layer or a loss of your own look at several examples at once? Train it with Keras"
        )
    if file.description.optimizer.kind == "traced":
        _check_optimizer(model, file)


def _check_optimizer(model: keras.Model, file: ModelFile) -> None:
    """Have both optimizers take steps along the same random gradients."""
    numbers, sizes = file.description.trainable, [variable.size for variable in file.description.variables]
    weights = [
        part.reshape(v.shape)
        for part, v in zip(split(file.weights, sizes), file.description.variables, strict=True)
    ]
    mine = [weights[i].copy() for i in numbers]
    floats = [weight for weight in model.weights if tf.as_dtype(weight.dtype).is_floating]
    theirs = [floats[i] for i in numbers]
    for variable, weight in zip(theirs, mine, strict=True):
        variable.assign(weight)
    generator, state = (
        np.random.Generator(np.random.Philox(1)),
        OptimizerState(model.optimizer, model.trainable_variables),
    )
    state.reset()
    with LitertModel(file).interpreter() as interpreter:
        mover = Traced(file.description, file.description.optimizer.rate, interpreter)
        for _ in range(_STEPS):
            slopes = [generator.normal(size=weight.shape).astype(np.float32) for weight in mine]
            model.optimizer.apply([tf.constant(slope) for slope in slopes], theirs)
            mover.move(mine, slopes)
    state.reset()
    expected = [variable.numpy() for variable in theirs]
    first = [weights[i] for i in numbers]
    apart = _apart(
        *(np.concatenate([part.reshape(-1) for part in parts]) for parts in (expected, mine, first))
    )
    if not apart < TOLERANCE:
        raise ConfigError(
            f"the exported optimizer of model {model.name!r} does not move weights as Keras' does ({apart:.1%} apart): "
            "train this model with Keras, or compile it with another optimizer"
        )


def _apart(expected: Vector, found: Vector, first: Vector) -> float:
    """Return how far apart the two are at most, as a share of how far one has moved at most."""
    return float(
        np.abs(expected - found).max(initial=0) / (np.abs(expected - first).max(initial=0) + _RATE**2)
    )


def _figures(expected: Mapping[str, float], found: Mapping[str, float]) -> float:
    """Return how far the figures that both report are apart, of their size."""
    both = expected.keys() & found.keys()
    return max(
        (abs(expected[name] - found[name]) / (abs(expected[name]) + TOLERANCE) for name in both), default=0.0
    )


@contextmanager
def _compiled_with(model: keras.Model, optimizer: keras.Optimizer) -> Iterator[None]:
    """Have the model use another optimizer for a while, and hold its weights in no bounds."""
    own, bounds = model.optimizer, [(weight, weight.constraint) for weight in model.trainable_variables]
    model.optimizer = optimizer
    for weight, _ in bounds:
        weight.constraint = None
    try:
        yield
    finally:
        model.optimizer = own
        for weight, bound in bounds:
            weight.constraint = bound
