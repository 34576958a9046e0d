"""The types of field that a message may have on the wire, each with its limits.

A field does two things. `read` takes its value from a place in the bytes, and returns the value and the place behind
it; what is not within the field's limits raises MessageError. `write` takes the value that a message holds, and returns
what msgpack is to pack; what `read` would refuse raises MisuseError. Limits of text are in bytes of its UTF-8 form.
"""

from __future__ import annotations

import math
import numbers
import re
import sys
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol

from fedmq.errors import MessageError, MisuseError
from fedmq.wire import limits, tokens

if TYPE_CHECKING:
    from collections.abc import Mapping

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_LARGEST: Final = sys.float_info.max
_LARGEST_SINGLE: Final = 2.0**128 - 2.0**104
_SHORT: Final = 2**31
_HUGE: Final = 2**64
_NUMBER_BYTES: Final = 9  # the widest integer and the widest float, with their leading byte
_HEAD_BYTES: Final = 5  # the longest leading bytes of text, bytes, an array or a map


class Field(Protocol):
    """One place in a message's array."""

    def read(self, data: bytes, at: int) -> tuple[Any, int]:
        """Return the value at `at` and the place behind it; raises MessageError, or one of `tokens.ENDED`."""

    def write(self, value: Any) -> Any:  # noqa: ANN401 - any of the types that the fields below hold
        """Return what msgpack is to pack; raises MisuseError."""

    @property
    def longest(self) -> int:
        """Most bytes that it takes on the wire."""

    @property
    def wanted(self) -> str:
        """Say type and limits in a few words, for the specification and for errors."""


@dataclass(frozen=True, slots=True)
class Int:
    """An integer from `low` to `high`, both included."""

    low: int
    high: int
    longest: ClassVar[int] = _NUMBER_BYTES

    def read(self, data: bytes, at: int) -> tuple[int, int]:
        """Return the integer; a truth value is not one."""
        value, end = tokens.read_int(data, at)
        if not self.low <= value <= self.high:
            raise MessageError(f"{value} instead of {self.wanted}")
        return value, end

    def write(self, value: int) -> int:
        """Return it; NumPy's integers are taken too."""
        if type(value) is not int and (isinstance(value, bool) or not isinstance(value, numbers.Integral)):
            raise _misuse(value, self)
        if not self.low <= value <= self.high:
            raise _misuse(value, self)
        return int(value)

    @property
    def wanted(self) -> str:
        """Say so."""
        return f"int, {figure(self.low)} to {figure(self.high)}"


@dataclass(frozen=True, slots=True)
class Real:
    """A finite float from `low` to `high`, both included."""

    low: float = -_LARGEST
    high: float = _LARGEST
    longest: ClassVar[int] = _NUMBER_BYTES

    def read(self, data: bytes, at: int) -> tuple[float, int]:
        """Return a float; a shorter float or an integer is taken too, NaN and infinities are not."""
        value, end = tokens.read_real(data, at)
        if not self.low <= value <= self.high:  # NaN is neither below nor above
            raise MessageError(f"{value:g} instead of {self.wanted}")
        return float(value), end

    def write(self, value: float) -> float:
        """Return it, a small whole number as an integer, which is shorter; NumPy's numbers are taken too."""
        number = value if type(value) is float else _float(value, self)
        if not self.low <= number <= self.high:
            raise _misuse(value, self)
        whole = (
            -_SHORT <= number <= _SHORT and number.is_integer() and (number or math.copysign(1.0, number) > 0)
        )
        return int(number) if whole else number

    @property
    def wanted(self) -> str:
        """Say so."""
        if self == SINGLE:
            return "float, finite in 32 bits"
        return (
            "float, finite" if self.low == -_LARGEST else f"float, {figure(self.low)} to {figure(self.high)}"
        )


SINGLE: Final = Real(-_LARGEST_SINGLE, _LARGEST_SINGLE)
"""A float that is finite in 32 bits too; in which it is sent says the message."""


