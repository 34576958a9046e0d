"""A MkDocs hook: a page for each part of a rule, made of its docstring, and lists of them for the page about rules.

Nothing of this is written into docs/, so nothing there can differ from the code: `mkdocs build` makes the pages anew
each time. In a page, ``<!-- rules: guards -->`` stands for a table of that slot,
``<!-- kinds: guards -->`` for its names on one line, and ``<!-- needs -->`` for a table of what parts ask of codecs.
"""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING, Final

from mkdocs.structure.files import File
from mkdocs.structure.nav import Navigation, Section
from mkdocs.structure.pages import Page

from fedmq.inspection.parts import ANY_CODEC, SLOTS, parts
from fedmq.inspection.telling import HEADINGS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure import StructureItem
    from mkdocs.structure.files import Files

    from fedmq.inspection.parts import Part

FOLDER: Final = "reference/rules"
MARKER: Final = re.compile(r"<!-- rules: (\w+) -->")
NEEDS: Final = "<!-- needs -->"
KINDS: Final = re.compile(r"<!-- kinds: (\w+) -->")


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the pages, as MkDocs asks."""
    for place, text in pages().items():
        files.append(File.generated(config, place, content=text))
    return files


def on_nav(nav: Navigation, *, config: MkDocsConfig, files: Files) -> Navigation:  # noqa: ARG001 # MkDocs names them
    """Put the pages into the tables' order, as MkDocs asks."""
    order = {place: number for number, place in enumerate(pages())}
    for item in nav.items:
        _sort(item, order)
    return nav


def _sort(item: StructureItem, order: Mapping[str, int]) -> int:
    """Sort what is below `item`; return the place of the first of our pages in it, -1 where it has none."""
    if isinstance(item, Page):
        return order.get(item.file.src_uri, -1)
    if not isinstance(item, Section):
        return -1
    places = {id(child): _sort(child, order) for child in item.children}
    item.children.sort(key=lambda child: places[id(child)])  # those without a place stay first, as they are
    return max(places.values(), default=-1)


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Put the lists where a page wants them, as MkDocs asks."""
    above = posixpath.dirname(page.file.src_uri)
    return expanded(markdown, posixpath.relpath(FOLDER, above or "."))


def expanded(markdown: str, folder: str) -> str:
    """Return a page with its lists; `folder` is the way from the page's own to that of the rules."""
    tables = MARKER.sub(lambda found: listing(found[1]), markdown.replace(NEEDS, needs(folder)))
    return KINDS.sub(lambda found: kinds(found[1], folder), tables)


def pages() -> dict[str, str]:
    """Return every page's Markdown by its place within docs/."""
    return {uri(part): page(part) for part in parts()}


def uri(part: Part) -> str:
    """Return where the part's page is, within docs/."""
    return f"{FOLDER}/{part.slot.name}/{part.kind}.md"


def listing(slot: str) -> str:
    """Return the list of a slot's parts as Markdown, for a page in the folder above theirs."""
    lines = (f"| [`{part.kind}`]({slot}/{part.kind}.md) | {part.summary} |" for part in _rows(slot))
    return "\n".join(["| kind | what it is for |", "|---|---|", *lines])


def kinds(slot: str, folder: str) -> str:
    """Return the names of a slot's parts as one line of Markdown, each with a link to its page."""
    return ", ".join(f"[`{part.kind}`]({folder}/{slot}/{part.kind}.md)" for part in _rows(slot))


def needs(folder: str) -> str:
    """Return the parts and presets that do not take updates in any codec, with their reasons, as a table."""
    rows = [
        f"| [`{part.kind}`]({folder}/{part.slot.name}/{part.kind}.md) | {part.slot.singular} | {told} |"
        for part in parts()
        if part.slot.name != "presets" and (told := part.doc.sections.get("Codec", ANY_CODEC)) != ANY_CODEC
    ]
    return "\n".join(["| part | a | which codec |", "|---|---|---|", *rows])


def _rows(slot: str) -> list[Part]:
    if slot not in {known.name for known in SLOTS}:
        raise ValueError(f"there is no slot {slot!r} to list: {', '.join(known.name for known in SLOTS)}")
    return [part for part in parts() if part.slot.name == slot]


def page(part: Part) -> str:
    """Return one part's page as Markdown."""
    return "\n\n".join([f"# {part.kind}", f"*{_article(part)}.* {part.summary}", *_body(part)]) + "\n"


def _article(part: Part) -> str:
    noun = part.slot.singular
    return f"{'An' if noun[0] in 'aeiou' else 'A'} {noun}"


def _body(part: Part) -> Iterator[str]:
    if part.doc.lead:
        yield part.doc.lead
    for name, text in part.doc.sections.items():
        yield f"## {HEADINGS.get(name, name)}"
        if name == "Configuration":
            yield from _configuration(part)
        elif name == "Example":
            yield f"```pycon\n{text}\n```"
        else:
            yield text[0].upper() + text[1:]
    yield f"In Python: `{part.python}`."


def _configuration(part: Part) -> Iterator[str]:
    if part.toml:
        yield f"```toml\n{part.toml}\n```"
    if part.settings:
        rows = (f"| `{row.name}` | {row.type} | {_default(row.default)} |" for row in part.settings)
        yield "\n".join(["| key | type | default |", "|---|---|---|", *rows])
    yield part.doc.sections["Configuration"]


def _default(default: str) -> str:
    return f"`{default}`" if default not in {"", "none"} else default or "required"
