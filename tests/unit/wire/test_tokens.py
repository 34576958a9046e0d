"""Single tokens against the msgpack library, and against the end of the bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmq.errors import MessageError
from fedmq.wire.tokens import (
    ENDED,
    KINDS,
    array_count,
    bin_span,
    map_count,
    read_bool,
    read_int,
    read_real,
    str_span,
)

Reader: TypeAlias = Callable[[bytes, int], tuple[Any, int]]

READERS: dict[Reader, set[str]] = {
    read_int: {"an integer"},
    read_real: {"an integer", "a float"},
    read_bool: {"a truth value"},
    bin_span: {"bytes"},
    str_span: {"text"},
    array_count: {"an array"},
    map_count: {"a map"},
}


@given(st.integers(-(2**63), 2**64 - 1))
def test_integers(value: int) -> None:
    data = msgpack.packb(value)
    assert read_int(b"??" + data, 2) == (value, 2 + len(data))


@given(st.floats(allow_nan=False))
def test_floats(value: float) -> None:
    data = msgpack.packb(value)
    assert read_real(data, 0) == (value, len(data))


@given(st.floats(width=32, allow_nan=False))
def test_short_floats(value: float) -> None:
    assert read_real(msgpack.packb(value, use_single_float=True), 0) == (value, 5)


@pytest.mark.parametrize("size", [0, 1, 15, 16, 31, 32, 255, 256, 65_535, 65_536])
def test_lengths_in_every_width(size: int) -> None:
    packer = msgpack.Packer()
    text, raw = msgpack.packb("x" * size), msgpack.packb(b"x" * size)
    assert str_span(text, 0) == (len(text) - size, len(text))
    assert bin_span(raw, 0) == (len(raw) - size, len(raw))
    for pack, count in ((packer.pack_array_header, array_count), (packer.pack_map_header, map_count)):
        data = pack(size)
        assert count(data, 0) == (size, len(data))


@pytest.mark.parametrize("value", [True, False])
def test_truth_values(value: bool) -> None:  # noqa: FBT001 - pytest passes by name
    assert read_bool(msgpack.packb(value), 0) == (value, 1)


@pytest.mark.parametrize("read", READERS, ids=lambda read: read.__name__)
def test_each_reader_takes_its_own_tokens_only(read: Reader) -> None:
    for lead in range(256):
        data = bytes((lead,)) + bytes(100)
        if KINDS[lead] in READERS[read]:
            assert read(data, 0)[1] > 0
        else:
            with pytest.raises(MessageError, match=f"^{KINDS[lead]} instead of "):
                read(data, 0)


NAMES = {
    bool: "a truth value",
    int: "an integer",
    float: "a float",
    str: "text",
    bytes: "bytes",
    list: "an array",
}
NAMES |= {
    dict: "a map",
    type(None): "nil",
    msgpack.ExtType: "an extension",
    msgpack.Timestamp: "an extension",
}


def test_names_each_token_as_the_msgpack_library_reads_it() -> None:
    for lead in set(range(256)) - {0xC1}:
        try:
            value = msgpack.unpackb(bytes((lead,)) + bytes(40), strict_map_key=False)
        except msgpack.ExtraData as extra:
            value = extra.unpacked  # type: ignore[attr-defined]
        assert KINDS[lead] == NAMES[type(value)]
    assert KINDS[0xC1] == "an unused code"


@pytest.mark.parametrize(
    "value", [300, 2**40, -300, 0.5, "x" * 40, b"x", b"x" * 300, [0] * 20, {str(n): n for n in range(20)}]
)
def test_says_so_where_the_bytes_end(value: object) -> None:
    data = msgpack.packb(value)
    read = next(read for read, kinds in READERS.items() if KINDS[data[0]] in kinds)
    head = len(data) if isinstance(value, (int, float, str, bytes)) else 3
    for cut in range(head):
        with pytest.raises((MessageError, *ENDED)):
            read(data[:cut], 0)
