"""Messages for hypothesis, made from the table of messages: a field added there is covered without a change here."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from fedmq.protocol.messages import Chunk, Manifest, Message, Receipt, Task
from fedmq.wire.containers import Row, Struct, Table
from fedmq.wire.fields import SINGLE, Bool, Bytes, Choice, Field, Int, Name, Real, SettingValue, Text
from fedmq.wire.table import MESSAGES

if TYPE_CHECKING:
    from collections.abc import Callable

LETTERS = st.characters(exclude_categories=("Cs", "Cc"))
FEW = 3  # entries of a map or array: more would only slow the tests down; the limits have tests of their own


def texts(most: int) -> st.SearchStrategy[str]:
    return st.text(LETTERS, max_size=most // 4) | st.text(
        st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=most
    )


def values(field: Field) -> st.SearchStrategy[Any]:  # noqa: C901, PLR0911 - one row per type of field
    """Return values that the field takes."""
    match field:
        case Int(low, high):
            return st.integers(low, high)
        case Real() if field == SINGLE:
            return st.floats(allow_nan=False, allow_infinity=False, width=32)
        case Real(low, high):
            return st.floats(low, high, allow_nan=False, allow_infinity=False)
        case Bool():
            return st.booleans()
        case Text(most):
            return texts(most)
        case Name(text, known):
            return values(text) | st.sampled_from(known)
        case Bytes(least, most, blank):
            some = st.binary(min_size=least, max_size=min(most, 300))
            return some | st.just(b"") if blank else some
        case Choice(kind):
            return st.sampled_from(kind)
        case SettingValue():
            return (
                st.booleans()
                | st.integers(-(2**53), 2**53)
                | st.floats(allow_nan=False, allow_infinity=False)
                | texts(200)
            )
        case Table(key, value, most):
            return st.dictionaries(values(key), values(value), max_size=min(most, FEW))
        case Row(value, least, most):
            return st.lists(values(value), min_size=least, max_size=min(most, least + FEW)).map(tuple)
        case Struct(make, fields):
            made = st.builds(make, **{name: values(kind) for name, kind in fields})
            return made.map(REPAIRS.get(make, _as_it_is))
    raise NotImplementedError(field)


def messages(number: int) -> st.SearchStrategy[Message]:
    """Return messages of the type with this number."""
    return values(MESSAGES[number])


def _as_it_is(message: object) -> object:
    return message


def _task(task: Task) -> Task:
    return replace(task, oldest=min(task.oldest, task.round))


def _manifest(manifest: Manifest) -> Manifest:
    version, behind = manifest.version, tuple(size % 1000 for size in manifest.behind)
    deltas = manifest.deltas[: version - 1]
    key = version - manifest.key % (len(deltas) + 1)
    return replace(manifest, key=key, deltas=deltas, behind=behind)


def _chunk(chunk: Chunk) -> Chunk:
    count = max(chunk.count, chunk.index + 1)
    return replace(chunk, count=count, total=max(chunk.total, count - 1 + len(chunk.data)))


def _receipt(receipt: Receipt) -> Receipt:
    missing = tuple(number % 1000 for number in receipt.missing)
    return replace(receipt, missing=missing[: len(missing) // 2 * 2])


REPAIRS: dict[type, Callable[[Any], Any]] = {
    Task: _task,
    Manifest: _manifest,
    Chunk: _chunk,
    Receipt: _receipt,
}
"""What makes fields agree that were drawn one by one."""
