"""What `benchmarks.engines` trains: a perceptron of 101,770 parameters on 50 examples of 784 numbers a device."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

EXAMPLES = 50
CLASSES = 10


def model() -> Any:  # noqa: ANN401  # keras has no types
    """Return one hidden layer of 128."""
    import keras  # noqa: PLC0415  # whose backend the engine chooses
    from keras import layers  # noqa: PLC0415

    network = keras.Sequential(
        [keras.Input((784,)), layers.Dense(128, activation="relu"), layers.Dense(CLASSES)]
    )
    network.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return network


def data(device: str) -> tuple[Any, Any]:
    """Return noise: how fast a device trains has nothing to do with what it learns."""
    return noise(device, (784,))


def noise(device: str, shape: tuple[int, ...]) -> tuple[Any, Any]:
    """Return examples of this shape with labels, other ones for each device."""
    number = int(re.findall(r"\d+", device)[-1])
    generator = np.random.Generator(np.random.Philox(number))
    x = generator.standard_normal((EXAMPLES, *shape), dtype=np.float32)
    return x, generator.integers(0, CLASSES, EXAMPLES)
