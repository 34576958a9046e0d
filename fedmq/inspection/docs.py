"""What a part of a rule says of itself: its docstring, taken apart into the sections that every part has.

A section is a paragraph that begins with its name and a colon (``Formula:``, ``Source:``, ``Cost:``,
``Breakdown point:``, ``Configuration:``, ``Example:``), or with ``Use it``. What follows belongs to it up to the next
one. The terminal, the site and the tests all read parts through here, so the docstring is the only copy of the text.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

REQUIRED: Final[tuple[str, ...]] = ("Formula", "Source", "Cost", "Use it", "Configuration", "Example")
"""Sections that every part has; those that stand against bad devices have ``Breakdown point`` as well."""

SECTIONS: Final[tuple[str, ...]] = (
    "Formula",
    "Source",
    "Cost",
    "Breakdown point",
    "Use it",
    "Configuration",
    "Example",
)
"""All sections, in the order in which they are shown."""

_NAMED: Final = re.compile(rf"({'|'.join(name for name in SECTIONS if name != 'Use it')})s?:\s*")
_USE: Final = "Use it"


@dataclass(frozen=True, slots=True)
class Doc:
    """One docstring. `summary` is its first paragraph on one line, `lead` what stands before the first section.

    `sections` holds Markdown by name; an example keeps its lines as they are, prose keeps its paragraphs.
    """

    summary: str
    lead: str
    sections: Mapping[str, str]

    @property
    def missing(self) -> tuple[str, ...]:
        """The required sections that it does not have."""
        return tuple(name for name in REQUIRED if not self.sections.get(name))


def read_doc(thing: object) -> Doc:
    """Take apart the docstring of a class or function; an empty `Doc` where it has none."""
    first, *rest = _paragraphs(inspect.cleandoc(getattr(thing, "__doc__", None) or "")) or [""]
    lead: list[str] = []
    sections: dict[str, list[str]] = {}
    into = lead
    for paragraph in rest:
        name, text = _opening(paragraph)
        if name:
            into = sections.setdefault(name, [])
        into.append(text)
    found = {name: _text(name, sections[name]) for name in SECTIONS if name in sections}
    return Doc(_joined(first), _prose(lead), MappingProxyType(found))


def _paragraphs(text: str) -> list[str]:
    return [part for part in re.split(r"\n\s*\n", text) if part.strip()]


def _opening(paragraph: str) -> tuple[str, str]:
    """Return the section that the paragraph opens, empty where it goes on with the last one, and its text."""
    if paragraph.startswith(_USE):
        return _USE, paragraph
    if paragraph.startswith(">>> "):
        return "Example", paragraph
    named = _NAMED.match(paragraph)
    return (named[1], paragraph[named.end() :]) if named else ("", paragraph)


def _text(name: str, paragraphs: list[str]) -> str:
    return _code(paragraphs) if name == "Example" else _prose(paragraphs)


def _code(paragraphs: list[str]) -> str:
    """Return an example's lines, dedented. `_NAMED` has eaten the first one's indentation together with the colon."""
    first, *rest = "\n\n".join(paragraphs).splitlines() or [""]
    return "\n".join([first, *(line.removeprefix("    ") for line in rest)])


def _prose(paragraphs: list[str]) -> str:
    return "\n\n".join(_blocks(paragraphs))


def _blocks(paragraphs: list[str]) -> Iterator[str]:
    for paragraph in paragraphs:
        listed = any(
            line.lstrip().startswith(("- ", "* ", ">>> ", "| ", "```")) for line in paragraph.splitlines()
        )
        yield inspect.cleandoc(paragraph) if listed else _joined(paragraph)


def _joined(paragraph: str) -> str:
    return " ".join(paragraph.split())
