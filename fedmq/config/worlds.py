"""Worlds in TOML: by name, or as a preset with changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from fedmq.config.tables import tables
from fedmq.config.words import shown
from fedmq.errors import ConfigError
from fedmq.worlds import world

Hook: TypeAlias = Callable[[Any, Any], Any]

DEFAULT = "lab"
"""The world where a table names none."""


def world_hook(plain: Hook) -> Hook:
    """Structure a world with the hook `plain`, whose keys change those of a ``preset``, one by one.

    A text alone is a preset's name.
    """

    def structure_world(value: Any, kind: Any) -> Any:  # noqa: ANN401 - whatever TOML holds
        if isinstance(value, str):
            return world(value)
        if not isinstance(value, dict):
            raise ConfigError(f"is {shown(value)}; a preset's name or a table was wanted")
        name = value.get("preset", DEFAULT)
        if not isinstance(name, str):
            raise ConfigError(f"preset is {shown(name)}; a text in quotes was wanted")
        given = {key: entry for key, entry in value.items() if key != "preset"}
        known = tables(world(name))
        return plain({**known, **{key: _over(known.get(key), entry) for key, entry in given.items()}}, kind)

    return structure_world


def _over(known: Any, given: Any) -> Any:  # noqa: ANN401
    both = isinstance(known, dict) and isinstance(given, dict)
    return {**known, **given} if both else given
