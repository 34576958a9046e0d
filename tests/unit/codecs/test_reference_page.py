"""The reference page names every stage, every preset and the limits that the code has."""

from pathlib import Path

import pytest

from fedmq.codecs import FAMILIES, PRESETS, STAGES, parse
from fedmq.codecs.entropy import DICTIONARY
from fedmq.codecs.parse import LONGEST_LINE

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "codecs.md").read_text()


@pytest.mark.parametrize("spelling", sorted({line for stage in STAGES.values() for line in stage.examples}))
def test_every_spelling_is_in_the_table(spelling: str) -> None:
    assert f"| `{spelling}` |" in PAGE


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_in_the_table_with_its_facts(preset: str) -> None:
    codec = parse(preset)
    row = f"| `{preset}` | `{str(codec).replace('|', chr(92) + '|')}` |"
    assert row in PAGE


def test_limits_are_those_of_the_code() -> None:
    assert f"{DICTIONARY:,}" in PAGE
    assert f"{LONGEST_LINE} characters" in PAGE
    assert f"n + ⌊n / 8⌋ + {parse('int8 | lzma').most_bytes(()):d}" in PAGE


def test_families_stand_in_their_order() -> None:
    places = [PAGE.index(f"### {family.capitalize()}") for family in FAMILIES]
    assert places == sorted(places)
