"""Pooling by comparisons: the layer's own values and slopes, where values are equal, too."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.keras]


def both(model: Any, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # noqa: ANN401 - keras has no types
    """Return what a model gives, and the slopes of its sum of weighted outputs by the inputs."""
    import tensorflow as tf

    given = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(given)
        found = model(given)
        weights = tf.reshape(tf.range(1.0, tf.size(found, tf.int64) + 1), tf.shape(found))
        total = tf.reduce_sum(found * weights)
    return found.numpy(), tape.gradient(total, given).numpy()


@pytest.mark.parametrize(
    ("shape", "size"), [((5, 7, 3), (2, 2)), ((6, 9, 2), (3, 2)), ((4, 4, 1), (1, 2)), ((11, 3), (3,))]
)
def test_comparisons_are_the_pooling_they_replace(shape: tuple[int, ...], size: tuple[int, ...]) -> None:
    import keras

    from fedmq.engines.stacking.pooling import as_comparisons

    kind = keras.layers.MaxPooling2D if len(size) == 2 else keras.layers.MaxPooling1D
    model = keras.Sequential([keras.Input(shape), kind(size if len(size) == 2 else size[0])])
    # whole numbers from 0 to 3: many windows have their largest value twice
    x = np.random.default_rng(1).integers(0, 4, (3, *shape)).astype(np.float32)
    wanted = both(model, x)
    assert as_comparisons(model) == 1
    for found, known in zip(both(model, x), wanted, strict=True):
        np.testing.assert_array_equal(found, known)


def test_other_pooling_stays_as_it_is() -> None:
    import keras

    from fedmq.engines.stacking.pooling import as_comparisons

    layers = keras.layers
    body = [
        layers.MaxPooling2D(3, strides=2),
        layers.MaxPooling2D(2, padding="same"),
        layers.AveragePooling2D(2),
    ]
    assert as_comparisons(keras.Sequential([keras.Input((16, 16, 1)), *body])) == 0
