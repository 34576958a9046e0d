"""Any Keras model on TensorFlow: devices stacked where that is possible and faster, else one at a time on every core.

One at a time, it is the Keras trainer's own compiled loop, on as many copies of the model as there are cores: models
with steps, layers and optimizers of any kind train in it, and get the very bytes that the Keras trainer gives.
"""

from fedmq.trainers.keras.runtime import ENGINE as _ENGINE  # noqa: F401  # it settles how TensorFlow is loaded

# isort: split
from fedmq.engines.tensorflow.engine import from_module

__all__ = ["from_module"]
