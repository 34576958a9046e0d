"""The reference engine: perceptrons in plain NumPy, one BLAS thread each, as many side by side as there are cores.

It trains an `Mlp` of `fedmq.trainers.numpy`, and every compiled Keras model that is one: `Dense` layers with ReLU
between them, softmax cross-entropy, SGD. Plain SGD is stacked (see `fedmq.engines.numpy.deferred`); momentum, proximal
terms and pulls train one device at a time, with the very code of the NumPy trainer.
"""

from fedmq.engines.numpy.engine import NumpyEngine, from_module

__all__ = ["NumpyEngine", "from_module"]
