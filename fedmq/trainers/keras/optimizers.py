"""What a round asks of Keras' optimizers: to begin anew, at the task's rate, with an algorithm's pull or without."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from fedmq.descent import gain
from fedmq.errors import ConfigError
from fedmq.trainers.keras.runtime import keras, tf

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from fedmq.trainers.shares import Array


class OptimizerState:
    """An optimizer's variables and what they hold before the first step.

    An optimizer that was built before (in a model loaded from a file, say) may have steps behind it; its first state
    is read from a copy made of its configuration.
    """

    def __init__(self, optimizer: keras.Optimizer, variables: Sequence[keras.Variable]) -> None:
        self.optimizer = optimizer
        self._first = [(variable, first) for variable, first in _first_state(optimizer, variables)]
        rate = optimizer.learning_rate
        self.rate: float | None = float(rate.numpy()) if isinstance(rate, keras.Variable) else None

    @property
    def averages(self) -> bool:
        """Whether the weights are replaced by their moving average when training ends (`use_ema`)."""
        return bool(_innermost(self.optimizer).use_ema)

    @property
    def first(self) -> list[Array]:
        """What its variables hold before the first step, in the optimizer's order."""
        return [first for _, first in self._first]

    @property
    def plain(self) -> bool:
        """Whether it is Keras' own SGD with nothing but rate and momentum between gradients and weights."""
        return (
            type(self.optimizer) is keras.optimizers.SGD
            and self.rate is not None
            and not _altered(self.optimizer)
        )

    def reset(self) -> None:
        """Set every variable back; in a compiled function, add the operations that do."""
        for variable, first in self._first:
            variable.assign(_constant(first))

    def chosen_rate(self, asked: float | None) -> float:
        """Return the learning rate of a round: what the task asked for, else what the model was compiled with.

        Raises ConfigError where the task asks for one and the optimizer follows a schedule.
        """
        if asked is not None and self.rate is None:
            raise ConfigError(
                "the model was compiled with a learning rate schedule and the task sets learning_rate: leave out one"
            )
        return self.rate or 0.0 if asked is None else asked

    def reach(self, asked: float | None, steps: int) -> float | None:
        """Return how far `steps` steps at the round's rate carry a gradient of one; None where that cannot be said.

        It can for Keras' own SGD, with or without momentum, as long as nothing else (decay, clipping, averages, loss
        scaling, accumulation, a schedule) comes between gradient and weight.
        """
        if not self.plain:
            return None
        sgd = self.optimizer
        return self.chosen_rate(asked) * gain(steps, sgd.momentum, nesterov=sgd.momentum > 0 and sgd.nesterov)

    def set_rate(self, rate: tf.Tensor) -> None:
        """Use this learning rate, unless a schedule decides."""
        if self.rate is not None:
            self.optimizer.learning_rate.assign(rate)


def optimizers_of(model: keras.Model) -> list[keras.Optimizer]:
    """Return the optimizers that a model holds beside the one it was compiled with."""
    found = [value for value in vars(model).values() if isinstance(value, keras.Optimizer)]
    return [optimizer for optimizer in found if optimizer is not model.optimizer]


@contextmanager
def pulled(
    optimizer: keras.Optimizer, terms: Mapping[int, tuple[tf.Tensor, tf.Tensor]], strength: tf.Tensor
) -> Iterator[None]:
    """Add the gradient of a `Pull` to all that `optimizer` applies meanwhile: ``linear + strength * (weight - base)``.

    `terms` holds base (the round's first value) and linear, by ``id`` of the weight's Keras variable. As they are added
    before momentum and Adam's moments are taken, this is the gradient of the pulled objective for every optimizer.
    """
    inner = _innermost(optimizer)
    apply = inner.apply

    def apply_pulled(
        grads: Sequence[tf.Tensor], trainable_variables: Sequence[keras.Variable] | None = None
    ) -> None:
        variables = list(trainable_variables or inner._trainable_variables)  # noqa: SLF001  # no public way
        apply([_pull(*pair, terms, strength) for pair in zip(grads, variables, strict=True)], variables)

    inner.__dict__["apply"] = apply_pulled  # past Keras' tracking of attributes
    try:
        yield
    finally:
        del inner.__dict__["apply"]


def _pull(
    gradient: tf.Tensor | None,
    weight: keras.Variable,
    terms: Mapping[int, tuple[tf.Tensor, tf.Tensor]],
    strength: tf.Tensor,
) -> tf.Tensor | None:
    if gradient is None or id(weight) not in terms:
        return gradient
    base, linear = (tf.cast(term, gradient.dtype) for term in terms[id(weight)])
    pull = linear + tf.cast(strength, gradient.dtype) * (tf.cast(weight.value, gradient.dtype) - base)
    return tf.convert_to_tensor(gradient) + pull


def _altered(optimizer: keras.Optimizer) -> bool:
    """Say whether anything but rate and momentum stands between gradients and weights."""
    names = (
        "weight_decay",
        "clipnorm",
        "clipvalue",
        "global_clipnorm",
        "use_ema",
        "gradient_accumulation_steps",
    )
    return any(getattr(optimizer, name, None) for name in names)


def _innermost(optimizer: keras.Optimizer) -> keras.Optimizer:
    """Return the optimizer under a loss-scaling one."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def _first_state(
    optimizer: keras.Optimizer, variables: Sequence[keras.Variable]
) -> list[tuple[keras.Variable, Array]]:
    fresh = optimizer
    if optimizer.built:
        fresh = type(optimizer).from_config(optimizer.get_config())
        variables = _innermost(optimizer)._trainable_variables  # noqa: SLF001  # no public way
    fresh.build(variables)
    return [(mine, its.numpy()) for mine, its in zip(optimizer.variables, fresh.variables, strict=True)]


def _constant(value: Array) -> tf.Tensor:
    """Return a tensor of these values, without a copy of them in the graph where they are all alike."""
    if value.size and (value == value.flat[0]).all():
        return tf.fill(value.shape, value.dtype.type(value.flat[0]))
    return tf.constant(value)
