"""The user's Keras model for an engine: made anew, with its first weights under the seed; no backend is chosen here."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from fedmq.trainers.absent import absent
from fedmq.trainers.module import load_user_module
from fedmq.trainers.settings import whole

if TYPE_CHECKING:
    from collections.abc import Mapping


def first_model(module: str, options: Mapping[str, Any]) -> Any:  # noqa: ANN401  # keras has no types
    """Return what the `model()` of a user's module gives, as the Keras trainer would have it: after setting its seed.

    Weights are drawn by Keras' backend, so another backend makes other first weights of the same seed.
    """
    import keras

    if options.get("seed") is not None:
        seed = whole("seed", options["seed"], least=0)
        # Keras on another backend would import TensorFlow to set its seed, too: 5 s and 500 MB.
        with nullcontext() if keras.backend.backend() == "tensorflow" else absent("tensorflow"):
            keras.utils.set_random_seed(seed)
    return load_user_module(module).model()
