"""One stage as text and back: ``name`` or ``name(value, key=value)``, the parameters being the dataclass's fields."""

from __future__ import annotations

import math
import re
from dataclasses import fields
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args, get_origin, get_type_hints

from fedmq.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fedmq.codecs.stages import Stage

Parameter: TypeAlias = int | float | str

_STAGE: Final = re.compile(r"([a-z][a-z0-9]*)(?:\(([^()]*)\))?")
_INTEGER: Final = re.compile(r"-?[0-9]{1,9}")
_NUMBER: Final = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,20})?(e[-+]?[0-9]{1,3})?")


def spell(stage: Stage) -> str:
    """Return the canonical text: defaults left out, the first parameter by position, the others by name."""
    given = []
    for place, parameter in enumerate(fields(stage)):
        value = getattr(stage, parameter.name)
        if value != parameter.default:
            given.append(f"{value}" if place == 0 else f"{parameter.name}={value}")
    return f"{stage.name}({', '.join(given)})" if given else stage.name


def read(text: str, table: Mapping[str, type[Stage]]) -> Stage:
    """Return the stage of `table` that `text` spells; raises ConfigError when there is none."""
    found = _STAGE.fullmatch(text)
    if found is None:
        raise ConfigError(
            f"`{text}` does not read as a stage: write `name` or `name(value)`, such as `zlib(9)`"
        )
    name, inside = found.groups()
    if name not in table:
        raise ConfigError(f"there is no stage `{name}`: did you mean `{nearest(name, table)}`?")
    return table[name](**_parameters(table[name], inside))


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the known word that is spelled most like `word`."""
    return get_close_matches(word, known, n=1, cutoff=0.0)[0]


def _parameters(stage: type[Stage], inside: str | None) -> dict[str, Any]:
    """Return the parameters between the brackets by name."""
    kinds = get_type_hints(stage)
    names = [parameter.name for parameter in fields(stage)]
    given: dict[str, Any] = {}
    for place, piece in enumerate(inside.split(",") if inside else ()):
        key, text = _key(stage, names, place, piece)
        if key in given:
            raise ConfigError(f"`{stage.name}` is given {key} twice: leave one out")
        given[key] = _value(f"{stage.name}'s {key}", text, kinds[key])
    return given


def _key(stage: type[Stage], names: list[str], place: int, piece: str) -> tuple[str, str]:
    """Return the parameter that `piece`, the one at `place`, is for, and its text."""
    key, equals, text = (part.strip() for part in piece.rpartition("="))
    if not equals and place < len(names):
        return names[place], text
    if key in names:
        return key, text
    wanted = f"it takes {', '.join(names)}" if names else "it takes none, write the name alone"
    raise ConfigError(f"`{stage.name}` has no parameter for `{piece.strip()}`: {wanted}")


def _value(what: str, text: str, kind: object) -> Parameter:
    """Return `text` as the annotated type: a word of a Literal, an int or a float."""
    if get_origin(kind) is Literal:
        words: tuple[str, ...] = get_args(kind)
        if text in words:
            return text
        raise ConfigError(f"{what} cannot be `{text}`: did you mean `{nearest(text, words)}`?")
    if kind is int and _INTEGER.fullmatch(text):
        return int(text)
    if kind is float and _NUMBER.fullmatch(text) and math.isfinite(float(text)):
        return float(text)
    wanted = "a whole number" if kind is int else "a number"
    raise ConfigError(f"{what} cannot be `{text}`: write {wanted}")
