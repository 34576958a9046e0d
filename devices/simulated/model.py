"""What every device learns: which of seven exercises a wrist does, from 2 s of its accelerometer and gyroscope.

Change `model` as you like: layers, sizes, optimizer. Every device of the fleet, and so of your world, gets this one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fedmq.datasets import smartwatch

if TYPE_CHECKING:
    import keras


def model() -> keras.Model:
    """Return a compiled Keras model: windows of 100 samples of 6 channels in, 7 exercises out."""
    import keras  # noqa: PLC0415 - whoever only reads data needs no framework
    from keras import layers  # noqa: PLC0415

    network = keras.Sequential(
        [
            keras.Input((100, 6)),
            layers.Conv1D(16, 5, strides=2, activation="relu"),
            layers.GroupNormalization(4),
            layers.Conv1D(32, 5, strides=2, activation="relu"),
            layers.GlobalMaxPooling1D(),
            layers.Dense(7),
        ]
    )
    network.compile(
        optimizer=keras.optimizers.SGD(0.1),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return network


def data(device: str) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """Return ((x, y), (x_test, y_test)) of one device: asked for where the world says ``data = "module"``.

    Here device-01 holds what person 1 recorded, and so on to device-10. Put your own data in its place.
    """
    everyone, person = smartwatch(), int(device.rpartition("-")[2]) - 1
    train, test = everyone.owner == person, everyone.owner_test == person
    return (everyone.x[train], everyone.y[train]), (everyone.x_test[test], everyone.y_test[test])
