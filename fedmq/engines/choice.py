"""Engines by name, and which of them can be made here."""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any, Final

from fedmq.errors import ConfigError
from fedmq.trainers.settings import suggest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fedmq.engines.engine import Engine
    from fedmq.trainers.module import Supply

ENGINES: Final[Mapping[str, str]] = {
    "numpy": "fedmq.engines.numpy",
    "tensorflow": "fedmq.engines.tensorflow",
    "jax": "fedmq.engines.jax",
    "litert": "fedmq.engines.litert",
}
"""The module of each engine; its `from_module` makes one."""

_NEEDS: Final[Mapping[str, tuple[str, ...]]] = {
    "tensorflow": ("tensorflow", "keras"),
    "jax": ("jax", "keras"),
    "litert": ("ai_edge_litert",),
}

_EXTRAS: Final[Mapping[str, str]] = {"tensorflow": "tensorflow", "jax": "jax", "litert": "litert"}


def installed() -> list[str]:
    """Return the names of the engines whose frameworks are there."""
    return [name for name in ENGINES if all(importlib.util.find_spec(need) for need in _NEEDS.get(name, ()))]


def load(name: str) -> Callable[[str, Mapping[str, Supply], Mapping[str, Any]], Engine]:
    """Return the function ``(module, supplies, options)`` that makes the engine of this name.

    Call it before the user's module is loaded: the jax engine has to be there before Keras is. Raises ConfigError where
    there is no such engine, its framework is not installed, or it has come too late.
    """
    if name not in ENGINES:
        raise ConfigError(f"there is no engine {name!r}: {suggest(name, ENGINES)}")
    try:
        found: Callable[[str, Mapping[str, Supply], Mapping[str, Any]], Engine]
        found = importlib.import_module(ENGINES[name]).from_module
    except ImportError as error:
        raise ConfigError(
            f"engine {name!r} cannot be loaded ({error}): install it with pip install 'fedmq[{_EXTRAS[name]}]'"
        ) from error
    return found