@dataclass(frozen=True, slots=True)
class Bool:
    """True or false."""

    longest: ClassVar[int] = 1
    wanted: ClassVar[str] = "bool"

    def read(self, data: bytes, at: int) -> tuple[bool, int]:
        """Return it."""
        return tokens.read_bool(data, at)

    def write(self, value: bool) -> bool:  # noqa: FBT001
        """Return it."""
        if type(value) is not bool:
            raise _misuse(value, self)
        return value


@dataclass(frozen=True, slots=True)
class Text:
    """Text of at most `most` bytes of UTF-8, without control characters (U+0000 to U+001F, U+007F to U+009F).

    Those could end a C string early, forge a line of a log or command a terminal.
    """

    most: int

    def read(self, data: bytes, at: int) -> tuple[str, int]:
        """Return it."""
        start, end = tokens.str_span(data, at)
        if end - start > self.most:
            raise MessageError(f"text of {end - start} bytes instead of {self.wanted}")
        try:
            text = str(data[start:end], "utf-8")
        except UnicodeDecodeError:
            raise MessageError("text that is not UTF-8") from None
        if not text.isprintable() and _CONTROL.search(text):
            raise MessageError("text with a control character")
        return text, end

    def write(self, value: object) -> str:
        """Return it."""
        if not isinstance(value, str) or not -1 < _utf8_bytes(value) <= self.most:
            raise _misuse(value, self)
        return value

    @property
    def longest(self) -> int:
        """Most bytes that it takes."""
        return _HEAD_BYTES + self.most

    @property
    def wanted(self) -> str:
        """Say so."""
        return f"str, at most {self.most}"


@dataclass(frozen=True, slots=True)
class Name:
    """Text that names something; a name that is `known` to all travels as its number, in one byte."""

    text: Text
    known: tuple[str, ...]

    def read(self, data: bytes, at: int) -> tuple[str, int]:
        """Return the name, whether it is written out or by its number."""
        if tokens.KINDS[data[at]] != "an integer":
            return self.text.read(data, at)
        number, end = tokens.read_int(data, at)
        if not 0 <= number < len(self.known):
            raise MessageError(f"{number} instead of {self.wanted}")
        return self.known[number], end

    def write(self, value: object) -> str | int:
        """Return its number, or the name where it has none."""
        name = self.text.write(value)
        return self.known.index(name) if name in self.known else name

    @property
    def longest(self) -> int:
        """Most bytes that it takes."""
        return self.text.longest

    @property
    def wanted(self) -> str:
        """Say so."""
        numbers = ", ".join(f"{number} {name}" for number, name in enumerate(self.known))
        return f"{self.text.wanted}; or int: {numbers}"


@dataclass(frozen=True, slots=True)
class Prose(Text):
    """Text for people. On the wire it is `Text`; what would not fit is made to fit before it is sent."""

    def write(self, value: object) -> str:
        """Return it cut to the limit, control characters as spaces and lone surrogates as question marks."""
        if not isinstance(value, str):
            raise _misuse(value, self)
        plain = _CONTROL.sub(" ", value).encode(errors="replace")
        return plain[: self.most].decode(errors="ignore")


@dataclass(frozen=True, slots=True)
class Bytes:
    """From `least` to `most` bytes; with `blank`, none is allowed too."""

    least: int
    most: int
    blank: bool = False

    def read(self, data: bytes, at: int) -> tuple[bytes, int]:
        """Return them."""
        start, end = tokens.bin_span(data, at)
        size = end - start
        if not self.least <= size <= self.most and (size or not self.blank):
            raise MessageError(f"{size} bytes instead of {self.wanted}")
        return self.cut(data, start, end), end

    def cut(self, data: bytes, start: int, end: int) -> bytes:
        """Return this part of `data` as bytes, whatever `data` is."""
        return bytes(data[start:end])

    def write(self, value: bytes) -> bytes:
        """Return them."""
        if type(value) is not bytes:
            raise _misuse(value, self)
        if not self.least <= len(value) <= self.most and (value or not self.blank):
            raise _misuse(value, self)
        return value

    @property
    def longest(self) -> int:
        """Most bytes that they take."""
        return _HEAD_BYTES + self.most

    @property
    def wanted(self) -> str:
        """Say so."""
        sizes = f"{self.least}" if self.least == self.most else f"{self.least} to {figure(self.most)}"
        return f"bin, {'0 or ' if self.blank else ''}{sizes}"


