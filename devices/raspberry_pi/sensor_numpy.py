"""Which of seven exercises a wrist does, by a perceptron in plain NumPy: for a Pi Zero 2 W, too small for TensorFlow.

One federation learns one model, so either all of its devices use this file or all use `sensor.py`.
"""

from __future__ import annotations

import runpy
from pathlib import Path

from fedmq.trainers.numpy import Mlp

# fedmq loads this file by its path, so what lies beside it is loaded by path too.
data = runpy.run_path(str(Path(__file__).with_name("recordings.py")))["data"]


def model() -> Mlp:
    """Return a perceptron over windows of 2 s: 100 samples of 6 channels in, 7 exercises out; 19,463 parameters."""
    return Mlp(600, (32,), classes=7)
