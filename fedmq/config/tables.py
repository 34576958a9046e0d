"""Dataclasses back into the tables that `structure` reads them from, and these as TOML on one line.

``structure(tables(settings), type(settings)) == settings``: that is how a run folder remembers what it was asked.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from fedmq.codecs import Codec
from fedmq.config.rules import CHOICES, SLOTS
from fedmq.errors import MisuseError


def tables(settings: Any) -> Any:  # noqa: ANN401 - any of our dataclasses, or what stands in a field of one
    """Return `settings` as plain values. Parts of rules get their ``kind``; what is None is left out.

    Paths are made absolute, because the tables are read from another folder than the file was. Raises MisuseError for
    a value that configuration has no form for.
    """
    for kinds, form in _FORMS:
        if isinstance(settings, kinds):
            return form(settings)
    if dataclasses.is_dataclass(settings):
        return _table(settings)
    raise MisuseError(f"{type(settings).__name__} has no form in a configuration file")


def kind_of(part: object) -> str | None:
    """Return the name under which a part stands in its table, or can be imported; None for what is no part."""
    rows = (row for table in CHOICES.values() for row in table.items())
    return next((kind for kind, made_by in rows if type(part) is made_by), None) or _dotted(type(part))


def _dotted(made_by: type) -> str | None:
    """Return ``package.module:Class`` for a user's own part; None where it is no part, or no import finds it."""
    own = not SLOTS.keys().isdisjoint(made_by.__mro__)
    found = getattr(sys.modules.get(made_by.__module__), made_by.__qualname__, None) is made_by
    return (
        f"{made_by.__module__}:{made_by.__qualname__}"
        if own and found and made_by.__module__ != "__main__"
        else None
    )


def inline(value: Any) -> str:  # noqa: ANN401 - whatever `tables` gave
    """Return what `tables` gave as TOML that fits behind an equals sign."""
    if isinstance(value, Mapping):
        entries = ", ".join(f"{name} = {inline(entry)}" for name, entry in value.items())
        return f"{{ {entries} }}" if entries else "{}"
    if isinstance(value, list):
        return f"[{', '.join(map(inline, value))}]"
    if isinstance(value, (str, bool)):
        return json.dumps(value, ensure_ascii=False).replace(
            "\x7f", "\\u007f"
        )  # which TOML forbids and JSON does not
    return repr(value)


def _text(value: str) -> str:
    """Return the text itself, the path of a user's module made absolute (`ModuleName` is a str by another name)."""
    return str(Path(value).absolute()) if value.endswith(".py") else value


def _table(settings: Any) -> Any:  # noqa: ANN401
    kind = kind_of(settings)
    rows = _entries({field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)})
    if kind is None:
        return rows
    return {"kind": kind, **rows} if rows else kind


def _entries(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {str(name): tables(value) for name, value in settings.items() if value is not None}


_FORMS: Final[tuple[tuple[type | tuple[type, ...], Callable[[Any], Any]], ...]] = (
    (str, _text),
    ((bool, int, float), lambda value: value),
    (Codec, str),
    (Path, lambda path: str(path.absolute())),
    (Mapping, _entries),
    ((tuple, list), lambda values: [tables(value) for value in values]),
)
