"""Encodings in TOML: by name, or as a preset with changes; and back to the name, for people."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from fedmq.aggregator.encodings import DEFAULT, ENCODINGS, encoding
from fedmq.config.tables import tables
from fedmq.config.words import shown
from fedmq.errors import ConfigError
from fedmq.protocol.quantities import ByteCount, read_bytes

if TYPE_CHECKING:
    from fedmq.aggregator.settings import Encoding

Hook: TypeAlias = Callable[[Any, Any], Any]


def encoding_hook(plain: Hook) -> Hook:
    """Structure an encoding with the hook `plain`, whose keys change a ``preset``; the usual one where none is named.

    A text alone is a preset's name. Keys are looked at together with those of the preset, so that a budget goes with
    the codec that the preset has.
    """

    def structure_encoding(value: Any, kind: Any) -> Any:  # noqa: ANN401 - whatever TOML holds
        if isinstance(value, str):
            return encoding(value)
        if not isinstance(value, dict):
            raise ConfigError(f"is {shown(value)}; a preset's name or a table was wanted")
        name = value.get("preset", DEFAULT)
        if not isinstance(name, str):
            raise ConfigError(f"preset is {shown(name)}; a text in quotes was wanted")
        given = {key: entry for key, entry in value.items() if key != "preset"}
        known = tables(encoding(name))
        if given.get("keyframe_every") == 1:
            del known["down"]  # models travel whole then, and the preset's steps between them are of no use
        return plain({**known, **given}, kind)

    return structure_encoding


def count_of(value: Any) -> ByteCount:  # noqa: ANN401 - whatever TOML holds
    """Return a number of bytes: a whole number, or a text such as ``2 MB``. Raises ConfigError."""
    if isinstance(value, str):
        return read_bytes(value)
    if type(value) is not int:
        raise ConfigError(f"is {shown(value)}; a number of bytes was wanted, such as 1500 or '1.5 kB'")
    return ByteCount(value)


def name_of(found: Encoding) -> str:
    """Return the preset that `found` is, or the one that it differs least from, and what differs."""
    differing = {name: _differing(found, preset) for name, preset in ENCODINGS.items()}
    name = min(differing, key=lambda each: len(differing[each]))
    return f"preset {name}" + (f" but for {', '.join(differing[name])}" if differing[name] else "")


def _differing(left: Encoding, right: Encoding) -> list[str]:
    names = [field.name for field in dataclasses.fields(left)]
    return [name for name in names if getattr(left, name) != getattr(right, name)]
