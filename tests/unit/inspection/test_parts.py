"""Everything that rules are made of: each part says all that a reader needs, and what it says is true."""

from __future__ import annotations

import doctest
import tomllib
from typing import Any

import pytest

from fedmq.config import structure
from fedmq.config.kept import KeptSettings
from fedmq.config.rules import CHOICES
from fedmq.errors import ConfigError
from fedmq.inspection import read_doc
from fedmq.inspection.examples import imports, runnable
from fedmq.inspection.parts import SLOTS, Part, find, parts
from fedmq.inspection.telling import as_data, in_full, overview
from fedmq.rules import PRESETS
from fedmq.rules.presets import PURPOSES
from fedmq.worlds import Attack

PARTS = list(parts())
ROWS = [part for part in PARTS if part.slot.name != "presets"]


def name(part: Part) -> str:
    return f"{part.slot.name}/{part.kind}"


def test_every_table_of_the_configuration_is_listed() -> None:
    listed = [slot.rows for slot in SLOTS]
    tables = [
        table for kind, table in CHOICES.items() if kind is not Attack
    ]  # of simulated worlds, not of rules
    assert all(any(table is rows for rows in listed) for table in tables)
    assert len(PARTS) == sum(map(len, listed))


@pytest.mark.parametrize("part", ROWS, ids=name)
def test_a_row_says_all_that_a_reader_needs(part: Part) -> None:
    assert part.summary.endswith(".")
    assert part.doc.missing == ()


@pytest.mark.parametrize("part", [part for part in ROWS if part.slot.name == "reducers"], ids=name)
def test_a_reducer_says_how_many_bad_devices_it_stands(part: Part) -> None:
    assert part.doc.sections.get("Breakdown point")


@pytest.mark.parametrize("part", ROWS, ids=name)
def test_an_example_runs_by_itself(part: Part) -> None:
    """As someone would who copied it from the page: with the imports that are shown, and no others."""
    test = doctest.DocTestParser().get_doctest(part.doc.sections["Example"], {}, part.kind, None, None)
    assert test.examples
    told: list[str] = []
    result = doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS).run(test, out=told.append)
    assert result.failed == 0, "".join(told)


def toml(part: Part) -> str:
    """The part's TOML: made from its defaults, or where it has none, what its docstring shows."""
    shown = part.doc.sections["Configuration"].partition("```toml\n")[2].partition("```")[0]
    return part.toml or shown


@pytest.mark.parametrize("part", PARTS, ids=name)
def test_its_toml_makes_the_part_with_its_defaults(part: Part) -> None:
    tree: dict[str, Any] = {"name": "f", "encoding": {}, "rule": {}, **tomllib.loads(toml(part))}
    made = structure(tree, KeptSettings)
    row = part.slot.rows[part.kind]
    if part.slot.name == "presets":
        assert made.rule == row
    elif part.slot.name == "algorithms":
        assert made.algorithm == row()
    elif part.slot.name == "hybrids":
        assert type(made.rule) is row
    else:
        found = getattr(made.rule, part.slot.key)
        assert row() in (found if isinstance(found, tuple) else (found,))


def test_every_preset_says_what_it_is_for() -> None:
    assert set(PURPOSES) == set(PRESETS)


def test_a_docstring_is_taken_apart() -> None:
    class Thing:
        """Say what it is,
        on one line.

        More of it.

        Formula: `x`,
        and so on.

        Still the formula.

        Use it when the sun shines.

        Example:
            >>> for x in [1]:
            ...     print(x)
            1

            >>> 2
            2
        """

    doc = read_doc(Thing)
    assert doc.summary == "Say what it is, on one line."
    assert doc.lead == "More of it."
    assert doc.sections["Formula"] == "`x`, and so on.\n\nStill the formula."
    assert doc.sections["Use it"] == "Use it when the sun shines."
    assert doc.sections["Example"] == ">>> for x in [1]:\n...     print(x)\n1\n\n>>> 2\n2"
    assert doc.missing == ("Source", "Cost", "Configuration")


def test_nothing_said_is_everything_missing() -> None:
    class Silent:
        pass

    assert len(read_doc(Silent).missing) == 6


def test_an_example_gets_the_imports_that_it_takes() -> None:
    made = "size = 3\nprint([n for n in range(size)])"
    assert imports(made, "fedmq.rules.reduce") == []
    found = ["from fedmq.rules import Mean", "import numpy as np"]
    assert imports("Mean(); np.ones(3)", "fedmq.rules.reduce") == found
    shown = runnable(">>> from fedmq.rules import Claim\n>>> Mean()\nMean()", "fedmq.rules.reduce")
    assert shown == ">>> from fedmq.rules import Claim, Mean\n>>> Mean()\nMean()"


def test_a_part_is_found_by_its_kind_and_slot() -> None:
    assert [part.kind for part in find("Norm-Clip")] == ["norm_clip"]
    assert [part.slot.name for part in find("reduce.mean")] == ["reducers"]
    with pytest.raises(ConfigError, match="did you mean 'norm_clip'"):
        find("normclip")
    with pytest.raises(ConfigError, match="`fedmq rules` lists"):
        find("xyzzy")


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_overview_keeps_to_the_width_and_leaves_nothing_out(width: int) -> None:
    lines = list(overview(PARTS, width))
    assert max(map(len, lines)) <= max(width, 72)
    assert all(any(line.startswith(f"  {part.kind} ") for line in lines) for part in PARTS)
    assert all(any(line.startswith(slot.name.capitalize()) for line in lines) for slot in SLOTS)


@pytest.mark.parametrize("part", PARTS, ids=name)
def test_a_part_in_full_has_every_section_and_no_marks_of_markdown(part: Part) -> None:
    told = "\n".join(in_full(part, 80))
    headings = {"Use it": "When to use it"}
    assert all(f"\n{headings.get(section, section)}\n" in told for section in part.doc.sections)
    assert "```" not in told
    data = as_data(part)
    assert data["kind"] == part.kind
    assert data["summary"] == part.summary


def test_algorithms_have_their_own_table() -> None:
    (part,) = find("scaffold")
    assert part.toml.startswith("[algorithm]\n")
    assert part.python == "fedmq.algorithms.Scaffold"
