"""`fedmq export`: a user's Keras model as a LiteRT file that trains. Importing this imports TensorFlow."""

from __future__ import annotations

from fedmq.trainers.litert.export.exporting import export, from_module

__all__ = ["export", "from_module"]
