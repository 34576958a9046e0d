"""One's own model and data: is this motor healthy, out of balance, or is a bearing worn?

fedmq asks for two functions. `model()` returns a compiled Keras model; `data(device)` returns the examples of the
device of that name. On a real device `data` would read what its sensor has recorded. Here a formula makes the
recordings, so that the example runs anywhere: 0.25 s of vibration, 128 samples of three axes.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    import keras
    from numpy.typing import NDArray

SAMPLES: Final = 128
STATES: Final = ("healthy", "out of balance", "worn bearing")


def model() -> keras.Model:
    """Return two convolutions over time and a maximum over what they found."""
    import keras  # noqa: PLC0415 - an aggregator reads this file as well, and may have no framework
    from keras import layers  # noqa: PLC0415

    network = keras.Sequential(
        [
            keras.Input((SAMPLES, 3)),
            layers.Conv1D(12, 9, strides=2, activation="relu"),
            layers.Conv1D(24, 5, strides=2, activation="relu"),
            layers.GlobalMaxPooling1D(),
            layers.Dense(len(STATES)),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(keras.optimizers.SGD(0.05), loss, metrics=["accuracy"])
    return network


def data(device: str) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """Return ((x, y), (x_test, y_test)): 150 recordings to train on and 50 to judge by, the same at every call.

    Each motor has a speed and a mounting of its own. Most of what it recorded is of one state, which differs from
    motor to motor; in the 50, all states are as frequent.
    """
    chance = np.random.default_rng(zlib.crc32(device.encode()))
    speed, gain = chance.uniform(18, 30), chance.uniform(0.7, 1.4, size=3)
    often = np.full(len(STATES), 0.15)
    often[chance.integers(len(STATES))] = 0.70
    states = np.concatenate([chance.choice(len(STATES), 150, p=often), np.arange(50) % len(STATES)])
    x = np.stack([_recording(chance, state, speed, gain) for state in states])
    return (x[:150], states[:150]), (x[150:], states[150:])


def _recording(
    chance: np.random.Generator, state: int, speed: float, gain: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Return 0.25 s of acceleration, of shape (128, 3)."""
    turns = speed * np.linspace(0, 0.25, SAMPLES) + chance.uniform()
    shaft = np.sin(2 * np.pi * turns)
    if state == 1:
        shaft = 2.5 * shaft  # a heavy spot pulls once a turn
    if state == 2:
        shaft = shaft + 1.5 * np.sin(2 * np.pi * 9 * turns) * (
            (3.6 * turns) % 1 < 0.3
        )  # a ball hits a dent: it rings
    axes = shaft[:, np.newaxis] * gain + chance.normal(0, 0.6, (SAMPLES, 3))
    return axes.astype(np.float32)
