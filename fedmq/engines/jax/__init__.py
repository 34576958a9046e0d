"""Keras models on Keras' JAX backend: devices stacked by `vmap`, on CPU or GPU.

Keras has one backend in a process. This engine needs a process in which nothing has imported Keras yet, and sets
``KERAS_BACKEND=jax`` in it; `fedmq simulate` is such a process.
"""

from fedmq.engines.jax.runtime import NAME as _NAME  # noqa: F401  # it settles what Keras runs on

# isort: split
from fedmq.engines.jax.engine import from_module

__all__ = ["from_module"]
