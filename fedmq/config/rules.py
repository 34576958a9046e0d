"""Rules in TOML: by name, as four slots, made of rules; and each part by its kind, alone or in sequence."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias, get_args, get_origin, get_type_hints

from fedmq.aggregator.settings import Encoding
from fedmq.algorithms import ALGORITHMS, Algorithm
from fedmq.config.words import either, nearest, shown
from fedmq.errors import ConfigError
from fedmq.rules import (
    GUARDS,
    HYBRIDS,
    PRESETS,
    REDUCERS,
    STEPS,
    WEIGHERS,
    AnyRule,
    Guard,
    Reducer,
    Rule,
    Step,
    Weigher,
    preset,
)
from fedmq.rules.dotted import part
from fedmq.worlds import ATTACKS, Attack, World

if TYPE_CHECKING:
    from cattrs import Converter

Hook: TypeAlias = Callable[[Any, Any], Any]

SLOTS: Mapping[type, Mapping[str, type]] = {
    Guard: GUARDS,
    Weigher: WEIGHERS,
    Reducer: REDUCERS,
    Step: STEPS,
    Algorithm: ALGORITHMS,
    Attack: ATTACKS,
}
"""Which table of parts a slot's ``kind`` is looked up in."""

CHOICES: Mapping[type, Mapping[str, type]] = {**SLOTS, AnyRule: HYBRIDS}
"""Every table that a ``kind`` is looked up in."""


def bare(kind: Any) -> Any:  # noqa: ANN401 - a typing form
    """Return a generic's class without its arguments."""
    origin: Any = get_origin(kind)
    return kind if origin is None else origin


def is_slot(kind: Any) -> bool:  # noqa: ANN401
    """Tell whether `kind` is a slot of rules."""
    return bare(kind) in SLOTS


def is_rule(kind: Any) -> bool:  # noqa: ANN401
    """Tell whether `kind` stands for whole rules."""
    return kind is AnyRule


def extra_keys(kind: type) -> list[str]:
    """Return the keys that a table has beside the fields of its dataclass."""
    if kind is Rule:
        return ["preset", "kind"]
    if kind in (Encoding, World):
        return ["preset"]
    return ["kind"] if any(kind in table.values() for table in CHOICES.values()) else []


def belongs_to(key: str) -> str | None:
    """Return the kind of hybrid that has this key, for people who forgot to say it."""
    return next((kind for kind, hybrid in HYBRIDS.items() if key in get_type_hints(hybrid)), None)


def inside(part: type) -> str | None:
    """Return the field in which a part holds another of its own slot; None for one that stands alone."""
    slot = next((slot for slot, table in SLOTS.items() if part in table.values()), None)
    return next((name for name, hint in get_type_hints(part).items() if slot and bare(hint) is slot), None)


def rule_hook(converter: Converter) -> Hook:
    """Structure a rule: ``"fedavg"``, a preset with changes, four slots, or a hybrid by its ``kind``."""

    def structure_rule(value: Any, _: object) -> Any:  # noqa: ANN401
        if isinstance(value, str):
            return preset(value)
        if not isinstance(value, dict):
            raise ConfigError(f"is {shown(value)}; a preset's name or a table was wanted")
        if "kind" in value:
            return _hybrid(value, converter)
        return converter.structure(value, Rule)

    return structure_rule


def slots_hook(plain: Hook) -> Hook:
    """Structure a rule of four slots with the hook `plain`, or from a ``preset`` with changes."""

    def structure_slots(value: Any, kind: object) -> Any:  # noqa: ANN401
        if "preset" not in value:
            return plain(value, kind)
        if not isinstance(value["preset"], str):
            raise ConfigError(f"preset is {shown(value['preset'])}; a text in quotes was wanted")
        given = _without(value, "preset")
        changes = plain(given, kind)
        return dataclasses.replace(
            preset(value["preset"]), **{slot: getattr(changes, slot) for slot in given}
        )

    return structure_slots


def _hybrid(value: Mapping[str, Any], converter: Converter) -> Any:  # noqa: ANN401
    if value["kind"] in list(PRESETS):
        told = shown(value["kind"])
        raise ConfigError(f"has kind {told}, which is a whole rule: say preset = {told}")
    return converter.structure(_without(value, "kind"), _row(value["kind"], HYBRIDS))


def part_hook(slot: type, converter: Converter) -> Hook:
    """Structure one part of a rule: ``"median"``, ``{ kind = "norm_clip", limit = 5.0 }``, or a list of such.

    In a list, each part holds the one behind it: ``["bucketing", "median"]`` is the median of buckets.
    """
    table = SLOTS[slot]

    def structure_part(value: Any, _: object) -> Any:  # noqa: ANN401
        if isinstance(value, list):
            return converter.structure(_nested(value, table, slot), slot)
        given = {"kind": value} if isinstance(value, str) else value
        if not isinstance(given, dict) or "kind" not in given:
            raise ConfigError(
                f"is {shown(value)}; a table with a kind was wanted, such as {{ kind = {min(table)!r} }}"
            )
        return converter.structure(_without(given, "kind"), _part(given["kind"], slot))

    return structure_part


def _nested(sequence: list[Any], table: Mapping[str, type], slot: type) -> Any:  # noqa: ANN401
    """Return the tables of a sequence as one: each in the one before it."""
    if not sequence:
        raise ConfigError("is an empty list; one part at least was wanted")
    first, *rest = sequence
    if not rest:
        return first
    given = {"kind": first} if isinstance(first, str) else first
    if not isinstance(given, dict):
        raise ConfigError(f"is a sequence with {shown(first)} in it; a part with a kind was wanted")
    kind = given.get("kind")
    place = inside(_part(kind, slot))
    if place is None:
        what = slot.__name__.lower()
        raise ConfigError(
            f"goes on after {kind!r}, which takes no other {what} into itself: put that one last"
        )
    if place in given:
        raise ConfigError(
            f"goes on after {kind!r}, which says its own {place}: leave that out, or what follows"
        )
    return {**given, place: _nested(rest, table, slot)}


def _without(table: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {name: entry for name, entry in table.items() if name != key}


def _part(kind: object, slot: type) -> type:
    """Return the class of that kind: a row of the slot's table, or one of the user's as ``package.module:Class``."""
    return part(kind, slot) if isinstance(kind, str) and ":" in kind else _row(kind, SLOTS[slot])


def _row(kind: object, table: Mapping[str, type]) -> type:
    if not isinstance(kind, str) or kind not in table:
        raise ConfigError(f"has kind {shown(kind)}; it must be {either(sorted(table))}{nearest(kind, table)}")
    return table[kind]


def is_sequence(kind: Any) -> bool:  # noqa: ANN401
    """Tell whether `kind` is a tuple of any length."""
    return get_origin(kind) is tuple and get_args(kind)[1:] == (...,)


def sequence_hook(kind: Any, converter: Converter) -> Hook:  # noqa: ANN401
    """Structure a tuple; a single value stands for a list of one."""
    entries: Any = list[get_args(kind)[0]]  # type: ignore[misc]  # known at run time only

    def structure_sequence(value: Any, _: object) -> Any:  # noqa: ANN401
        return tuple(converter.structure(value if isinstance(value, list) else [value], entries))

    return structure_sequence
