"""Softmax regression and small multi-layer perceptrons in plain NumPy, for tests and for devices without a framework.

The layout is that of the same model in Keras (`Dense` layers, ReLU between them), so that a device with this engine
and one with Keras can learn one model together.

NumPy's matrix products may use several threads; on models of this size that costs more than it gains, so set
``OPENBLAS_NUM_THREADS=1`` (or your BLAS's variable) in the environment of a process that runs many of these.
"""

from __future__ import annotations

import copy
import functools
import itertools
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedmq.descent import gain
from fedmq.device.interface import Trained
from fedmq.errors import ConfigError
from fedmq.trainers.batches import Schedule
from fedmq.trainers.module import Supply, load_user_module
from fedmq.trainers.settings import Settings, finite, real, refuse_unknown, whole
from fedmq.trainers.shares import check_labels, share
from fedmq.vectors import Layout, Variable, Vector

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fedmq.descent import Pull
    from fedmq.device.interface import Setting
    from fedmq.trainers.batches import Rows

Matrix: TypeAlias = NDArray[np.float32]
Labels: TypeAlias = NDArray[np.int64]

_EVALUATED_AT_ONCE: Final = 1024


@dataclass(frozen=True, slots=True)
class Mlp:
    """Sizes of a perceptron: `inputs` numbers per example, ReLU layers of the `hidden` widths, `classes` outputs.

    Without hidden layers it is softmax regression.
    """

    inputs: int
    hidden: tuple[int, ...] = ()
    classes: int = field(kw_only=True)

    def __post_init__(self) -> None:
        """Refuse sizes below 1 (ConfigError)."""
        for size in (self.inputs, *self.hidden, self.classes):
            whole("a layer's size", size)

    @property
    def layout(self) -> Layout:
        """A kernel of shape (in, out) and a bias of shape (out,) per layer, named as Keras names them."""
        return Layout(tuple(v for i, pair in enumerate(self._sides) for v in _dense(i, *pair)))

    def initial(self, seed: int) -> Vector:
        """Return weights as Keras makes them by default: kernels Glorot-uniform, biases zero."""
        generator = np.random.Generator(np.random.Philox(seed))
        arrays: list[Matrix] = []
        for rows, columns in self._sides:
            limit = math.sqrt(6 / (rows + columns))
            arrays.append(generator.uniform(-limit, limit, (rows, columns)).astype(np.float32))
            arrays.append(np.zeros(columns, np.float32))
        return self.layout.pack(arrays)

    @property
    def _sides(self) -> list[tuple[int, int]]:
        return list(itertools.pairwise((self.inputs, *self.hidden, self.classes)))


