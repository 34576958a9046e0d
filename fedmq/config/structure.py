"""TOML tables into the frozen dataclasses that the rest of fedmq uses; what does not fit is named, with its line.

There is no second schema: the dataclasses' fields are the keys, their types are the types, and what their
`__post_init__` refuses is refused here too.
"""

from __future__ import annotations

import dataclasses
import tomllib
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin

from cattrs import BaseValidationError, Converter
from cattrs.errors import AttributeValidationNote, ForbiddenExtraKeysError, IterableValidationNote
from cattrs.gen import make_dict_structure_fn

from fedmq.aggregator.settings import Encoding
from fedmq.codecs import Codec, parse
from fedmq.config.encoding import count_of, encoding_hook
from fedmq.config.lines import line_of
from fedmq.config.rules import (
    bare,
    belongs_to,
    extra_keys,
    is_rule,
    is_sequence,
    is_slot,
    part_hook,
    rule_hook,
    sequence_hook,
    slots_hook,
)
from fedmq.config.words import Where, dotted, either, listed, nearest, shown
from fedmq.config.worlds import world_hook
from fedmq.device.interface import ModuleName
from fedmq.errors import ConfigError
from fedmq.protocol.quantities import ByteCount
from fedmq.rules import Rule
from fedmq.worlds import World

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

T = TypeVar("T")


