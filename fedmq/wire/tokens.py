"""The tokens of msgpack that the protocol uses, read one at a time from a place in the bytes.

Each function is told which token may stand there and returns what it read and the place behind it. So a message is read
in one pass along its table of fields: nothing that the table does not ask for is ever built, nests or takes memory,
whatever the bytes declare. Bytes that end too early raise `ENDED`; `fedmq.wire.envelope` says so in its own words.

Format: https://github.com/msgpack/msgpack/blob/master/spec.md. Extension types and nil have no place in the protocol.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from fedmq.errors import MessageError

if TYPE_CHECKING:
    from collections.abc import Mapping

ENDED: Final = (IndexError, struct.error)
"""What reading past the end raises."""

# Leading bytes that say all: value or length in themselves.
_SMALL_INTS: Final = {lead % 256: lead for lead in range(-0x20, 0x80)}
_SHORT_MAPS: Final = {0x80 + count: count for count in range(16)}
_SHORT_ARRAYS: Final = {0x90 + count: count for count in range(16)}
_SHORT_STRS: Final = {0xA0 + size: size for size in range(32)}
_BOOLS: Final = {0xC2: False, 0xC3: True}

# Leading bytes that say how wide the number is that follows: a value or a length.
_U8, _U16, _U32, _U64 = (struct.Struct(code) for code in (">B", ">H", ">I", ">Q"))
_I8, _I16, _I32, _I64 = (struct.Struct(code) for code in (">b", ">h", ">i", ">q"))
_BIN_8: Final = 0xC4
_BINS: Final = {_BIN_8: _U8, 0xC5: _U16, 0xC6: _U32}
_REALS: Final = {0xCA: struct.Struct(">f"), 0xCB: struct.Struct(">d")}
_INTS: Final = {0xCC: _U8, 0xCD: _U16, 0xCE: _U32, 0xCF: _U64, 0xD0: _I8, 0xD1: _I16, 0xD2: _I32, 0xD3: _I64}
_STRS: Final = {0xD9: _U8, 0xDA: _U16, 0xDB: _U32}
_ARRAYS: Final = {0xDC: _U16, 0xDD: _U32}
_MAPS: Final = {0xDE: _U16, 0xDF: _U32}

KINDS: Final[Mapping[int, str]] = {
    **dict.fromkeys(range(256), "an extension"),
    **dict.fromkeys((*_SMALL_INTS, *_INTS), "an integer"),
    **dict.fromkeys((*_SHORT_MAPS, *_MAPS), "a map"),
    **dict.fromkeys((*_SHORT_ARRAYS, *_ARRAYS), "an array"),
    **dict.fromkeys((*_SHORT_STRS, *_STRS), "text"),
    **dict.fromkeys(_BINS, "bytes"),
    **dict.fromkeys(_REALS, "a float"),
    **dict.fromkeys(_BOOLS, "a truth value"),
    0xC0: "nil",
    0xC1: "an unused code",
}
"""Which token each leading byte leads."""


def read_int(data: bytes, at: int) -> tuple[int, int]:
    """Return the integer at `at`, in any of msgpack's widths, and the place behind it."""
    value = _SMALL_INTS.get(data[at])
    return _wide(_INTS, "an integer", data, at) if value is None else (value, at + 1)


def read_real(data: bytes, at: int) -> tuple[float, int]:
    """Return the number at `at`, a float of either width or an integer, and the place behind it."""
    form = _REALS.get(data[at])
    if form is None:
        return read_int(data, at)
    return form.unpack_from(data, at + 1)[0], at + 1 + form.size


def read_bool(data: bytes, at: int) -> tuple[bool, int]:
    """Return the truth value at `at` and the place behind it."""
    value = _BOOLS.get(data[at])
    if value is None:
        raise _other(data[at], "a truth value")
    return value, at + 1


def bin_span(data: bytes, at: int) -> tuple[int, int]:
    """Return where the bytes announced at `at` begin and end; nothing is copied yet."""
    size, start = (data[at + 1], at + 2) if data[at] == _BIN_8 else _wide(_BINS, "bytes", data, at)
    end = start + size
    if end > len(data):
        raise _missing(end - len(data))
    return start, end


def str_span(data: bytes, at: int) -> tuple[int, int]:
    """Return where the UTF-8 text announced at `at` begins and ends; nothing is copied yet."""
    size, start = _SHORT_STRS.get(data[at]), at + 1
    if size is None:
        size, start = _wide(_STRS, "text", data, at)
    end = start + size
    if end > len(data):
        raise _missing(end - len(data))
    return start, end


def array_count(data: bytes, at: int) -> tuple[int, int]:
    """Return how many entries the array at `at` announces, and the place of the first."""
    count = _SHORT_ARRAYS.get(data[at])
    return _wide(_ARRAYS, "an array", data, at) if count is None else (count, at + 1)


def map_count(data: bytes, at: int) -> tuple[int, int]:
    """Return how many pairs the map at `at` announces, and the place of the first."""
    count = _SHORT_MAPS.get(data[at])
    return _wide(_MAPS, "a map", data, at) if count is None else (count, at + 1)


def _wide(forms: Mapping[int, struct.Struct], wanted: str, data: bytes, at: int) -> tuple[int, int]:
    """Return the number behind a leading byte that is one of `forms`, and the place behind that number."""
    form = forms.get(data[at])
    if form is None:
        raise _other(data[at], wanted)
    return form.unpack_from(data, at + 1)[0], at + 1 + form.size


def _missing(size: int) -> MessageError:
    return MessageError(f"{size} bytes are missing at the end")


def _other(lead: int, wanted: str) -> MessageError:
    return MessageError(f"{KINDS[lead]} instead of {wanted}")
