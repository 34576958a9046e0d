"""One optimizer step as a pure function of weights, slopes and the optimizer's own state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import keras
import numpy as np

from fedmq.descent import gain
from fedmq.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fedmq.engines.stacking.calculus import Tensor


class Optimizer(Protocol):
    """How weights are moved; of one device, the caller maps it over many."""

    def first(self, rate: Tensor) -> list[Tensor]:
        """Return the state before the first step of a round at this learning rate."""

    def step(
        self, weights: Sequence[Tensor], slopes: Sequence[Tensor], state: Sequence[Tensor], rate: Tensor
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return weights and state after one more step. At a rate of zero nothing need stay as it is."""

    def chosen_rate(self, asked: float | None) -> float:
        """Return a round's learning rate; ConfigError where the task asks for one and a schedule decides."""

    def reach(self, asked: float | None, steps: int) -> float | None:
        """Return how far `steps` steps carry a gradient of one; None where that cannot be said."""


class Sgd(Optimizer):
    """Keras' own SGD with a fixed rate, with or without momentum, and nothing else."""

    def __init__(self, optimizer: Any) -> None:  # noqa: ANN401  # keras has no types
        self._rate = float(keras.ops.convert_to_numpy(optimizer.learning_rate))
        self._momentum = float(optimizer.momentum)
        self._nesterov = bool(optimizer.nesterov) and self._momentum > 0
        self._shapes = [tuple(variable.shape) for variable in optimizer._trainable_variables]  # noqa: SLF001  # no public way

    @property
    def is_plain(self) -> bool:
        """Whether a step at a rate of zero changes nothing."""
        return not self._momentum

    def first(self, rate: Tensor) -> list[Tensor]:  # noqa: ARG002  # the interface
        """Return no movement at all."""
        return [keras.ops.zeros(shape) for shape in self._shapes] if self._momentum else []

    def step(
        self, weights: Sequence[Tensor], slopes: Sequence[Tensor], state: Sequence[Tensor], rate: Tensor
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Go down, in the order of operations that Keras has."""
        ways = [slope * rate for slope in slopes]
        if not self._momentum:
            return [weight - way for weight, way in zip(weights, ways, strict=True)], []
        moves = [move * self._momentum - way for move, way in zip(state, ways, strict=True)]
        pushes = (
            [m * self._momentum - w for m, w in zip(moves, ways, strict=True)] if self._nesterov else moves
        )
        return [weight + push for weight, push in zip(weights, pushes, strict=True)], moves

    def chosen_rate(self, asked: float | None) -> float:
        """Return the task's rate, else the one that the model was compiled with."""
        return self._rate if asked is None else asked

    def reach(self, asked: float | None, steps: int) -> float | None:
        """Return rate times `fedmq.descent.gain`."""
        return self.chosen_rate(asked) * gain(steps, self._momentum, nesterov=self._nesterov)


class Applied(Optimizer):
    """Any other optimizer of Keras, by its own `stateless_apply`, which TensorFlow's backend does not offer."""

    def __init__(self, optimizer: Any) -> None:  # noqa: ANN401  # keras has no types
        self._optimizer = optimizer
        rate = optimizer._learning_rate  # noqa: SLF001  # the variable itself, or a schedule
        self._rate = float(keras.ops.convert_to_numpy(rate)) if isinstance(rate, keras.Variable) else None
        self._rate_at = next((i for i, own in enumerate(optimizer.variables) if own is rate), None)
        self._first = _first_state(optimizer)

    @property
    def is_plain(self) -> bool:
        """Whether a step at a rate of zero changes nothing: no, it counts."""
        return False

    def first(self, rate: Tensor) -> list[Tensor]:
        """Return the state of a new optimizer, with this rate in it."""
        state = [keras.ops.convert_to_tensor(value) for value in self._first]
        if self._rate_at is not None:
            state[self._rate_at] = keras.ops.cast(rate, state[self._rate_at].dtype)
        return state

    def step(
        self,
        weights: Sequence[Tensor],
        slopes: Sequence[Tensor],
        state: Sequence[Tensor],
        rate: Tensor,  # noqa: ARG002  # it is in the state
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Let Keras do it."""
        moved, after = self._optimizer.stateless_apply(list(state), list(slopes), list(weights))
        return list(moved), list(after)

    def chosen_rate(self, asked: float | None) -> float:
        """Return the task's rate, else the one that the model was compiled with."""
        if asked is not None and self._rate is None:
            raise ConfigError(
                "the model was compiled with a learning rate schedule and the task sets learning_rate: leave out one"
            )
        return self._rate or 0.0 if asked is None else asked

    def reach(self, asked: float | None, steps: int) -> float | None:  # noqa: ARG002  # the interface
        """Return None: its steps are not proportional to gradients."""
        return None


def optimizer_of(model: Any) -> Sgd | Applied:  # noqa: ANN401  # keras has no types
    """Return the model's optimizer. Raises ConfigError where this backend cannot state it as a function."""
    optimizer = model.optimizer
    if not optimizer.built:
        optimizer.build(model.trainable_variables)
    if is_simple_sgd(optimizer):
        return Sgd(optimizer)
    if keras.backend.backend() == "tensorflow":
        raise ConfigError(
            f"optimizer {optimizer.name!r} is more than SGD with a fixed rate and momentum, and Keras on TensorFlow "
            "has no stateless form of it: its devices train one at a time, or on engine 'jax'"
        )
    return Applied(optimizer)


def is_simple_sgd(optimizer: Any) -> bool:  # noqa: ANN401  # as above
    """Tell Keras' SGD with nothing (decay, clipping, accumulation, a schedule) between gradient and weight."""
    names = ("weight_decay", "clipnorm", "clipvalue", "global_clipnorm", "gradient_accumulation_steps")
    fixed = isinstance(optimizer._learning_rate, keras.Variable)  # noqa: SLF001  # as above
    return (
        type(optimizer) is keras.optimizers.SGD
        and fixed
        and not any(getattr(optimizer, name, None) for name in names)
    )


def _first_state(optimizer: Any) -> list[Any]:  # noqa: ANN401  # as above
    """Return the variables of a copy made of the configuration: the optimizer itself may have steps behind it."""
    fresh = type(optimizer).from_config(optimizer.get_config())
    fresh.build(optimizer._trainable_variables)  # noqa: SLF001  # as above
    return [np.asarray(keras.ops.convert_to_numpy(variable)) for variable in fresh.variables]