class NumpyTrainer:
    """Trains an `Mlp` with cross-entropy and SGD on one device's examples.

    `x` has shape (examples, ...) and is flattened to (examples, inputs); `y` holds class numbers of shape (examples,).
    `held_out` is another such pair. `learning_rate` is used where the task names none; `momentum` is the textbook's,
    as Keras computes it, and begins at zero in every round. `seed` makes the first weights.

    Raises ConfigError when the data do not fit the model.
    """

    def __init__(  # noqa: PLR0913  # all but the first three are options with names
        self,
        model: Mlp,
        x: ArrayLike,
        y: ArrayLike,
        *,
        held_out: tuple[ArrayLike, ArrayLike] | None = None,
        learning_rate: float = 0.1,
        momentum: float = 0.0,
        seed: int = 0,
    ) -> None:
        self._model = model
        self._layout = model.layout
        self._x, self._y = _fit(model, x, y, "the training data")
        self._held_out = None if held_out is None else _fit(model, *held_out, "the held-out data")
        self._rate = real("learning_rate", learning_rate)
        self._momentum = real("momentum", momentum)
        self._seed = seed

    @property
    def name(self) -> str:
        """Engine and version, such as ``numpy 2.4.6``."""
        return f"numpy {np.__version__}"

    @property
    def layout(self) -> Layout:
        """The model's layout."""
        return self._layout

    @property
    def examples(self) -> int:
        """How many local examples it trains on."""
        return len(self._x)

    @property
    def x(self) -> Matrix:
        """The local examples, of shape (examples, inputs)."""
        return self._x

    @property
    def y(self) -> Labels:
        """Their class numbers, of shape (examples,)."""
        return self._y

    @property
    def momentum(self) -> float:
        """SGD's momentum."""
        return self._momentum

    def picked(self, rows: Rows) -> NumpyTrainer:
        """Return one that trains on these of the examples."""
        other = copy.copy(self)
        other._x, other._y = self._x[rows], self._y[rows]  # noqa: SLF001  # its own
        return other

    def initial(self) -> Vector:
        """Return the first weights, the same at every call."""
        return self._model.initial(self._seed)

    def train(
        self, model: Vector, settings: Mapping[str, Setting], *, seed: int, pull: Pull | None = None
    ) -> Trained:
        """Train from `model`; see `fedmq.device.interface.Trainer` and, for `settings`, `Settings`."""
        chosen = Settings.parse(settings)
        schedule = Schedule(len(self._x), chosen)
        metrics = dict(self.evaluate(model))
        with np.errstate(all="ignore"):  # a training that diverges is reported as it is
            descent = _Descent(self._layout, model, min(chosen.batch_size, schedule.rows), self._momentum)
            descent.pull(chosen.pulled(pull))
            trained = self._epochs(descent, schedule, seed)
        metrics |= {f"train_{name}": value for name, value in trained.items()}
        reach = self.reach(chosen, schedule.steps)
        return Trained(descent.vector, schedule.rows, schedule.steps, finite(metrics), reach)

    def evaluate(self, model: Vector) -> Mapping[str, float]:
        """Return ``loss``, ``accuracy`` and ``held_out`` of `model`; nothing where no examples are held out."""
        if self._held_out is None:
            return {}
        x, y = self._held_out
        sums = np.zeros(2)
        with np.errstate(all="ignore"):
            descent = _Descent(self._layout, model, min(_EVALUATED_AT_ONCE, len(x)))
            for start in range(0, len(x), _EVALUATED_AT_ONCE):
                rows = slice(start, start + _EVALUATED_AT_ONCE)
                sums += descent.look(x[rows], y[rows])
        return finite({**_means(sums, len(x)), "held_out": float(len(x))})

    def chosen_rate(self, settings: Settings) -> float:
        """Return the learning rate of a round: what the task asked for, else the trainer's own."""
        return self._rate if settings.learning_rate is None else settings.learning_rate

    def reach(self, settings: Settings, steps: int) -> float | None:
        """Return how far `steps` steps carry a gradient of one; None where momentum never fades."""
        return self.chosen_rate(settings) * gain(steps, self._momentum) if self._momentum < 1 else None

    def _epochs(self, descent: _Descent, schedule: Schedule, seed: int) -> dict[str, float]:
        """Run all steps; return the figures of the last epoch, as Keras reports them."""
        rate = np.float32(self.chosen_rate(schedule.settings))
        edges = schedule.cuts.tolist()
        sums, seen = np.zeros(2), 0
        for order, limit in schedule.epochs(seed):
            sums[:], seen = 0, edges[limit]
            for start, stop in itertools.pairwise(edges[: limit + 1]):
                rows = order[start:stop]
                sums += descent.look(self._x[rows], self._y[rows])
                descent.step(rate)
        return _means(sums, seen)


class _Descent:
    """Weights on their way down, and the memory that a step needs, taken once."""

    def __init__(self, layout: Layout, model: Vector, rows: int, momentum: float = 0.0) -> None:
        self._layout = layout
        self.vector = model.astype(np.float32)  # always a copy
        self._base = model
        self._linear: Vector | None = None
        self._strength = np.float32(0)
        self._momentum = np.float32(momentum)
        self._slope = np.empty_like(self.vector)
        self._move = np.zeros_like(self.vector) if momentum else self._slope
        self._kernels, self._biases = _alternate(layout.unpack(self.vector))
        self._kernel_slopes, self._bias_slopes = _alternate(layout.unpack(self._slope))
        self._outputs = [np.empty((rows, bias.size), np.float32) for bias in self._biases]
        self._errors = [np.empty_like(output) for output in self._outputs]

    def pull(self, pull: Pull) -> None:
        """Add these terms to the objective. Raises MisuseError where they are not of the layout."""
        self._strength = np.float32(pull.strength)
        if pull.linear is not None:
            self._layout.unpack(pull.linear)
            self._linear = pull.linear

    def look(self, x: Matrix, y: Labels) -> tuple[float, int]:
        """Carry a batch forward; return the sum of its losses and the number of right answers."""
        layers = self._layers = [x, *(output[: len(x)] for output in self._outputs)]
        self._labels = y
        for i, (kernel, bias) in enumerate(zip(self._kernels, self._biases, strict=True)):
            if i:
                np.maximum(layers[i], 0, out=layers[i])
            np.matmul(layers[i], kernel, out=layers[i + 1])
            layers[i + 1] += bias
        return _judge(layers[-1], y)

    def step(self, rate: np.float32) -> None:
        """Carry the errors of the last batch looked at back through the layers, and move the weights."""
        self._differentiate()
        if self._linear is not None:
            self._slope += self._linear
        if self._strength:
            self._slope += self._strength * (self.vector - self._base)
        self._slope *= -rate
        if self._momentum:
            self._move *= self._momentum
            self._move += self._slope
        self.vector += self._move

    def _differentiate(self) -> None:
        """Fill the slopes: the gradient of the batch's mean loss."""
        rows = len(self._labels)
        errors = [error[:rows] for error in self._errors]
        np.divide(self._layers[-1], np.float32(rows), out=errors[-1])
        errors[-1][np.arange(rows), self._labels] -= np.float32(1 / rows)
        for i in reversed(range(len(errors))):
            np.matmul(self._layers[i].T, errors[i], out=self._kernel_slopes[i])
            errors[i].sum(axis=0, out=self._bias_slopes[i])
            if i:
                np.matmul(errors[i], self._kernels[i].T, out=errors[i - 1])
                errors[i - 1] *= self._layers[i] > 0


