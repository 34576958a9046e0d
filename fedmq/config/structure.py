"""TOML tables into the frozen dataclasses that the rest of fedmq uses; what does not fit is named, with its line.

There is no second schema: the dataclasses' fields are the keys, their types are the types, and what their
`__post_init__` refuses is refused here too.
"""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin

from cattrs import BaseValidationError, Converter
from cattrs.errors import AttributeValidationNote, ForbiddenExtraKeysError, IterableValidationNote
from cattrs.gen import make_dict_structure_fn

from fedmq.codecs import Codec, parse
from fedmq.config.lines import line_of
from fedmq.device.interface import ModuleName
from fedmq.errors import ConfigError
from fedmq.rules import GUARDS, REDUCERS, STEPS, WEIGHERS, Guard, Reducer, Rule, Step, Weigher, preset

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

T = TypeVar("T")
Where = tuple[str | int, ...]

SLOTS: Mapping[type, Mapping[str, type]] = {Guard: GUARDS, Weigher: WEIGHERS, Reducer: REDUCERS, Step: STEPS}
"""Which table of parts a slot's ``kind`` is looked up in."""


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
    raise ConfigError(f"{place}: {_dotted(where)}{sentence}") from None


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
    converter.register_structure_hook_factory(_is_literal, _literal_hook)
    converter.register_structure_hook_factory(_is_optional, lambda kind: _optional_hook(kind, converter))
    converter.register_structure_hook_factory(_is_setting, _setting_hook)
    converter.register_structure_hook_factory(_is_slot, lambda kind: _part_hook(_bare(kind), converter))
    converter.register_structure_hook_factory(
        dataclasses.is_dataclass, lambda kind: _table_hook(kind, converter)
    )
    return converter


# --- one value --------------------------------------------------------------------------------------------------------


def _exactly(value: Any, kind: type[T]) -> T:  # noqa: ANN401 - whatever TOML holds
    if type(value) is not kind:
        raise ConfigError(f"is {_shown(value)}; {_NAMES[kind]} was wanted")
    return value


def _number(value: Any, _: type) -> float:  # noqa: ANN401
    if type(value) not in (int, float):
        raise ConfigError(f"is {_shown(value)}; a number was wanted")
    return float(value)


_NAMES: Mapping[type, str] = {int: "a whole number", str: "a text in quotes", bool: "true or false"}


def _setting_hook(kind: Any) -> Any:  # noqa: ANN401 - a typing form in, a cattrs hook out
    plain, lists = (bool, int, float, str), list[str] in get_args(kind)
    wanted = "a number, a text, true or false" + (", or a list of texts" if lists else "")

    def structure_setting(value: Any, _: object) -> Any:  # noqa: ANN401
        texts = lists and isinstance(value, list) and all(isinstance(entry, str) for entry in value)
        if type(value) not in plain and not texts:
            raise ConfigError(f"is {_shown(value)}; {wanted} was wanted")
        return value

    return structure_setting


def _module(name: str, folder: Path) -> str:
    return str(folder / name) if name.endswith(".py") else name


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a table"
    return repr(value) if len(repr(value)) <= 60 else f"a {type(value).__name__}"  # noqa: PLR2004


def _literal_hook(kind: Any) -> Any:  # noqa: ANN401 - a typing form in, a cattrs hook out
    choices = get_args(kind)

    def structure_choice(value: Any, _: object) -> Any:  # noqa: ANN401
        if value not in choices or type(value) is bool:
            raise ConfigError(
                f"is {_shown(value)}; it must be {_or(map(str, choices))}{_nearest(value, choices)}"
            )
        return value

    return structure_choice


def _is_slot(kind: Any) -> bool:  # noqa: ANN401
    return _bare(kind) in SLOTS


def _bare(kind: Any) -> Any:  # noqa: ANN401
    """Return a generic's class without its arguments."""
    origin: Any = get_origin(kind)
    return kind if origin is None else origin


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

    def structure_table(value: Any, _: object) -> Any:  # noqa: ANN401
        if kind is Rule and isinstance(value, dict) and "preset" in value:
            return _from_preset(value, converter)
        if not isinstance(value, dict):
            raise ConfigError(f"is {_shown(value)}; a table was wanted")
        return hook(value, kind)

    return structure_table


def _from_preset(value: dict[str, Any], converter: Converter) -> Rule:
    """Take a preset, with the slots that are spelt out beside it in place of the preset's own."""
    given = dict(value)
    rule = preset(_exactly(given.pop("preset"), str))
    changes = converter.structure(given, Rule)
    return dataclasses.replace(rule, **{slot: getattr(changes, slot) for slot in given})


def _part_hook(slot: type, converter: Converter) -> Any:  # noqa: ANN401
    """Structure one part of a rule: ``"median"`` or ``{ kind = "norm_clip", limit = 5.0 }``."""
    table = SLOTS[slot]

    def structure_part(value: Any, _: object) -> Any:  # noqa: ANN401
        given = {"kind": value} if isinstance(value, str) else value
        if not isinstance(given, dict) or "kind" not in given:
            raise ConfigError(
                f"is {_shown(value)}; a table with a kind was wanted, such as {{ kind = {min(table)!r} }}"
            )
        rest = {key: entry for key, entry in given.items() if key != "kind"}
        if given["kind"] not in table:
            wanted = f"it must be {_or(sorted(table))}{_nearest(given['kind'], table)}"
            raise ConfigError(f"has kind {_shown(given['kind'])}; {wanted}")
        return converter.structure(rest, table[given["kind"]])

    return structure_part


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
    known = [field.name for field in dataclasses.fields(kind)] + (["preset"] if kind is Rule else [])
    return f"is unknown here{_nearest(key, known)}; known are {_and(known)}"


def _nearest(word: object, known: Any) -> str:  # noqa: ANN401 - any collection of words
    found = difflib.get_close_matches(str(word), [str(name) for name in known], n=1, cutoff=0.5)
    return f" (did you mean {found[0]!r}?)" if found else ""


def _or(words: Any) -> str:  # noqa: ANN401
    return " or ".join(words)


def _and(words: Any) -> str:  # noqa: ANN401
    return ", ".join(words) or "none"


def _dotted(where: Where) -> str:
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in where).lstrip(".")
    return f"{text} " if text else ""
