"""Which of seven exercises a wrist does, by a small convolutional network.

A Pi trains it from ``sensor.tflite``, which ``fedmq export sensor.py --device pi-01 --seed 1`` made where TensorFlow
is, and takes only its data from here.
"""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras

# fedmq loads this file by its path, so what lies beside it is loaded by path too.
data = runpy.run_path(str(Path(__file__).with_name("recordings.py")))["data"]


def model() -> keras.Model:
    """Return a compiled network over windows of 2 s: 100 samples of 6 channels in, 7 exercises out."""
    import keras  # noqa: PLC0415 - whoever only reads data needs no framework
    from keras import layers  # noqa: PLC0415

    network = keras.Sequential(
        [
            keras.Input((100, 6)),
            layers.Conv1D(16, 5, strides=2, activation="relu"),
            layers.GroupNormalization(4),
            layers.Conv1D(32, 5, strides=2, activation="relu"),
            layers.GroupNormalization(4),
            layers.Conv1D(32, 5, activation="relu"),
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