def from_module(
    module: str, device: str, options: Mapping[str, object] | None = None, *, supply: Supply | None = None
) -> NumpyTrainer:
    """Return a trainer for a user's module (see `fedmq.trainers.module`) whose `model()` returns an `Mlp`.

    `options`: ``learning_rate``, ``momentum`` and ``seed`` of `NumpyTrainer`. A `supply` takes the place of what
    the module's `data` gives. Raises ConfigError when the module, what
    its functions return, or an option cannot be used.
    """
    user = load_user_module(module)
    given = trainer_options(options or {})
    model = user.model()
    if not isinstance(model, Mlp):
        raise ConfigError(
            f"model() in {module} returned {type(model).__name__}: return an Mlp of fedmq.trainers.numpy"
        )
    supply = supply or user.data(device)
    x, y = trainer_pair(supply.train, module)
    held_out = None if supply.held_out is None else trainer_pair(supply.held_out, module)
    return NumpyTrainer(model, x, y, held_out=held_out, **given)


def trainer_options(options: Mapping[str, object]) -> dict[str, Any]:
    """Return what the configuration says of a NumPy trainer, checked: options of `NumpyTrainer`. Raises ConfigError."""
    checks: dict[str, Callable[[str, object], float]] = {
        "learning_rate": real,
        "momentum": real,
        "seed": functools.partial(whole, least=0),
    }
    refuse_unknown("trainer option", options, checks)
    return {name: checks[name](name, value) for name, value in options.items()}


def trainer_pair(data: object, module: str) -> tuple[ArrayLike, ArrayLike]:
    """Return what a user's `data` gave as (x, y). Raises ConfigError where it is something else."""
    if isinstance(data, tuple) and len(data) == 2:  # noqa: PLR2004  # inputs and labels
        return data
    raise ConfigError(
        f"data() in {module} returned {type(data).__name__} where (x, y) was wanted: return two arrays"
    )


def _dense(index: int, rows: int, columns: int) -> tuple[Variable, Variable]:
    """Name a layer's variables as Keras does in a process's first model."""
    name = f"dense_{index}" if index else "dense"
    return Variable(f"{name}/kernel", (rows, columns)), Variable(f"{name}/bias", (columns,))


def _fit(model: Mlp, x: ArrayLike, y: ArrayLike, what: str) -> tuple[Matrix, Labels]:
    """Return x of shape (examples, inputs) and y of shape (examples,), checked against the model."""
    given = share((x, y), what)
    inputs, labels = np.asarray(given.parts[0]), np.asarray(given.parts[1])
    flat = inputs.reshape(given.rows, -1)
    if flat.shape[1] != model.inputs:
        raise ConfigError(
            f"{what} has {flat.shape[1]} numbers per example, the model takes {model.inputs}: fit them"
        )
    if labels.ndim != 1:
        raise ConfigError(f"{what} has labels of shape {labels.shape}: give one class number per example")
    check_labels(labels, model.classes, what)
    return np.ascontiguousarray(flat, dtype=np.float32), labels.astype(np.int64)


def _alternate(arrays: Sequence[Matrix]) -> tuple[Sequence[Matrix], Sequence[Matrix]]:
    return arrays[::2], arrays[1::2]


def _judge(scores: Matrix, y: Labels) -> tuple[float, int]:
    """Turn `scores` into probabilities in place; return the sum of the losses and the number of right answers."""
    right = int(np.count_nonzero(scores.argmax(axis=1) == y))
    scores -= scores.max(axis=1, keepdims=True)
    chosen = scores[np.arange(len(y)), y]
    np.exp(scores, out=scores)
    totals = scores.sum(axis=1)
    scores /= totals[:, None]
    return float(np.log(totals).sum() - chosen.sum()), right


def _means(sums: NDArray[np.float64], examples: int) -> dict[str, float]:
    return {"loss": float(sums[0]) / examples, "accuracy": float(sums[1]) / examples}
