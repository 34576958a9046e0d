"""Whether a Keras model's training is made of what stacking knows, said in one sentence where it is not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import keras

from fedmq.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

_OF_ITS_OWN: Final = ("train_step", "test_step", "compute_metrics")
_NAMED: Final = ("sparse_categorical_crossentropy", keras.losses.sparse_categorical_crossentropy)


def check_stackable(model: object, backend: str) -> None:
    """Raise ConfigError unless `model` is a compiled Keras model that Keras' own training steps train."""
    if not isinstance(model, keras.Model):
        raise ConfigError(
            f"the model is a {type(model).__name__}: return a compiled keras.Model from model()"
        )
    if not model.compiled or model.optimizer is None:
        raise ConfigError(
            f"model {model.name!r} is not compiled: call compile(optimizer=..., loss=...) on it"
        )
    for step in _OF_ITS_OWN:
        if getattr(type(model), step) is not getattr(keras.Model, step):
            raise _refused(model, f"has a {step} of its own")
    if model.run_eagerly:
        raise _refused(model, "is compiled with run_eagerly")
    if isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer):
        raise _refused(model, "scales its loss (LossScaleOptimizer)")
    if model.optimizer.use_ema:
        raise _refused(model, "averages its weights (use_ema)")
    if keras.backend.backend() != backend:
        raise ConfigError(f"Keras runs on {keras.backend.backend()}, this engine wants {backend}")


def shows_padding(model: Any) -> bool:  # noqa: ANN401  # keras has no types
    """Tell whether rows that fill up a batch might change what the others learn, though they weigh nothing.

    They do where a layer looks at all rows of a batch (batch normalisation, a regularised activity), and might in a
    layer, loss or metric of the user's own.
    """
    losses = _flat(model.loss)
    own_loss = type(model).compute_loss is not keras.Model.compute_loss or any(
        isinstance(loss, keras.losses.Loss) and loss.reduction != "sum_over_batch_size" for loss in losses
    )
    metrics = [metric for held in model.metrics for metric in getattr(held, "metrics", [])]
    layers = [layer for layer in model._flatten_layers() if layer is not model]  # noqa: SLF001  # no public way
    return own_loss or any(map(_mixes_rows, layers)) or not all(map(_is_keras, [*metrics, *layers]))


def classes_of(model: Any) -> int | None:  # noqa: ANN401  # as above
    """Return how many classes the labels may name, where the loss takes class numbers and the model has one output."""
    loss, shape = model.loss, getattr(model, "output_shape", None)
    sparse = isinstance(loss, keras.losses.SparseCategoricalCrossentropy) and loss.ignore_class is None
    if (sparse or loss in _NAMED) and isinstance(shape, tuple) and isinstance(shape[-1], int):
        return shape[-1]
    return None


def _mixes_rows(layer: Any) -> bool:  # noqa: ANN401  # as above
    return isinstance(layer, keras.layers.BatchNormalization) or layer.activity_regularizer is not None


def _is_keras(thing: object) -> bool:
    return type(thing).__module__.startswith("keras.")


def _flat(given: object) -> Iterable[object]:
    return keras.tree.flatten(given) if given is not None else ()


def _refused(model: Any, why: str) -> ConfigError:  # noqa: ANN401  # as above
    return ConfigError(
        f"model {model.name!r} {why}, so its devices cannot be stacked: take engine 'tensorflow', which then trains "
        "one device at a time"
    )
