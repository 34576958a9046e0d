"""Parts of rules for a person at a terminal: all of them in a list, or one in full; and as plain data for programs."""

from __future__ import annotations

import re
import textwrap
from typing import TYPE_CHECKING, Any, Final

from fedmq.inspection.parts import SLOTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from fedmq.inspection.docs import Doc
    from fedmq.inspection.parts import Part, Slot

    Style = Callable[[str, str], str]

WIDEST: Final = 110
"""Columns beyond which lines get hard to read."""
HEADINGS: Final = {"Use it": "When to use it"}
"""How a section's name reads as a heading, where that differs."""
_INDENT: Final = "  "


def plainly(text: str, _: str) -> str:
    """Return the text without colours: the style of pipes, files and tests."""
    return text


def overview(parts: Sequence[Part], width: int, style: Style = plainly) -> Iterator[str]:
    """Yield the lines of the list: a heading for each slot, then a line for each part with what it is for.

    `style` is given a text and its role (``heading``, ``name``, ``quiet``).
    """
    width = min(width, WIDEST)
    column = max(len(part.kind) for part in parts) + len(_INDENT) + 2
    for slot in SLOTS:
        rows = [part for part in parts if part.slot.name == slot.name]
        if rows:
            yield from _heading(slot, style)
            for part in rows:
                yield from _row(part, column, width, style)
            yield ""
    yield style("fedmq rules NAME tells all about one of them.", "quiet")


def _heading(slot: Slot, style: Style) -> Iterator[str]:
    yield f"{style(slot.name.capitalize(), 'heading')} {style(slot.purpose, 'quiet')}"


def _row(part: Part, column: int, width: int, style: Style) -> Iterator[str]:
    lines = textwrap.wrap(_bare(part.summary), max(24, width - column)) or [""]
    yield f"{_INDENT}{style(part.kind.ljust(column - len(_INDENT)), 'name')}{lines[0]}"
    yield from (f"{' ' * column}{line}" for line in lines[1:])


def in_full(part: Part, width: int, style: Style = plainly) -> Iterator[str]:
    """Yield the lines that tell all about one part."""
    width = min(width, WIDEST)
    yield f"{style(part.kind, 'heading')} {style(f'({part.slot.singular})', 'quiet')}"
    yield from _prose(part.summary, width, "")
    yield from _prose(part.doc.lead, width, "")
    for name, text in part.doc.sections.items():
        if name not in {"Configuration", "Example"}:
            yield from ("", style(HEADINGS.get(name, name), "heading"))
            yield from _prose(text, width, _INDENT)
    yield from _configuration(part, width, style)
    yield from _example(part.doc, style)


def _configuration(part: Part, width: int, style: Style) -> Iterator[str]:
    yield from ("", style("Configuration", "heading"))
    if part.toml:
        yield from (f"{_INDENT}{line}" for line in part.toml.splitlines())
        yield ""
    yield from _prose(part.doc.sections.get("Configuration", ""), width, _INDENT)


def _example(doc: Doc, style: Style) -> Iterator[str]:
    example = doc.sections.get("Example", "")
    if example:
        yield from ("", style("Example", "heading"))
        yield from (f"{_INDENT}{line}".rstrip() for line in example.splitlines())


def _prose(text: str, width: int, indent: str) -> Iterator[str]:
    """Wrap Markdown's paragraphs; lists and blocks of code keep their lines."""
    for index, paragraph in enumerate(filter(None, text.split("\n\n"))):
        yield from [""] * (index > 0)
        if paragraph.startswith("```"):
            lines = [line for line in paragraph.splitlines() if not line.startswith("```")]
            yield from (f"{indent}{line}" for line in lines)
        elif "\n" in paragraph:
            yield from (f"{indent}{line}" for line in paragraph.splitlines())
        else:
            yield from textwrap.wrap(_bare(paragraph), width, initial_indent=indent, subsequent_indent=indent)


def _bare(text: str) -> str:
    """Return Markdown without its marks for code, which a terminal does not need."""
    return re.sub(r"`+([^`]+)`+", r"\1", text)


def as_data(part: Part) -> dict[str, Any]:
    """Return the part as plain data, for ``--json``."""
    sections = {name.lower().replace(" ", "_"): text for name, text in part.doc.sections.items()}
    return {
        "slot": part.slot.name,
        "kind": part.kind,
        "summary": part.summary,
        **({"more": part.doc.lead} if part.doc.lead else {}),
        **sections,
        "settings": [
            {"name": setting.name, "type": setting.type, "default": setting.default}
            for setting in part.settings
        ],
        "toml": part.toml,
        "python": part.python,
    }
