"""Rules printed back as the TOML that they are loaded from, in the shape in which a person would write it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from fedmq.config.rules import SLOTS, inside
from fedmq.config.tables import inline, kind_of
from fedmq.errors import MisuseError
from fedmq.rules import HYBRIDS, Rule

if TYPE_CHECKING:
    from fedmq.rules import AnyRule

_WIDEST: Final = 100
"""What does not fit into a line of so many columns gets a table of its own, or a line for each entry."""


def to_toml(rule: AnyRule, name: str = "rule") -> str:
    """Return `rule` as the table `name`, which loads to an equal rule.

    Settings that are as they are by default are left out; slots never are, so that nothing hangs on a preset. Parts
    that hold others are written as a sequence. Raises MisuseError where the rule has a part of your own that is in no
    table, for no file could name it.

    >>> from fedmq.rules import preset
    >>> print(to_toml(preset("fedavgm")), end="")
    [rule]
    guards = ["finite", "examples"]
    weigh = "by_examples"
    reduce = "mean"
    step = "momentum"
    """
    return "\n".join(_written(spelt(rule), name)) + "\n"


def spelt(value: Any) -> Any:  # noqa: ANN401 - a rule, or what stands in one
    """Return a rule or a part as the plain value that stands for it in a file, as short as it can be."""
    if isinstance(value, tuple):
        return [spelt(entry) for entry in value]
    if not dataclasses.is_dataclass(value):
        return value
    place = inside(type(value))
    if place is None:
        return _alone(value)
    inner = spelt(getattr(value, place))
    return [_alone(value, place), *(inner if isinstance(inner, list) else [inner])]


def _alone(part: Any, place: str | None = None) -> Any:  # noqa: ANN401
    """Return one part without the one that it holds at `place`."""
    kind = _kind(part)
    whole = isinstance(part, (Rule, *HYBRIDS.values()))
    names = [field.name for field in dataclasses.fields(part) if whole or not _as_by_default(part, field)]
    rows = {name: spelt(getattr(part, name)) for name in names if name != place}
    if kind is None:
        return rows
    return {"kind": kind, **rows} if rows else kind


def _kind(part: object) -> str | None:
    """Return the part's kind; None for a table that needs none."""
    kind = kind_of(part)
    if kind is None and any(slot in type(part).__mro__ for slot in SLOTS):
        raise MisuseError(
            f"{type(part).__name__} is in no table of parts, so no file can name it: give it a row in one"
        )
    return kind


def _as_by_default(part: Any, field: dataclasses.Field[Any]) -> bool:  # noqa: ANN401
    factory = field.default_factory
    default = field.default if factory is dataclasses.MISSING else factory()
    return bool(getattr(part, field.name) == default)


# --- lines ------------------------------------------------------------------------------------------------------------


def _written(table: Mapping[str, Any], path: str, brackets: tuple[str, str] = ("[", "]")) -> Iterator[str]:
    """Yield the lines of one table: what fits behind a key, then the tables in it."""
    opening, closing = brackets
    yield f"{opening}{path}{closing}"
    deeper = {key: value for key, value in table.items() if _is_wide(key, value) and _holds_tables(value)}
    for key, value in table.items():
        if key not in deeper:
            yield from _line(key, value)
    for key, value in deeper.items():
        yield ""
        yield from _deeper(value, f"{path}.{key}")


def _deeper(value: Any, path: str) -> Iterator[str]:  # noqa: ANN401
    if isinstance(value, Mapping):
        yield from _written(value, path)
        return
    for index, entry in enumerate(value):
        yield from [""] * (index > 0)
        yield from _written(entry, path, ("[[", "]]"))


def _is_wide(key: str, value: Any) -> bool:  # noqa: ANN401
    return len(f"{key} = {inline(value)}") > _WIDEST


def _holds_tables(value: Any) -> bool:  # noqa: ANN401
    """Tell whether a value reads better under a heading of its own, or with one for each entry, than as a list."""
    return isinstance(value, Mapping) or (isinstance(value, list) and all(map(_is_row, value)))


def _is_row(entry: Any) -> bool:  # noqa: ANN401
    return isinstance(entry, Mapping) and "kind" not in entry


def _line(key: str, value: Any) -> Iterator[str]:  # noqa: ANN401
    if not (_is_wide(key, value) and isinstance(value, list)):
        yield f"{key} = {inline(value)}"
        return
    yield f"{key} = ["
    yield from (f"    {inline(entry)}," for entry in value)
    yield "]"
