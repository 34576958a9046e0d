"""JAX and Keras on it, as guests: on one thread a computation, taking GPU memory as it is needed."""

from __future__ import annotations

import os
import sys
from typing import Final

from fedmq.errors import ConfigError


def _claim() -> None:
    """Make JAX the backend of Keras in this process. Raises ConfigError where it is too late for that."""
    if "keras" in sys.modules:
        backend = sys.modules["keras"].backend.backend()
        if backend != "jax":
            raise ConfigError(
                f"Keras already runs on {backend} in this process, and cannot change: start the jax engine in a "
                "process of its own, or set KERAS_BACKEND=jax before Keras is imported"
            )
    os.environ["KERAS_BACKEND"] = "jax"
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    flag = "--xla_cpu_multi_thread_eigen=false"
    if "jax" not in sys.modules and flag not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()


_claim()

import jax  # noqa: E402  # the settings come first
import keras  # noqa: E402  # (same)

__all__ = ["NAME", "jax", "keras"]

_DEVICE: Final = jax.devices()[0]
ON_CPU: Final = _DEVICE.platform == "cpu"
NAME: Final = f"keras {keras.__version__} (jax {jax.__version__}, {_DEVICE.device_kind})"
