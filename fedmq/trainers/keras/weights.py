"""Which of a Keras model's variables are in the layout: see `fedmq.trainers.variables`, which needs no TensorFlow."""

from fedmq.trainers.variables import Weights, sort_weights

__all__ = ["Weights", "sort_weights"]
