"""Trains on LiteRT what `fedmq export` made of a Keras model: no TensorFlow, 60 MB in all, the same weights.

`LitertTrainer` is one device's trainer. Any number of them share a `LitertModel`, which lends them interpreters: one
for each thread that trains. `from_module` makes a trainer from a user's module with `data(device)` and the file beside
it. `fedmq.trainers.litert.export` makes the file, where TensorFlow is.
"""

from __future__ import annotations

from fedmq.trainers.litert.entry import from_module
from fedmq.trainers.litert.model import Interpreter, LitertModel
from fedmq.trainers.litert.trainer import LitertTrainer

__all__ = ["Interpreter", "LitertModel", "LitertTrainer", "from_module"]
