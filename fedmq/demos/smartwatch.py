"""Seven shoulder exercises, told from a wrist's accelerometer and gyroscope: the model, and a person's data a device.

This is all that fedmq asks of a user: a function `model()` and a function `data(device)`.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any

from fedmq.datasets import Dataset, smartwatch

if TYPE_CHECKING:
    import keras


def model() -> keras.Model:
    """Return three convolutions over windows of 2 s (100 samples of 6 channels) and a maximum over what they found.

    Group normalisation keeps no running statistics, so people who move differently have none to disagree about.
    """
    import keras  # noqa: PLC0415 - only who trains needs the framework
    from keras import layers  # noqa: PLC0415

    network = keras.Sequential(
        [
            keras.Input((100, 6)),
            layers.Conv1D(16, 9, strides=4, padding="same"),
            layers.GroupNormalization(4),
            layers.ReLU(),
            layers.Conv1D(32, 5, strides=2, padding="same"),
            layers.GroupNormalization(4),
            layers.ReLU(),
            layers.Conv1D(32, 5, strides=2, padding="same", activation="relu"),
            layers.GlobalMaxPooling1D(),
            layers.Dense(7),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(keras.optimizers.SGD(0.1), loss, metrics=["accuracy"])
    return network


def data(device: str) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """Return ((x, y), (x_test, y_test)) of one of ten persons: the one that the number in the device's name says."""
    digits = re.search(r"\d+", device)
    person = (int(digits[0]) - 1) % 10 if digits else sum(device.encode()) % 10
    everyone = _everyone()
    assert everyone.owner is not None and everyone.owner_test is not None  # noqa: S101, PT018 - this set has persons
    mine, held_out = everyone.owner == person, everyone.owner_test == person
    return (everyone.x[mine], everyone.y[mine]), (everyone.x_test[held_out], everyone.y_test[held_out])


@cache
def _everyone() -> Dataset:
    return smartwatch()
