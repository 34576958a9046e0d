"""What the devices of the worlds in virtual time learn: which digit an image of 28 x 28 pixels shows. Plain NumPy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fedmq.datasets import mnist
from fedmq.trainers.numpy import Mlp

if TYPE_CHECKING:
    from numpy.typing import NDArray

EACH = 50
"""Images of one device."""


def model() -> Mlp:
    """Return softmax regression: 784 pixels in, ten digits out, and nothing in between."""
    return Mlp(784, (), classes=10)


def data(device: str) -> tuple[tuple[NDArray[Any], NDArray[Any]], tuple[NDArray[Any], NDArray[Any]]]:
    """Return ((x, y), (x_test, y_test)) of one device: asked for where the world says ``data = "module"``."""
    digits = mnist()
    first = EACH * (int(device.rpartition("-")[2]) - 1) % len(digits.x)
    return (digits.x[first : first + EACH], digits.y[first : first + EACH]), (digits.x_test, digits.y_test)
