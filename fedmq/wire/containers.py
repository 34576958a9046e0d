"""Fields that hold fields: maps, arrays, and dataclasses as arrays.

Counts are checked before anything is read, and every entry takes at least one byte, so neither time nor memory can
exceed what the bytes themselves pay for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from fedmq.errors import MessageError, MisuseError
from fedmq.wire import tokens
from fedmq.wire.fields import show

if TYPE_CHECKING:
    from collections.abc import Callable

    from fedmq.wire.fields import Field, Name, Text

_HEAD_BYTES = 5


@dataclass(frozen=True, slots=True)
class Table:
    """A map of at most `most` names to one kind of value; no name comes twice."""

    key: Text | Name
    value: Field
    most: int

    def read(self, data: bytes, at: int) -> tuple[dict[str, Any], int]:
        """Return the map, each key and value checked."""
        count, at = tokens.map_count(data, at)
        if count > self.most:
            raise MessageError(f"a map of {count} instead of {self.wanted}")
        found: dict[str, Any] = {}
        read_key, read_value = self.key.read, self.value.read
        for _ in range(count):
            name, at = read_key(data, at)
            found[name], at = read_value(data, at)
        if len(found) < count:
            raise MessageError("a map that has a name twice")
        return found, at

    def write(self, value: object) -> dict[str | int, Any]:
        """Return it with each name and value as msgpack is to pack it."""
        if not isinstance(value, (dict, Mapping)) or len(value) > self.most:
            raise MisuseError(f"{show(value)} instead of {self.wanted}")
        write_key, write_value = self.key.write, self.value.write
        return {write_key(name): write_value(entry) for name, entry in value.items()}

    @property
    def longest(self) -> int:
        """Most bytes that it takes."""
        return _HEAD_BYTES + self.most * (self.key.longest + self.value.longest)

    @property
    def wanted(self) -> str:
        """Say so."""
        return f"map of at most {self.most}: {self.key.wanted} → {self.value.wanted}"


@dataclass(frozen=True, slots=True)
class Row:
    """An array of `least` to `most` values of one kind."""

    value: Field
    least: int
    most: int

    def read(self, data: bytes, at: int) -> tuple[tuple[Any, ...], int]:
        """Return the values, each checked."""
        count, at = tokens.array_count(data, at)
        if not self.least <= count <= self.most:
            raise MessageError(f"an array of {count} instead of {self.wanted}")
        found, read = [], self.value.read
        for _ in range(count):
            entry, at = read(data, at)
            found.append(entry)
        return tuple(found), at

    def write(self, value: object) -> list[Any]:
        """Return them as a list."""
        if not isinstance(value, (list, tuple)) or not self.least <= len(value) <= self.most:
            raise MisuseError(f"{show(value)} instead of {self.wanted}")
        return list(map(self.value.write, value))

    @property
    def longest(self) -> int:
        """Most bytes that it takes."""
        return _HEAD_BYTES + self.most * self.value.longest

    @property
    def wanted(self) -> str:
        """Say so."""
        return f"array of {self.least} to {self.most}: {self.value.wanted}"


@dataclass(frozen=True)
class Struct:
    """A dataclass as an array, one entry per field, in order.

    `flaw` says what is wrong between fields that are each within their limits; empty text where nothing is. A message
    that is `single` has its floats written in 32 bits.
    """

    make: type
    fields: tuple[tuple[str, Field], ...]
    flaw: Callable[[Any], str] | None = None
    single: bool = False

    def read(self, data: bytes, at: int) -> tuple[Any, int]:
        """Return the dataclass; names the field at fault."""
        count, at = tokens.array_count(data, at)
        if count != len(self.fields):
            raise MessageError(f"an array of {count} instead of {self.wanted}")
        return self.read_fields(data, at)

    def read_fields(self, data: bytes, at: int) -> tuple[Any, int]:
        """Do the same where the array's head has been read."""
        values: list[Any] = []
        try:
            for read in self._reads:
                value, at = read(data, at)
                values.append(value)
        except MessageError as error:
            raise MessageError(f"{self.fields[len(values)][0]}: {error}") from None
        made = self.make(*values)
        if self.flaw is not None and (flaw := self.flaw(made)):
            raise MessageError(flaw)
        return made, at

    def write(self, value: Any) -> list[Any]:  # noqa: ANN401 - an instance of `make`
        """Return the fields' values as a list; names the field at fault."""
        if type(value) is not self.make:
            raise MisuseError(f"{show(value)} instead of {self.make.__name__}")
        packed: list[Any] = []
        try:
            for write, entry in zip(self._writes, self._values(value), strict=True):
                packed.append(write(entry))
        except MisuseError as error:
            raise MisuseError(f"{self.fields[len(packed)][0]}: {error}") from None
        if self.flaw is not None and (flaw := self.flaw(value)):
            raise MisuseError(flaw)
        return packed

    @cached_property
    def _reads(self) -> tuple[Callable[[bytes, int], tuple[Any, int]], ...]:
        return tuple(field.read for _, field in self.fields)

    @cached_property
    def _writes(self) -> tuple[Callable[[Any], Any], ...]:
        return tuple(field.write for _, field in self.fields)

    @cached_property
    def _values(self) -> Callable[[Any], tuple[Any, ...]]:
        return attrgetter(*(name for name, _ in self.fields))

    @cached_property
    def longest(self) -> int:
        """Most bytes that it takes."""
        return _HEAD_BYTES + sum(field.longest for _, field in self.fields)

    @property
    def wanted(self) -> str:
        """Say so."""
        return f"{self.make.__name__}, array of {len(self.fields)}"