@dataclass(frozen=True, slots=True)
class Body(Bytes):
    """Bytes that may be many: a view where the message is one (see `fedmq.wire.envelope.skim`)."""

    def cut(self, data: bytes, start: int, end: int) -> bytes:
        """Return this part of `data`, uncopied where `data` is a view."""
        return data[start:end]


@dataclass(frozen=True, slots=True)
class Choice:
    """One number of an enumeration."""

    kind: type[IntEnum]
    longest: ClassVar[int] = _NUMBER_BYTES

    def read(self, data: bytes, at: int) -> tuple[IntEnum, int]:
        """Return the member."""
        value, end = tokens.read_int(data, at)
        try:
            return self.kind(value), end
        except ValueError:
            raise MessageError(f"{value} instead of {self.wanted}") from None

    def write(self, value: IntEnum) -> int:
        """Return its number."""
        if type(value) is not self.kind:
            raise _misuse(value, self)
        return int(value)

    @property
    def wanted(self) -> str:
        """Say so."""
        return "int: " + ", ".join(f"{member.value} {member.name.lower()}" for member in self.kind)


_TRUTH: Final = Bool()
_WHOLE: Final = Int(-(2**53), 2**53)
_REAL: Final = Real()
_WORDS: Final = Text(limits.SETTING)


@dataclass(frozen=True, slots=True)
class SettingValue:
    """A setting of a task: bool, int, finite float or text, whichever token stands there."""

    longest: ClassVar[int] = _WORDS.longest

    def read(self, data: bytes, at: int) -> tuple[bool | int | float | str, int]:
        """Return it."""
        return _BY_TOKEN.get(tokens.KINDS[data[at]], _WHOLE).read(data, at)

    def write(self, value: bool | float | str) -> bool | float | str:  # noqa: FBT001
        """Return it; only of these four types, nothing that is merely like them."""
        kind = _BY_TYPE.get(type(value))
        if kind is None:
            raise _misuse(value, self)
        packed: bool | float | str = kind.write(value)
        return packed

    @property
    def wanted(self) -> str:
        """Say so."""
        return " or ".join(kind.wanted for kind in _BY_TYPE.values())


_BY_TYPE: Final[Mapping[type, Field]] = {bool: _TRUTH, int: _WHOLE, float: _REAL, str: _WORDS}
_BY_TOKEN: Final[Mapping[str, Field]] = {"a truth value": _TRUTH, "a float": _REAL, "text": _WORDS}


def _utf8_bytes(text: str) -> int:
    """Return how many bytes the text takes, -1 for what is not to be sent: control characters, lone surrogates."""
    if text.isascii():
        return len(text) if text.isprintable() else -1
    try:
        return -1 if _CONTROL.search(text) else len(text.encode())
    except UnicodeEncodeError:
        return -1


def _float(value: object, field: Real) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise _misuse(value, field)
    try:
        return float(value)
    except OverflowError:
        raise _misuse(value, field) from None


def figure(value: float) -> str:
    """Write a limit so that a person sees its size: powers of two from 2^20 on as such."""
    size = abs(int(value))
    for extra, tail in ((0, ""), (1, " - 1")):
        power = (size + extra).bit_length() - 1
        if size >= 2**20 and size + extra == 2**power:
            return f"{'-' if value < 0 else ''}2^{power}{tail}"
    return f"{value:.15g}"


def show(value: object) -> str:
    """Describe a value of ours in a bounded number of characters."""
    name = type(value).__name__
    if isinstance(value, (bytes, str, list, tuple, dict)):
        return f"{name} of {len(value)}"
    if isinstance(value, float):
        return f"{name} {value:g}"
    if isinstance(value, int):
        return f"{name} {value}" if abs(value) < _HUGE else f"a huge {name}"
    return name


def _misuse(value: object, field: Field) -> MisuseError:
    return MisuseError(f"{show(value)} instead of {field.wanted}")
