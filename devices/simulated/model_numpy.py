"""The same task as in `model.py`, for a perceptron in plain NumPy: nothing but fedmq has to be installed."""

from __future__ import annotations

import runpy
from pathlib import Path

from fedmq.trainers.numpy import Mlp

# fedmq loads this file by its path, so what lies beside it is loaded by path too.
data = runpy.run_path(str(Path(__file__).with_name("model.py")))["data"]


def model() -> Mlp:
    """Return a perceptron with one hidden layer: 600 numbers in, 7 exercises out."""
    return Mlp(600, (32,), classes=7)
