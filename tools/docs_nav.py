"""A MkDocs hook: the sections of docs/ in reading order, whatever pages they hold.

`mkdocs.yml` lists no pages, so that a new page is one new file. MkDocs then sorts folders by name; this puts them
where a reader looks for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mkdocs.structure.nav import Navigation, Section

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure import StructureItem
    from mkdocs.structure.files import Files

# As MkDocs spells each folder's name -> as it should read
SECTIONS = {
    "Tutorial": "Tutorial",
    "How to": "How-to guides",
    "Reference": "Reference",
    "Explanation": "Explanation",
    "Adr": "Decisions",
}


def on_nav(nav: Navigation, *, config: MkDocsConfig, files: Files) -> Navigation:  # noqa: ARG001 # MkDocs names them
    """Sort the top level: single pages, then known sections in the order above, then any others."""
    order = list(SECTIONS)

    def place(item: StructureItem) -> int:
        if not isinstance(item, Section):
            return -1
        return order.index(item.title) if item.title in order else len(order)

    nav.items.sort(key=place)
    for item in nav.items:
        if isinstance(item, Section):
            item.title = SECTIONS.get(item.title, item.title)
    return nav
