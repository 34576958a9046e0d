"""Models for tests of export; importing this imports TensorFlow. As a program, it writes tests/vectors/litert/*.tflite.

python -m tests.unit.trainers.litert_zoo
"""

# ruff: noqa: ANN401  # Keras has no types

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fedmq.testing.trainer import CLASSES, INPUTS, points
from fedmq.trainers.keras.runtime import keras
from tests.unit.trainers.keras_zoo import Layers, compiled

if TYPE_CHECKING:
    from collections.abc import Callable

FOLDER: Final = Path(__file__).parents[2] / "vectors" / "litert"
BATCH_SIZE: Final = 8


def sequence(shape: tuple[int, ...], *layers: Any, **options: Any) -> Any:
    """Return a compiled model that takes the suite's points in another shape."""
    reshape = [] if shape == (INPUTS,) else [Layers.Reshape(shape)]
    return compiled(keras.Sequential([keras.Input((INPUTS,)), *reshape, *layers]), **options)


def mlp(**options: Any) -> Any:
    return sequence((INPUTS,), Layers.Dense(8, activation="relu"), Layers.Dense(CLASSES), **options)


def cnn(**options: Any) -> Any:
    convolution = Layers.Conv2D(8, 2, activation="relu")
    return sequence(
        (3, 2, 1),
        convolution,
        Layers.MaxPooling2D((2, 1)),
        Layers.Flatten(),
        Layers.Dense(CLASSES),
        **options,
    )


def conv1d() -> Any:
    convolution = Layers.Conv1D(8, 3, padding="same", activation="tanh")
    sgd = keras.optimizers.SGD(0.1, momentum=0.5)
    return sequence((INPUTS, 1), convolution, Layers.Flatten(), Layers.Dense(CLASSES), optimizer=sgd)


def adam() -> Any:
    """A head that stays on the device, dropout, batch normalisation, and an optimizer that is traced."""
    layers = [Layers.Dense(8, activation="relu"), Layers.BatchNormalization(), Layers.Dropout(0.2)]
    return sequence(
        (INPUTS,), *layers, Layers.Dense(CLASSES, name="head"), optimizer=keras.optimizers.Adam(0.01)
    )


def images() -> Any:
    """Every way to slide a window: strides, dilation, padding, several channels, overlaps and gaps."""
    layers = [
        Layers.Conv2D(4, (3, 2), strides=2, padding="same", activation="relu"),
        Layers.MaxPooling2D(3, 2, padding="same"),
        Layers.DepthwiseConv2D(2, depth_multiplier=2, activation="relu6"),
        Layers.AveragePooling2D(2, 1, padding="same"),
        Layers.Conv2D(3, 2, padding="same", dilation_rate=2, activation="elu"),
        Layers.Conv2DTranspose(2, 2, strides=2),
        Layers.MaxPooling2D(3),
        Layers.Flatten(),
        Layers.Dense(CLASSES),
    ]
    return compiled(keras.Sequential([keras.Input((17, 15, 2)), *layers]))


def series() -> Any:
    layers = [
        Layers.Conv1D(8, 5, padding="causal", dilation_rate=2, activation="leaky_relu"),
        Layers.GroupNormalization(4),
        Layers.SeparableConv1D(8, 3, strides=2, activation="softplus"),
        Layers.MaxPooling1D(2),
        Layers.GlobalMaxPooling1D(),
        Layers.Dense(CLASSES, activation="softmax", kernel_regularizer="l2"),
    ]
    sgd = keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True)
    return compiled(
        keras.Sequential([keras.Input((30, 3)), *layers]), sgd, loss="sparse_categorical_crossentropy"
    )


def words() -> Any:
    """Recurrent layers are unrolled; the rate follows a schedule."""
    layers = [
        Layers.Embedding(11, 4),
        Layers.Bidirectional(Layers.LSTM(3, return_sequences=True)),
        Layers.GRU(4),
        Layers.LayerNormalization(),
        Layers.Dense(4, activation="gelu"),
        Layers.Dropout(0.3),
        Layers.Dense(1, activation="sigmoid"),
    ]
    rate = keras.optimizers.schedules.ExponentialDecay(0.05, 3, 0.5)
    sgd = keras.optimizers.SGD(rate, momentum=0.5)
    model = keras.Sequential([keras.Input((5,), dtype="int32"), *layers])
    return compiled(model, sgd, loss="binary_crossentropy")


def numbers() -> Any:
    """Two inputs, attention, several numbers to foresee, a loss that is a sum, and weights held in bounds."""
    left, right = keras.Input((4, 3), name="left"), keras.Input((2,), name="right")
    seen = Layers.GlobalAveragePooling1D()(Layers.MultiHeadAttention(2, 3)(left, left))
    joined = Layers.Concatenate()([seen, Layers.Dense(3, activation="tanh")(right)])
    output = Layers.Dense(2, kernel_constraint=keras.constraints.MaxNorm(0.5))(joined)
    options = {"loss": keras.losses.MeanSquaredError(reduction="sum"), "metrics": ["mae", "r2_score"]}
    return compiled(
        keras.Model({"left": left, "right": right}, output), keras.optimizers.SGD(0.01), **options
    )


FILES: Final[dict[str, tuple[Callable[[], Any], tuple[str, ...]]]] = {
    "mlp": (mlp, ()),
    "cnn": (cnn, ()),
    "conv1d": (conv1d, ()),
    "adam": (adam, ("head",)),
}


def exported(name: str) -> bytes:
    """Return a file of FILES, made anew."""
    from fedmq.trainers.litert.export import export

    keras.utils.set_random_seed(1)
    model, personal = FILES[name]
    given = points(20)
    content: bytes = export(model(), (given.x, given.y), batch_size=BATCH_SIZE, personal=personal).content
    return content


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name in FILES:
        (FOLDER / f"{name}.tflite").write_bytes(exported(name))


if __name__ == "__main__":
    np.seterr(all="ignore")
    main()
