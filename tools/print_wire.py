"""Prints the wire's tables into the specification, and its test vectors into tests/vectors.

::

    python -m tools.print_wire             # the tables and the worked example of docs/explanation/protocol.md
    python -m tools.print_wire --asyncapi  # docs/reference/asyncapi.yaml
    python -m tools.print_wire --vectors   # tests/vectors; a change there is a new version of the protocol

What is printed between the markers ``<!-- begin: name -->`` and ``<!-- end: name -->`` comes from the code; a test
fails when it is out of date. The text around them is written by hand.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
from enum import IntEnum
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fedmq.wire import limits, tokens
from fedmq.wire.containers import Row, Struct, Table
from fedmq.wire.envelope import encode, head, longest
from fedmq.wire.fields import Field, figure
from fedmq.wire.table import MESSAGES
from tools.print_asyncapi import asyncapi
from tools.wire_meanings import ABOUT, FIELDS
from tools.wire_samples import ROUND, Sample
from tools.wire_vectors import FILES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = ROOT / "docs/explanation/protocol.md"
ASYNCAPI: Final = ROOT / "docs/reference/asyncapi.yaml"
VECTORS: Final = ROOT / "tests/vectors"
NUMBERS: Final = {struct.make: number for number, struct in MESSAGES.items()}

# --- tables -----------------------------------------------------------------------------------------------------------


def heads() -> str:
    """Return the table of message types with their first bytes."""
    rows = [
        f"| {number} | `{struct.make.__name__}` | `{head(number).hex(' ')}` | {figure(longest(number))} |"
        for number, struct in MESSAGES.items()
    ]
    return "\n".join(["| type | message | head | most bytes |", "|---|---|---|---|", *rows])


def messages() -> str:
    """Return one section per message, with the structures inside it after it."""
    sections = []
    for number, struct in MESSAGES.items():
        sections.append(f"### {struct.make.__name__} ({number})\n\n{_fields(struct)}")
        sections += [f"#### {inner.make.__name__}\n\n{_fields(inner)}" for inner in _inner(struct)]
    return "\n\n".join(sections)


def _inner(struct: Struct) -> list[Struct]:
    parts = [field.value if isinstance(field, Row) else field for _, field in struct.fields]
    return [part for part in parts if isinstance(part, Struct)]


def _fields(struct: Struct) -> str:
    name = struct.make.__name__
    rows = [
        f"| {place} | `{field}` | {_words(kind)} | {FIELDS[f'{name}.{field}']} |"
        for place, (field, kind) in enumerate(struct.fields, start=1)
    ]
    return "\n".join(
        [ABOUT[name], "", "| place | field | type and limits | meaning |", "|---|---|---|---|", *rows]
    )


def _words(field: Field) -> str:
    match field:
        case Struct():
            return f"array of {len(field.fields)}: `{field.make.__name__}`"
        case Row(Struct(make), least, most):
            return f"array of {least} to {most}: `{make.__name__}`"
        case _:
            return field.wanted


def limit_table() -> str:
    """Return every limit with its reason, from the source of `fedmq.wire.limits`."""
    rows = [f"| `{name}` | {figure(getattr(limits, name))} | {reason} |" for name, reason in _reasons()]
    return "\n".join(["| name | limit | what it limits, and why there |", "|---|---|---|", *rows])


def _reasons() -> Iterator[tuple[str, str]]:
    """Yield each constant with the text that stands below it."""
    body = ast.parse(Path(limits.__file__).read_text(encoding="utf-8")).body
    for constant, text in pairwise(body):
        if isinstance(constant, ast.AnnAssign) and isinstance(constant.target, ast.Name):
            match text:
                case ast.Expr(ast.Constant(str() as reason)):
                    yield constant.target.id, " ".join(reason.split()).removesuffix(".")


# --- the worked example -----------------------------------------------------------------------------------------------


def example() -> str:
    """Return every message of the worked example, its bytes beside what they say."""
    return "\n\n".join(_spelled(sample) for sample in ROUND)


def _spelled(sample: Sample) -> str:
    data, number = encode(sample.message), NUMBERS[type(sample.message)]
    struct, first = MESSAGES[number], head(number)
    lines = [
        (
            first.hex(" "),
            f"{struct.make.__name__}: {len(struct.fields) + 2} entries, version 1, type {number}",
        )
    ]
    lines += _struct_lines(struct, data, len(first))
    body = "\n".join(f"{raw:<50}  {words}".rstrip() for raw, words in lines)
    retained = ", retained" if sample.retained else ""
    title = f"**{sample.name.capitalize()}**: `{sample.topic}`{retained}, {len(data)} bytes"
    return f"{title}\n\n```text\n{body}\n```"


def _struct_lines(struct: Struct, data: bytes, at: int) -> list[tuple[str, str]]:
    lines = []
    for name, field in struct.fields:
        end = field.read(data, at)[1]
        lines += _value_lines(name, field, data, at, end)
        at = end
    return lines


def _value_lines(name: str, field: Field, data: bytes, at: int, end: int) -> list[tuple[str, str]]:
    match field:
        case Struct():
            start = tokens.array_count(data, at)[1]
            return [
                (data[at:start].hex(" "), f"{name}: {field.make.__name__}"),
                *_struct_lines(field, data, start),
            ]
        case Row():
            count, start = tokens.array_count(data, at)
            return [
                (data[at:start].hex(" "), f"{name}: {count}"),
                *_entries(count, [(name, field.value)], data, start),
            ]
        case Table():
            count, start = tokens.map_count(data, at)
            return [
                (data[at:start].hex(" "), f"{name}: {count}"),
                *_entries(count, [("name", field.key), ("value", field.value)], data, start),
            ]
        case _:
            return _wrapped(data[at:end], f"{name} = {_plain(field.read(data, at)[0])}")


def _entries(count: int, parts: list[tuple[str, Field]], data: bytes, at: int) -> list[tuple[str, str]]:
    lines = []
    for _ in range(count):
        for name, field in parts:
            end = field.read(data, at)[1]
            lines += _value_lines(name, field, data, at, end)
            at = end
    return lines


def _wrapped(data: bytes, words: str) -> list[tuple[str, str]]:
    rows = [data[at : at + 16].hex(" ") for at in range(0, len(data), 16)]
    return [(rows[0], words), *[(row, "") for row in rows[1:]]]


def _plain(value: object) -> str:
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if isinstance(value, IntEnum):
        return f"{value.value} ({value.name.lower()})"
    return f'"{value}"' if isinstance(value, str) else repr(value)


# --- writing ----------------------------------------------------------------------------------------------------------

PRINTED: Final[dict[str, Callable[[], str]]] = {
    "heads": heads,
    "messages": messages,
    "limits": limit_table,
    "example": example,
}


def printed(page: str) -> str:
    """Return the page with everything between its markers printed anew."""
    for name, make in PRINTED.items():
        begin, end = f"<!-- begin: {name} -->\n", f"\n<!-- end: {name} -->"
        parts = re.split(f"({begin})(.*?)({end})", page, flags=re.DOTALL)
        if len(parts) != 5:
            raise SystemExit(f"{PAGE.name} has {len(parts) // 4} places for {name}; there must be one")
        page = f"{parts[0]}{begin}\n{make()}\n{end}{parts[4]}"
    return page


def vectors() -> dict[str, str]:
    """Return the content of each file of vectors, one entry to a line."""
    return {name: _json(make()) for name, make in FILES.items()}


def _json(content: Any) -> str:  # noqa: ANN401 - plain data
    if isinstance(content, dict):
        parts = [f"{json.dumps(name)}: {_json(rows).rstrip()}" for name, rows in content.items()]
        return "{\n" + ",\n".join(parts) + "\n}\n"
    return "[\n" + ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in content) + "\n]\n"


def main() -> None:
    """Write what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vectors", action="store_true", help="write tests/vectors (a new protocol version)")
    parser.add_argument("--asyncapi", action="store_true", help="write docs/reference/asyncapi.yaml")
    wanted = parser.parse_args()
    if wanted.vectors:
        for name, content in vectors().items():
            (VECTORS / name).write_text(content, encoding="utf-8")
    elif wanted.asyncapi:
        ASYNCAPI.write_text(asyncapi(), encoding="utf-8")
    else:
        PAGE.write_text(printed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
