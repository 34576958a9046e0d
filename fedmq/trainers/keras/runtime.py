"""TensorFlow and Keras as a guest in a device's process: quiet, modest with memory, on as many threads as told.

The other modules of this package take `tf` and `keras` from here, so that the settings below come before the import.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Final

from fedmq.errors import ConfigError
from fedmq.trainers.absent import absent
from fedmq.trainers.quiet import hushed

if TYPE_CHECKING:
    from collections.abc import Iterator

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # errors only, unless the operator wants more
os.environ.setdefault("KERAS_BACKEND", "tensorflow")


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """Keep from the terminal what TensorFlow's libraries write while they load: notes on GPUs that are not there.

    They write past Python and before their log level counts. What was written is shown when the block fails, and
    always when the operator has asked TensorFlow for more.
    """
    if os.environ["TF_CPP_MIN_LOG_LEVEL"] in {"0", "1"}:
        yield
        return
    with hushed():
        yield


# TensorFlow's converter imports JAX where it is there: a second, and memory, for nothing here.
with _hushed(), absent("jax"):
    import keras
    import tensorflow as tf

__all__ = ["ENGINE", "configure_threads", "keras", "tf"]

ENGINE: Final = f"keras {keras.__version__} (tensorflow {tf.__version__})"


def configure_threads(count: int, across: int | None = None) -> None:
    """Let TensorFlow use `count` threads within an operation, and `across` operations (by default as many).

    One thread is best for many small models on few cores. Call it before the first model is made: TensorFlow fixes its
    threads then, and a later call with another count raises ConfigError.
    """
    threading = tf.config.threading
    before = threading.get_intra_op_parallelism_threads(), threading.get_inter_op_parallelism_threads()
    wanted = count, count if across is None else across
    if before == wanted:
        return
    try:
        threading.set_intra_op_parallelism_threads(wanted[0])
        threading.set_inter_op_parallelism_threads(wanted[1])
    except RuntimeError as error:
        raise ConfigError(
            f"TensorFlow is already running and cannot change to {count} threads: "
            "set its threads before the first model is made"
        ) from error


def _grow_gpu_memory() -> None:
    """Take GPU memory as it is needed, not all of it at the start; others live there too."""
    with contextlib.suppress(RuntimeError):  # the user's program has already begun to use it
        for gpu in tf.config.list_physical_devices("GPU"):
            tf.config.experimental.set_memory_growth(gpu, enable=True)


with _hushed():
    _grow_gpu_memory()
