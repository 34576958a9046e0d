"""Handwritten digits, spread unevenly over twenty devices: a small perceptron."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from fedmq.datasets import Dataset, deal, mnist

if TYPE_CHECKING:
    import keras

DEVICES: Final = 20


def model() -> keras.Model:
    """Return one hidden layer of 64 over 28 x 28 pixels."""
    import keras  # noqa: PLC0415 - only who trains needs the framework
    from keras import layers  # noqa: PLC0415

    network = keras.Sequential(
        [keras.Input((28, 28, 1)), layers.Flatten(), layers.Dense(64, activation="relu"), layers.Dense(10)]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(keras.optimizers.SGD(0.1), loss, metrics=["accuracy"])
    return network


def data(device: str) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """Return ((x, y), (x_test, y_test)) of one of twenty devices: the one that the number in its name says.

    The digits to train on follow Dirichlet(0.5), so each device knows some digits well and others hardly; all are
    judged on the same thousand held-out ones.
    """
    found = re.search(r"\d+", device)
    number = (int(found[0]) - 1) % DEVICES if found else sum(device.encode()) % DEVICES
    rows = deal("dirichlet(0.5)", _digits(), devices=DEVICES)[number]
    return (_digits().x[rows], _digits().y[rows]), (_digits().x_test, _digits().y_test)


@cache
def _digits() -> Dataset:
    return mnist()
