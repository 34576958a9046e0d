"""A compiled Keras model and an example of its data to the file that devices train from."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, cast

import numpy as np

from fedmq.errors import ConfigError
from fedmq.trainers.keras.checks import build, check_fit, check_model, classes_of
from fedmq.trainers.keras.network import Network
from fedmq.trainers.keras.optimizers import OptimizerState
from fedmq.trainers.keras.runtime import ENGINE, keras, tf
from fedmq.trainers.keras.sources import source
from fedmq.trainers.keras.tensors import join, spread
from fedmq.trainers.keras.trainer import plain
from fedmq.trainers.keras.weights import sort_weights
from fedmq.trainers.litert.examples import paths
from fedmq.trainers.litert.export.checking import check
from fedmq.trainers.litert.export.converting import convert, layers_of
from fedmq.trainers.litert.export.tracing import Given, Tracing, updates
from fedmq.trainers.litert.file import (
    DRAW,
    EVALUATE,
    FORMAT,
    GRADIENTS,
    UPDATE,
    Description,
    ModelFile,
    Optimizer,
    Port,
    State,
    digest,
    input_ports,
    to_bytes,
)
from fedmq.trainers.module import load_user_module
from fedmq.trainers.settings import whole
from fedmq.trainers.shares import Share, map_arrays, share

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fedmq.trainers.keras.sources import Data
    from fedmq.trainers.litert.export.converting import Traced
    from fedmq.trainers.shares import Array, Nest
    from fedmq.vectors import Vector

DEFAULT_BATCH_SIZE: Final = 32
_AVERAGES: Final = {"sum_over_batch_size": True, "mean": True, "sum": False}


@dataclass(frozen=True, slots=True, eq=False)
class Exported:
    """A model file, and what a user should know of it: one sentence each."""

    file: ModelFile
    notes: tuple[str, ...]

    @property
    def content(self) -> bytes:
        """What is written to disk."""
        return to_bytes(self.file)


def from_module(
    module: str,
    *,
    device: str = "init",
    batch_size: int = DEFAULT_BATCH_SIZE,
    seed: int | None = None,
    personal: Sequence[str] = (),
) -> Exported:
    """Export the model of a user's module (see `fedmq.trainers.module`), with `data(device)` to learn its data's form.

    `seed` is set before `model()` is called, as by `fedmq.trainers.keras.from_module`. Raises ConfigError where the
    module, its model or its data cannot be used.
    """
    user = load_user_module(module)
    if seed is not None:
        keras.utils.set_random_seed(seed)
    model = user.model()
    return export(
        cast("keras.Model", model), user.data(device).train, batch_size=batch_size, personal=personal
    )


def export(
    model: keras.Model, data: object, *, batch_size: int = DEFAULT_BATCH_SIZE, personal: Sequence[str] = ()
) -> Exported:
    """Make a model file out of a compiled model and (x, y), examples of what it is trained on.

    `batch_size` is how many rows a call of the file takes; devices train with any, fastest with this one. What comes
    out has been trained for a few steps beside Keras and gave the same weights. The model can be trained further, but
    its weights are other ones then. Raises ConfigError, naming the layer, where LiteRT cannot train it as Keras does.
    """
    whole("batch_size", batch_size)
    check_model(model)
    _check_steps(model)
    given = _sample(data, batch_size + max(1, batch_size // 2))
    form, first = _form(model, given, personal, batch_size)
    description, content = _traced(form, _described(form, given, personal))
    file = ModelFile(content, replace(description, sha256=digest(content)), first)
    spread(tf.constant(first), form.weights)
    check(model, file, given, personal)
    return Exported(file, tuple(_notes(model, file.description)))


def _form(model: keras.Model, given: Share, personal: Sequence[str], rows: int) -> tuple[Given, Vector]:
    """Build the model and what belongs to it; return what tracing needs, and the first weights."""
    examples = next(source(cast("Data", given.parts), "the training data").parts())
    build(model, examples, "the training data")
    network, weights = Network(model, personal), sort_weights(model, personal)
    floats = [weight for weight in model.weights if tf.as_dtype(weight.dtype).is_floating]
    first = join(floats).numpy()
    check_fit(model, network, examples, "the training data")
    _check_layers(model)
    _check_weights(model, floats, weights.other)
    names = [name for name, _ in paths(given.parts[0])]
    return Given(model, floats, weights.seeds, given.parts[0], names, rows, _means(model)), first


def _described(form: Given, given: Share, personal: Sequence[str]) -> Description:
    """Return what is known of the model before it is traced."""
    model, (x, y) = form.model, given.parts[:2]
    return Description(
        format=FORMAT,
        engine=ENGINE,
        sha256="",
        batch_size=form.rows,
        variables=sort_weights(model, personal).layout.variables,
        updated=(),
        x=tuple(_port(name, array) for name, array in paths(x)),
        y=_port("y", cast("Array", y)),
        classes=classes_of(model),
        metrics=tuple(plain({metric.name: 0.0 for metric in form.metrics})),
        optimizer=_optimizer(model),
        averaged=_averaged(model),
        indivisible=False,
        generators=len(form.seeds),
    )


def _traced(form: Given, description: Description) -> tuple[Description, bytes]:
    """Return the description with what tracing found, and the LiteRT model."""
    tracing = Tracing(form)
    learn = tf.function(
        lambda *given: tracing.gradients(
            dict(zip([port.name for port in input_ports(description)], given, strict=True))
        ),
        input_signature=[tf.TensorSpec(port.shape, port.dtype) for port in input_ports(description)],
        autograph=False,
    )
    learn.get_concrete_function()
    normalised = any(isinstance(layer, keras.layers.BatchNormalization) for layer in layers_of(form.model))
    found = replace(
        description,
        updated=tracing.updated,
        draws=tracing.draws,
        indivisible=tracing.penalised or normalised,
    )
    batch = [port for port in input_ports(found) if not port.name.startswith(DRAW)]
    signatures: dict[str, tuple[Traced, Sequence[Port]]] = {
        GRADIENTS: (tracing.gradients, list(input_ports(found))),
        EVALUATE: (tracing.evaluate, batch),
    }
    if found.optimizer.kind == "traced":
        signatures[UPDATE] = _update(form, found)
    return found, convert(form.model, signatures)


def _update(form: Given, description: Description) -> tuple[Traced, list[Port]]:
    numbers, optimizer = description.trainable, description.optimizer
    ports = [Port(f"{kind}{i}", description.variables[i].shape, "float32") for kind in "wg" for i in numbers]
    ports += [Port(f"o{place}", state.shape, state.dtype) for place, state in enumerate(optimizer.states)]
    if optimizer.rate is not None:
        ports.append(Port("rate", (), "float32"))
    weights = [form.weights[i] for i in numbers]
    return functools.partial(updates, form.model.optimizer, weights, numbers), ports


def _sample(data: object, rows: int) -> Share:
    """Return `rows` examples of these kinds, over and over again where there are fewer."""
    if isinstance(data, tf.data.Dataset):
        raise ConfigError(
            "the training data is a tf.data.Dataset, which needs TensorFlow: return arrays, (x, y)"
        )
    if not isinstance(data, tuple) or not 2 <= len(data) <= 3:  # noqa: PLR2004  # x, y, weights
        raise ConfigError(
            f"the training data is a {type(data).__name__} where (x, y) was wanted: return two arrays"
        )
    found = share(data, "the training data")
    if isinstance(found.parts[1], Mapping | tuple):
        raise ConfigError(
            "the training data has several targets: LiteRT trains on one, train this model with Keras"
        )
    numbers = np.arange(rows) % found.rows
    parts = tuple(map_arrays(lambda array: _plain_type(array)[numbers], part) for part in found.parts)
    return Share(cast("tuple[Nest, ...]", parts), rows)


def _plain_type(array: Array) -> Array:
    """Return the array in a type that every LiteRT operation has: its whole numbers are of 32 bits."""
    return array.astype(np.int32) if array.dtype.kind in "iu" else array


def _port(name: str, array: Array) -> Port:
    return Port(name, tuple(array.shape[1:]), array.dtype.name)


def _means(model: keras.Model) -> list[keras.metrics.Mean]:
    """Return the compiled metrics that are means over examples: those that LiteRT can compute."""
    return [metric for metric in _metrics(model) if isinstance(metric, keras.metrics.Mean)]


def _metrics(model: keras.Model) -> list[keras.Metric]:
    compiled = model._compile_metrics  # noqa: SLF001  # no public way
    groups = compiled._flat_metrics if compiled else []  # noqa: SLF001  # (same)
    return [metric for group in groups if group for metric in group.metrics]


def _averaged(model: keras.Model) -> bool:
    """Return whether the loss is divided by the number of rows."""
    losses = model._compile_loss._flat_losses  # noqa: SLF001  # no public way
    if len(losses) != 1:
        raise ConfigError(
            f"model {model.name!r} has {len(losses)} losses: LiteRT trains with one, train it with Keras"
        )
    kind = losses[0].loss.reduction
    if kind not in _AVERAGES:
        raise ConfigError(
            f"the loss of model {model.name!r} has reduction {kind!r}: "
            f"LiteRT trains with {', '.join(map(repr, _AVERAGES))}"
        )
    return _AVERAGES[kind]


def _optimizer(model: keras.Model) -> Optimizer:
    state = OptimizerState(model.optimizer, model.trainable_variables)
    if state.plain and all(weight.constraint is None for weight in model.trainable_variables):
        sgd = model.optimizer
        return Optimizer("sgd", state.rate, float(sgd.momentum), bool(sgd.momentum and sgd.nesterov))
    if state.averages or getattr(model.optimizer, "gradient_accumulation_steps", None):
        raise ConfigError(
            f"the optimizer of model {model.name!r} averages weights or gathers gradients over steps, "
            "which LiteRT cannot do: leave out use_ema and gradient_accumulation_steps, or train it with Keras"
        )
    pairs = zip(model.optimizer.variables, state.first, strict=True)
    states = [_state(first) for variable, first in pairs if variable is not model.optimizer.learning_rate]
    return Optimizer("traced", state.rate, states=tuple(states))


def _state(first: Array) -> State:
    if first.size and (first != first.flat[0]).any():
        raise ConfigError(
            "the optimizer begins with numbers that differ, which LiteRT cannot do: train it with Keras"
        )
    return State(tuple(first.shape), first.dtype.name, float(first.flat[0]) if first.size else 0.0)


def _check_steps(model: keras.Model) -> None:
    for name in ("train_step", "test_step"):
        if any(name in vars(kind) for kind in type(model).__mro__[: type(model).__mro__.index(keras.Model)]):
            raise ConfigError(
                f"model {model.name!r} has a {name} of its own, which no LiteRT file can hold: train it with Keras"
            )


def _check_layers(model: keras.Model) -> None:
    for layer in layers_of(model):
        if isinstance(layer, keras.layers.Conv1D | keras.layers.Conv2D) and layer.groups > 1:
            raise ConfigError(
                f"layer {layer.name!r} convolves in groups, which LiteRT cannot train: use groups=1"
            )


def _check_weights(
    model: keras.Model, floats: Sequence[keras.Variable], other: Sequence[keras.Variable]
) -> None:
    for variable in (*(weight for weight in floats if weight.dtype != "float32"), *other):
        raise ConfigError(
            f"variable {variable.path!r} of model {model.name!r} is of type {variable.dtype}: "
            "LiteRT trains float32 weights only, change it or train the model with Keras"
        )


def _notes(model: keras.Model, description: Description) -> Iterator[str]:
    left_out = [metric.name for metric in _metrics(model) if not isinstance(metric, keras.metrics.Mean)]
    if left_out:
        yield f"devices do not report {', '.join(left_out)}: only metrics that are means over examples"
    if description.indivisible:
        yield f"a task's batch_size may be {description.batch_size} at most: this model must see a batch whole"
