"""Small Keras models of all kinds, for tests; importing this imports TensorFlow."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import numpy as np

from fedmq.errors import ConfigError
from fedmq.testing.trainer import CLASSES, INPUTS
from fedmq.trainers.keras.runtime import configure_threads, keras, tf

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

Layers = keras.layers
keras.utils.disable_interactive_logging()
with contextlib.suppress(ConfigError):  # another test has already begun
    configure_threads(2)  # with one, no two trainings could ever mix


def compiled(model: keras.Model, optimizer: object = None, **options: object) -> keras.Model:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    chosen = keras.optimizers.SGD(0.1) if optimizer is None else optimizer
    model.compile(**{"optimizer": chosen, "loss": loss, "metrics": ["accuracy"], **options})
    return model


def dense(*widths: int) -> list[keras.Layer]:
    hidden = [Layers.Dense(width, activation="relu") for width in widths]
    return [keras.Input((INPUTS,)), *hidden, Layers.Dense(CLASSES)]


def mlp(optimizer: object = None, widths: tuple[int, ...] = (8,), **options: object) -> keras.Model:
    return compiled(keras.Sequential(dense(*widths)), optimizer, **options)


def functional_mlp() -> keras.Model:
    x = keras.Input((INPUTS,))
    return compiled(keras.Model(x, Layers.Dense(CLASSES)(Layers.Dense(8, activation="relu")(x))))


def normalised(optimizer: object = None, rate: float = 0.1) -> keras.Model:
    layers = [
        keras.Input((INPUTS,)),
        Layers.Dense(16, activation="relu"),
        Layers.BatchNormalization(),
        Layers.Dropout(rate),
        Layers.Dense(CLASSES),
    ]
    return compiled(keras.Sequential(layers), optimizer)


def layer_normalised() -> keras.Model:
    layers = [keras.Input((INPUTS,)), Layers.Dense(8), Layers.LayerNormalization(), Layers.Dense(CLASSES)]
    return compiled(keras.Sequential(layers), keras.optimizers.AdamW(0.01, weight_decay=0.01, clipnorm=1.0))


def two_inputs() -> keras.Model:
    left, right = keras.Input((2,), name="left"), keras.Input((4,), name="right")
    joined = Layers.Concatenate()([Layers.Dense(4, activation="tanh")(left), right])
    return compiled(keras.Model({"left": left, "right": right}, Layers.Dense(CLASSES)(joined)))


def recurrent() -> keras.Model:
    layers = [keras.Input((3, 2)), Layers.Bidirectional(Layers.SimpleRNN(3)), Layers.Dense(CLASSES)]
    return compiled(keras.Sequential(layers))


def embedding(optimizer: object) -> keras.Model:
    layers = [
        keras.Input((2,), dtype="int32"),
        Layers.Embedding(5, 3),
        Layers.Flatten(),
        Layers.Dense(CLASSES),
    ]
    return compiled(keras.Sequential(layers), optimizer)


def regression() -> keras.Model:
    layers = [keras.Input((INPUTS,)), Layers.Dense(4, activation="tanh"), Layers.Dense(1)]
    model = keras.Sequential(layers)
    model.compile(optimizer=keras.optimizers.RMSprop(0.01), loss="mse", metrics=["mae"])
    return model


class Counting(keras.layers.Layer):  # type: ignore[misc]  # keras has no types
    """Counts its calls in an integer, and in a float that no gradient moves."""

    def build(self, _: object) -> None:
        self.calls = self.add_weight(
            name="calls", shape=(), dtype="int32", initializer="zeros", trainable=False
        )
        self.share = self.add_weight(name="share", shape=(2,), initializer="zeros", trainable=False)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        self.calls.assign_add(1)
        self.share.assign_add(tf.ones(2))
        return inputs * (1 + 0.1 * tf.cast(self.calls, tf.float32))


def counting() -> keras.Model:
    return compiled(keras.Sequential([keras.Input((INPUTS,)), Counting(), Layers.Dense(CLASSES)]))


class OwnStep(keras.Model):  # type: ignore[misc]  # keras has no types
    """Has a loss of its own making, a second optimizer, and counts how often Python runs its step."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Layers.Dense(8, activation="relu")
        self.head = Layers.Dense(CLASSES)
        self.head_optimizer = keras.optimizers.Adam(0.01)
        self.tracker = keras.metrics.Mean(name="own_loss")
        self.python_steps = 0

    def call(self, inputs: tf.Tensor, training: object = None) -> tf.Tensor:
        return self.head(self.body(inputs))

    def train_step(self, data: tuple[tf.Tensor, ...]) -> Mapping[str, tf.Tensor]:
        self.python_steps += 1
        x, y = data
        with tf.GradientTape() as tape:
            scores = self(x, training=True)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, scores)) + 0.01 * tf.norm(
                scores
            )
        slopes = tape.gradient(loss, self.body.trainable_weights + self.head.trainable_weights)
        self.optimizer.apply_gradients(zip(slopes[:2], self.body.trainable_weights, strict=True))
        self.head_optimizer.apply_gradients(zip(slopes[2:], self.head.trainable_weights, strict=True))
        self.tracker.update_state(loss)
        return {"own_loss": self.tracker.result()}

    @property
    def metrics(self) -> list[keras.Metric]:
        return [self.tracker, *super().metrics]


def own_step() -> keras.Model:
    return compiled(OwnStep(), keras.optimizers.SGD(0.05, momentum=0.9), metrics=None)


def values(model: keras.Model) -> NDArray[np.float32]:
    """Return the model's floating-point weights as one vector, by other means than the trainer's."""
    floats = [np.asarray(value) for value in model.get_weights() if value.dtype.kind == "f"]
    return np.concatenate([value.ravel() for value in floats])
