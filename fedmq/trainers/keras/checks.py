"""Whether a user's model and data can be trained, said in one sentence where they cannot."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import numpy as np

from fedmq.errors import ConfigError
from fedmq.trainers.keras.runtime import keras
from fedmq.trainers.shares import check_labels

if TYPE_CHECKING:
    from fedmq.trainers.keras.network import Network
    from fedmq.trainers.keras.tensors import Examples

_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")
_SPARSE: Final = ("sparse_categorical_crossentropy", keras.losses.sparse_categorical_crossentropy)


def check_model(model: object) -> None:
    """Raise ConfigError unless `model` is a compiled Keras model on TensorFlow."""
    if not isinstance(model, keras.Model):
        raise ConfigError(
            f"the model is a {type(model).__name__}: return a compiled keras.Model from model()"
        )
    if not model.compiled:
        raise ConfigError(
            f"model {model.name!r} is not compiled: call compile(optimizer=..., loss=...) on it"
        )
    if keras.backend.backend() != "tensorflow":
        raise ConfigError(
            f"Keras runs on {keras.backend.backend()}: set KERAS_BACKEND=tensorflow before it is imported"
        )


def build(model: keras.Model, examples: Examples, what: str) -> None:
    """Make the weights of a model that waits for data to make them. Raises ConfigError when the data do not fit."""
    x = examples.parts[0]
    _check_shape(model, x, what)
    if not model.built:
        with (
            suppress(NotImplementedError),
            _Fitting(what),
        ):  # a model with its own train_step need not have a call
            model(keras.tree.map_structure(lambda tensor: tensor[:1], x))
    if not model.trainable_weights:
        raise ConfigError(
            f"model {model.name!r} has nothing to train: give it layers with weights, and not all frozen"
        )


def check_fit(model: keras.Model, network: Network, examples: Examples, what: str) -> None:
    """Raise ConfigError unless the model trains on `examples`."""
    classes = classes_of(model)
    if classes is not None:
        check_labels(np.asarray(examples.parts[1]), classes, what)
    with _Fitting(what):
        network.rehearse(examples)


class _Fitting:
    """Puts what Keras says of data that do not fit into one sentence."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        """Nothing to do."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, NotImplementedError):
            raise ConfigError(
                f"{self._what} does not fit the model ({_gist(error)}): change one or the other"
            ) from error


def _gist(error: Exception) -> str:
    """Return the line of Keras' message that tells what is wrong."""
    lines = [line.strip() for line in _COLOUR.sub("", str(error)).splitlines()]
    telling = [line for line in lines if line and not line.startswith("Exception encountered")]
    return telling[0].rstrip(".:") if telling else type(error).__name__


def _check_shape(model: keras.Model, x: object, what: str) -> None:
    wanted = getattr(model, "input_shape", None)
    if not isinstance(wanted, tuple) or not hasattr(x, "shape"):
        return  # several inputs, or unknown before the first call: Keras tells
    found = tuple(x.shape)
    padded = (
        (*found, 1) if len(found) == len(wanted) - 1 else found
    )  # Keras adds a last axis where it is missing
    if len(padded) != len(wanted) or any(
        w not in {None, f} for w, f in zip(wanted[1:], padded[1:], strict=True)
    ):
        raise ConfigError(
            f"{what} has examples of shape {found[1:]}, the model takes {wanted[1:]}: change one or the other"
        )


def classes_of(model: keras.Model) -> int | None:
    """Return how many classes the labels may name, where the loss takes class numbers and the model has one output."""
    loss, shape = model.loss, getattr(model, "output_shape", None)
    sparse = isinstance(loss, keras.losses.SparseCategoricalCrossentropy) and loss.ignore_class is None
    if (sparse or loss in _SPARSE) and isinstance(shape, tuple) and isinstance(shape[-1], int):
        return shape[-1]
    return None
