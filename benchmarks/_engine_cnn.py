"""What `benchmarks.engines` trains: two convolutions, 5,258 parameters, on 50 images of 28 x 28 a device."""

from __future__ import annotations

from typing import Any

from benchmarks._engine_mlp import CLASSES, noise


def model() -> Any:  # noqa: ANN401  # keras has no types
    """Return two 3 x 3 convolutions of 8 and 16 channels, each with its pooling, and what tells ten classes apart."""
    import keras  # noqa: PLC0415  # whose backend the engine chooses
    from keras import layers  # noqa: PLC0415

    network = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(8, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(16, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(CLASSES),
        ]
    )
    network.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return network


def data(device: str) -> tuple[Any, Any]:
    """Return noise, as images."""
    return noise(device, (28, 28, 1))
