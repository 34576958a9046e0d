"""Codecs for a person at a terminal: encodings and codecs by name, and the stages that lines are made of."""

from __future__ import annotations

import inspect
import textwrap
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from fedmq.aggregator.encodings import DEFAULT, ENCODING_PURPOSES, ENCODINGS
from fedmq.codecs import FAMILIES, PRESETS
from fedmq.codecs.rate import rate_of
from fedmq.inspection.telling import WIDEST, plainly

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fedmq.inspection.telling import Style

PURPOSES: Final = {
    "feedback": "what the device does about what is lost",
    "transform": "vector to vector, before anything is rounded",
    "quantiser": "numbers to symbols, with some loss",
    "layout": "in which order the symbols stand",
    "entropy coder": "bytes to fewer bytes, without loss",
}
"""What each family of stages is for."""


class Entry(NamedTuple):
    """One row of the list: the `group` that it stands in, its `name`, what it is, and what that spells in full."""

    group: str
    name: str
    summary: str
    line: str = ""


def entries() -> list[Entry]:
    """Return everything that there is, read from the tables that configuration reads it from."""
    found = [
        Entry(
            "encodings",
            name,
            ENCODING_PURPOSES[name] + (" The default." if name == DEFAULT else ""),
            _full(name),
        )
        for name in ENCODINGS
    ]
    found += [Entry("codecs", name, "", line) for name, line in PRESETS.items()]
    for family, stages in FAMILIES.items():
        found += [Entry(family, name, _summary(stage)) for name, stage in stages.items()]
    return found


def _full(name: str) -> str:
    encoding = ENCODINGS[name]
    return f"up {encoding.up}; down {encoding.models}"


def _summary(stage: Any) -> str:  # noqa: ANN401 - any stage's class
    """Return the first sentence of a stage's text, and what a budget turns in it."""
    text = " ".join((inspect.getdoc(stage) or "").partition("\n\n")[0].split())
    rate = rate_of(stage)
    return text if rate is None else f"{text} A budget turns its {rate.parameter}."


def overview(width: int, style: Style = plainly) -> Iterator[str]:
    """Yield the lines of the list; for `style` see `fedmq.inspection.telling.overview`."""
    rows, width = entries(), min(width, WIDEST)
    column = max(len(row.name) for row in rows) + 4
    for group in dict.fromkeys(row.group for row in rows):
        yield f"{style(_title(group), 'heading')} {style(_purpose(group), 'quiet')}"
        for row in rows:
            if row.group == group:
                yield from _row(row, column, width, style)
        yield ""
    yield style("A codec is stages joined by |, in this order, such as `int8 | lzma`.", "quiet")
    yield style("fedmq codecs UPDATE compares them on an update of your own.", "quiet")


def _title(group: str) -> str:
    return group.capitalize() if group in {"encodings", "codecs", "feedback"} else f"{group.capitalize()}s"


def _purpose(group: str) -> str:
    whole = {"encodings": "are whole [encoding] tables by name", "codecs": "are lines by name"}
    return whole.get(group) or PURPOSES[group]


def _row(row: Entry, column: int, width: int, style: Style) -> Iterator[str]:
    text = f"{row.summary} {f'({row.line})' if row.summary and row.line else row.line}".strip()
    lines = textwrap.wrap(text.replace("`", ""), max(24, width - column))
    yield f"  {style(row.name.ljust(column - 2), 'name')}{lines[0]}"
    yield from (f"{' ' * column}{line}" for line in lines[1:])


def as_data() -> list[dict[str, str]]:
    """Return the list as plain data, for ``--json``."""
    return [row._asdict() for row in entries()]
