"""The pages about the parts of rules: made of the docstrings, one for each row of each table."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fedmq.inspection.parts import SLOTS, Part, parts
from tools.rule_pages import MARKER, listing, page, pages, uri

INDEX = Path("docs/reference/rules/index.md").read_text(encoding="utf-8")
PARTS = list(parts())


def test_the_index_lists_every_slot_once() -> None:
    assert sorted(MARKER.findall(INDEX)) == sorted(slot.name for slot in SLOTS)


def test_every_part_has_a_page_that_the_index_links_to() -> None:
    text = MARKER.sub(lambda found: listing(found[1]), INDEX)
    linked = {f"reference/rules/{link}" for link in re.findall(r"\| \[`\w+`\]\((\w+/\w+\.md)\)", text)}
    assert set(pages()) == linked == {uri(part) for part in PARTS}


@pytest.mark.parametrize("part", PARTS, ids=uri)
def test_a_page_has_all_that_the_docstring_says(part: Part) -> None:
    text = page(part)
    assert text.startswith(f"# {part.kind}\n")
    assert part.summary in text
    for name, said in part.doc.sections.items():
        assert f"## {'When to use it' if name == 'Use it' else name}\n" in text
        assert said[1:] in text
    assert all(f"| `{setting.name}` |" in text for setting in part.settings)


def test_the_site_is_built_with_them() -> None:
    assert "  - tools/rule_pages.py\n" in Path("mkdocs.yml").read_text(encoding="utf-8")


def test_a_marker_for_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="there is no slot 'nothing'"):
        listing("nothing")
