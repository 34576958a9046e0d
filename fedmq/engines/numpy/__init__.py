"""The reference engine: perceptrons and small CNNs in plain NumPy, one BLAS thread each, as many side by side as cores.

It trains an `Mlp` of `fedmq.trainers.numpy`, and those compiled Keras models that `fedmq.engines.numpy.reading` knows:
softmax cross-entropy, SGD. Perceptrons with plain SGD are stacked (see `fedmq.engines.numpy.deferred`); momentum,
proximal terms and pulls train them one device at a time, with the very code of the NumPy trainer. Networks with
convolutions are stacked whatever is asked for (see `fedmq.engines.numpy.networks`).
"""

from fedmq.engines.numpy.engine import NumpyEngine, from_module

__all__ = ["NumpyEngine", "from_module"]