def load(path: Path, kind: type[T]) -> T:
    """Read a TOML file into the dataclass `kind`. Relative paths in it are taken from the file's own folder.

    Raises ConfigError: one sentence with file, line, what was seen and what was wanted.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"cannot read {path}: {getattr(error, 'strerror', None) or 'it is not UTF-8 text'}"
        ) from None
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None
    return structure(tree, kind, text=text, source=str(path), folder=path.parent)


def structure(
    tree: Mapping[str, Any],
    kind: type[T],
    *,
    text: str = "",
    source: str = "configuration",
    folder: Path = Path(),
) -> T:
    """Turn parsed TOML into the dataclass `kind`. Raises ConfigError as `load` does."""
    try:
        return _converter(folder).structure(tree, kind)
    except BaseValidationError as error:
        where, sentence = next(_findings(error, ()))
    line = line_of(text, where)
    place = f"{source}, line {line}" if line else source
    raise ConfigError(f"{place}: {dotted(where)}{sentence}") from None


def _converter(folder: Path) -> Converter:
    converter = Converter(forbid_extra_keys=True)
    for plain in (int, str, bool):
        converter.register_structure_hook(plain, _exactly)
    converter.register_structure_hook(float, _number)
    converter.register_structure_hook(Path, lambda value, _: folder / _exactly(value, str))
    converter.register_structure_hook_factory(
        _is_module, lambda _: lambda value, _: _module(_exactly(value, str), folder)
    )
    converter.register_structure_hook(Codec, lambda value, _: parse(_exactly(value, str)))
    converter.register_structure_hook_factory(
        lambda kind: kind is ByteCount, lambda _: lambda value, _: count_of(value)
    )
    converter.register_structure_hook_factory(_is_literal, _literal_hook)
    converter.register_structure_hook_factory(_is_optional, lambda kind: _optional_hook(kind, converter))
    converter.register_structure_hook_factory(_is_setting, _setting_hook)
    converter.register_structure_hook_factory(is_sequence, lambda kind: sequence_hook(kind, converter))
    converter.register_structure_hook_factory(is_slot, lambda kind: part_hook(bare(kind), converter))
    converter.register_structure_hook_factory(is_rule, lambda _: rule_hook(converter))
    converter.register_structure_hook_factory(
        dataclasses.is_dataclass, lambda kind: _table_hook(kind, converter)
    )
    return converter


# --- one value --------------------------------------------------------------------------------------------------------


def _exactly(value: Any, kind: type[T]) -> T:  # noqa: ANN401 - whatever TOML holds
    if type(value) is not kind:
        raise ConfigError(f"is {shown(value)}; {_NAMES[kind]} was wanted")
    return value


def _number(value: Any, _: type) -> float:  # noqa: ANN401
    if type(value) not in (int, float):
        raise ConfigError(f"is {shown(value)}; a number was wanted")
    return float(value)


_NAMES: Mapping[type, str] = {int: "a whole number", str: "a text in quotes", bool: "true or false"}


def _setting_hook(kind: Any) -> Any:  # noqa: ANN401 - a typing form in, a cattrs hook out
    plain, lists = (bool, int, float, str), list[str] in get_args(kind)
    wanted = "a number, a text, true or false" + (", or a list of texts" if lists else "")

    def structure_setting(value: Any, _: object) -> Any:  # noqa: ANN401
        texts = lists and isinstance(value, list) and all(isinstance(entry, str) for entry in value)
        if type(value) not in plain and not texts:
            raise ConfigError(f"is {shown(value)}; {wanted} was wanted")
        return value

    return structure_setting


def _module(name: str, folder: Path) -> str:
    return str(folder / name) if name.endswith(".py") else name


def _literal_hook(kind: Any) -> Any:  # noqa: ANN401 - a typing form in, a cattrs hook out
    choices = get_args(kind)

    def structure_choice(value: Any, _: object) -> Any:  # noqa: ANN401
        if value not in choices or type(value) is bool:
            raise ConfigError(
                f"is {shown(value)}; it must be {either(map(str, choices))}{nearest(value, choices)}"
            )
        return value

    return structure_choice


def _is_module(kind: Any) -> bool:  # noqa: ANN401
    return bool(kind is ModuleName)


def _is_literal(kind: Any) -> bool:  # noqa: ANN401
    origin: Any = get_origin(kind)
    return origin is Literal


def _is_union(kind: Any) -> bool:  # noqa: ANN401
    return get_origin(kind) in (Union, types.UnionType)


def _is_setting(kind: Any) -> bool:  # noqa: ANN401
    return _is_union(kind) and {bool, int, float, str} <= set(get_args(kind))


def _is_optional(kind: Any) -> bool:  # noqa: ANN401
    return _is_union(kind) and type(None) in get_args(kind) and len(get_args(kind)) == 2  # noqa: PLR2004


def _optional_hook(kind: Any, converter: Converter) -> Any:  # noqa: ANN401
    inner = next(choice for choice in get_args(kind) if choice is not type(None))
    return lambda value, _: None if value is None else converter.structure(value, inner)


# --- tables -----------------------------------------------------------------------------------------------------------


def _table_hook(kind: Any, converter: Converter) -> Any:  # noqa: ANN401
    hook: Any = make_dict_structure_fn(kind, converter, _cattrs_forbid_extra_keys=True)
    if kind is Rule:
        hook = slots_hook(hook)
    if kind is Encoding:
        return encoding_hook(hook)
    if kind is World:
        return world_hook(hook)

    def structure_table(value: Any, _: object) -> Any:  # noqa: ANN401
        if not isinstance(value, dict):
            raise ConfigError(f"is {shown(value)}; a table was wanted")
        return hook(value, kind)

    return structure_table


# --- what went wrong --------------------------------------------------------------------------------------------------


def _findings(error: BaseException, where: Where) -> Iterator[tuple[Where, str]]:
    """Yield each leaf of cattrs' tree of errors with its place; unknown keys first, for a misspelt one hides others."""
    if isinstance(error, ForbiddenExtraKeysError):
        for key in sorted(error.extra_fields):
            yield (*where, key), _unknown(key, error.cl)
    elif isinstance(error, BaseValidationError):
        inner = sorted(error.exceptions, key=lambda child: not isinstance(child, ForbiddenExtraKeysError))
        for child in inner:
            yield from _findings(child, (*where, *_step(child)))
    elif isinstance(error, KeyError):
        yield where, f"is missing the key {error.args[0]!r}"
    else:
        yield where, str(error)


def _step(error: BaseException) -> Where:
    for note in getattr(error, "__notes__", ()):
        if isinstance(note, AttributeValidationNote):
            return () if isinstance(error, KeyError) else (note.name,)
        if isinstance(note, IterableValidationNote):
            return (note.index,)
    return ()


def _unknown(key: str, kind: type) -> str:
    known = [field.name for field in dataclasses.fields(kind)] + extra_keys(kind)
    hybrid = belongs_to(key) if kind is Rule else None
    if hybrid is not None:
        return f"belongs to another kind of rule: say kind = {hybrid!r} in the same table"
    return f"is unknown here{nearest(key, known)}; known are {listed(known)}"
