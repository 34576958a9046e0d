"""LiteRT as a guest in a device's process: imported when a model is opened, on one thread, and quiet."""

from __future__ import annotations

import functools
import threading
from typing import Any, TypeAlias

from fedmq.errors import ConfigError
from fedmq.trainers.quiet import hushed

Lite: TypeAlias = Any
"""A `tflite` interpreter, which has no types."""

_opening = threading.Lock()


def open_interpreter(content: bytes) -> Lite:
    """Return a LiteRT interpreter of the model that `content` holds, its tensors allocated.

    It runs on one thread: on models of this size more of them cost more than they gain. Kernels are XNNPACK's where
    that takes the model, LiteRT's own where not. Raises ConfigError where neither does.
    """
    try:
        return _opened(content)
    except (RuntimeError, ValueError):
        try:
            return _opened(content, experimental_op_resolver_type=_plain_kernels())
        except (RuntimeError, ValueError) as error:
            told = str(error).strip().splitlines() or [type(error).__name__]
            raise ConfigError(
                f"LiteRT cannot open the model ({told[0].rstrip('.')}): export it again"
            ) from error


def _opened(content: bytes, **options: object) -> Lite:
    with _opening, hushed():  # LiteRT tells of its kernels
        lite = _litert().Interpreter(model_content=content, num_threads=1, **options)
        lite.allocate_tensors()
        return lite


def _plain_kernels() -> object:
    return _litert().OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES


def engine() -> str:
    """Return engine and version for people, such as ``litert 2.3.0``."""
    from importlib.metadata import version

    return f"litert {version('ai-edge-litert')}"


@functools.cache
def _litert() -> Any:  # noqa: ANN401  # a module without types
    try:
        from ai_edge_litert import interpreter
    except ImportError as error:
        raise ConfigError(
            f"LiteRT cannot be loaded ({error}): install it with pip install 'fedmq[litert]'"
        ) from error
    return interpreter
