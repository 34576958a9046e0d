"""Every field of every message at its limits and one beyond, in both directions."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any

import msgpack
import pytest

from fedmq.errors import MessageError, MisuseError
from fedmq.wire.containers import Row, Struct, Table
from fedmq.wire.fields import (
    SINGLE,
    Bool,
    Bytes,
    Choice,
    Field,
    Int,
    Name,
    Prose,
    Real,
    SettingValue,
    Text,
    figure,
)
from fedmq.wire.table import FACTS, MESSAGES

if TYPE_CHECKING:
    from collections.abc import Iterator

BUILDABLE = 3_000_000  # longer values are not built; what they announce is refused all the same
STRUCTS = [*MESSAGES.values(), FACTS]


def every_field() -> dict[str, Field]:
    """Return each field of each message by its place, the parts of maps and arrays included."""
    return {
        place: part
        for struct in STRUCTS
        for name, field in struct.fields
        for place, part in parts(f"{struct.make.__name__}.{name}", field)
    }


def parts(place: str, field: Field) -> Iterator[tuple[str, Field]]:
    yield place, field
    if isinstance(field, Table):
        yield from parts(f"{place}.key", field.key)
    if isinstance(field, (Table, Row)):
        yield from parts(f"{place}.value", field.value)


def edges(field: Field) -> tuple[list[Any], list[Any]]:  # noqa: C901, PLR0911, PLR0912 - one row per type of field
    """Return values on the limits of the field, and values just outside of them."""
    match field:
        case Int(low, high):
            return [low, high], [low - 1, high + 1, float(low), bool(low), None]
        case Real(low, high) if field == SINGLE:
            return [low, high, 0, 5e-324], [
                math.nextafter(low, -math.inf),
                math.nextafter(high, math.inf),
                math.nan,
            ]
        case Real(low, high) if high == sys.float_info.max:
            return [low, high, 0, 5e-324], [math.inf, -math.inf, math.nan, True, None]
        case Real(low, high):
            return [low, high], [math.nextafter(low, -1), math.nextafter(high, math.inf), math.nan, True]
        case Bool():
            return [True, False], [0, 1, None, "true"]
        case Text(most):
            return ["", "x" * most, "é" * (most // 2), "😀" * (most // 4)], [
                *unfit_texts(most),
                "\x7f",
                "\x80",
                b"",
                None,
            ]
        case Name(text, known):
            return [*edges(text)[0], *known], [*edges(text)[1], -0.5]
        case Bytes(least, most, blank):
            inside = [bytes(least), bytes(min(most, BUILDABLE)), *([b""] if blank else [])]
            outside = [bytes(size) for size in (least - 1, most + 1, int(blank)) if buildable(field, size)]
            return inside, [*outside, "x" * least, None]
        case Choice(kind):
            return list(kind), [max(kind) + 1, 0, -1, True, None]
        case SettingValue():
            return [True, 2**53, -(2**53), 0.5, "x" * 200], [
                2**53 + 1,
                "x" * 201,
                math.nan,
                b"",
                None,
                [],
                {},
            ]
        case Table(_, value, most):
            return [named(value, 0), named(value, most)], [
                named(value, most + 1),
                [],
                None,
                {-1: first(value)},
            ]
        case Row(value, least, most):
            return [[first(value)] * least, [first(value)] * most], [
                [first(value)] * (most + 1),
                {},
                None,
                *fewer(field),
            ]
        case Struct():
            return [], [[], [None] * len(field.fields), None]
    raise NotImplementedError(field)


def unfit_texts(most: int) -> list[str]:
    return ["x" * (most + 1), "é" * (most // 2 + 1), "x\n", "\x00"]


def buildable(field: Bytes, size: int) -> bool:
    return (
        0 <= size <= BUILDABLE and not field.least <= size <= field.most and not (field.blank and size == 0)
    )


def first(field: Field) -> object:
    return [] if isinstance(field, Struct) else edges(field)[0][0]


def named(value: Field, count: int) -> dict[str, Any]:
    return {f"{index}": first(value) for index in range(count)}


def fewer(row: Row) -> list[list[Any]]:
    return [[first(row.value)] * (row.least - 1)] if row.least else []


FIELDS = every_field()
each_field = pytest.mark.parametrize("field", FIELDS.values(), ids=FIELDS.keys())


@each_field
def test_takes_what_is_on_the_limit(field: Field) -> None:
    for value in edges(field)[0]:
        data = msgpack.packb(field.write(value))
        read, end = field.read(data, 0)
        assert end == len(data) <= field.longest
        assert read == (tuple(value) if isinstance(value, list) else value)


@each_field
def test_does_not_send_what_is_beyond(field: Field) -> None:
    for value in edges(field)[1]:
        if isinstance(field, Prose) and isinstance(value, str):
            continue  # is made to fit
        with pytest.raises(MisuseError):
            field.write(value)


@each_field
def test_does_not_take_what_is_beyond(field: Field) -> None:
    for value in edges(field)[1]:
        with pytest.raises(MessageError):
            field.read(msgpack.packb(value), 0)


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda struct: struct.make.__name__)
def test_says_what_it_wants(struct: Struct) -> None:
    for _, field in struct.fields:
        assert 3 < len(field.wanted) < 200
    assert struct.wanted == f"{struct.make.__name__}, array of {len(struct.fields)}"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "0"),
        (300, "300"),
        (1024, "1024"),
        (2**20, "2^20"),
        (2**31 - 1, "2^31 - 1"),
        (-(2**53), "-2^53"),
        (2_000_000, "2000000"),
        (0.5, "0.5"),
        (315_360_000.0, "315360000"),
    ],
)
def test_limits_read_well(value: float, words: str) -> None:
    assert figure(value) == words
