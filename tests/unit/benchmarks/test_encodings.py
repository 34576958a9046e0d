"""What `benchmarks.encodings` makes of its courses, and that the tables in the docs are what fedmq says of itself."""

import json
import re
from dataclasses import astuple
from pathlib import Path

import pytest

from benchmarks.encodings import EXACT, NAMES, Found, Trial, cells, fewest, run, show
from fedmq.aggregator.encodings import THRIFTIEST

ENDS = {
    EXACT: (0.9, 4000.0),
    "safe": (0.9, 500.0),
    "stateless": (0.85, 7.0),
    "lean": (0.896, 30.0),
    "extreme": (0.5, 3.0),
}


def trials(rule: str, seeds: int = 2) -> list[Trial]:
    return [Trial(rule, name, 0, 20, seed, 30) for seed in range(seeds) for name in NAMES]


def found(rule: str, **better: float) -> Found:
    ends = {name: (accuracy + better.get(name, 0), nbytes) for name, (accuracy, nbytes) in ENDS.items()}
    return cells((trial, ends[trial.encoding]) for trial in trials(rule))


def test_a_cell_is_compared_seed_by_seed() -> None:
    ends = [
        (trial, (0.8 + 0.05 * trial.seed + (0.01 if trial.encoding == "lean" else 0), 1.0))
        for trial in trials("fedavg")
    ]
    cell = cells(ends)["fedavg", "lean"]
    assert cell.points == pytest.approx(1)
    assert cell.spread == pytest.approx(0)
    assert str(cell) == "+1.0 ± 0.0"


def test_one_seed_has_no_spread() -> None:
    ends = ((trial, ENDS[trial.encoding]) for trial in trials("fedavg", seeds=1))
    assert str(cells(ends)["fedavg", "stateless"]) == "-5.0"


def test_the_fewest_bytes_are_those_that_cost_little_and_are_allowed() -> None:
    assert fewest(found("fedavg"), "fedavg") == "lean"
    assert fewest(found("fedavg", extreme=0.4), "fedavg") == "extreme"
    assert fewest(found("median", extreme=0.4), "median") == "lean"
    assert fewest(found("krum", extreme=0.4), "krum") == "safe"
    assert fewest(found("krum", safe=-0.1), "krum") == "exact"


def test_pairs_that_fedmq_refuses_have_a_star(capsys: pytest.CaptureFixture[str]) -> None:
    show(found("median"), ["median"])
    (row,) = (line for line in capsys.readouterr().out.splitlines() if "median" in line)
    assert row == "| `median` | 90.0 | +0.0 ± 0.0 | -5.0 ± 0.0 * | -0.4 ± 0.0 | -40.0 ± 0.0 * | `lean` |"


def test_what_is_kept_is_not_run_again(tmp_path: Path) -> None:
    kept, wanted = tmp_path / "rows", trials("fedavg")
    kept.write_text("".join(f"{json.dumps([astuple(trial), *ENDS[trial.encoding]])}\n" for trial in wanted))
    assert list(run(wanted, kept, 1)) == [(trial, ENDS[trial.encoding]) for trial in wanted]


HOW_TO = Path(__file__).parents[3] / "docs" / "how-to" / "save-bytes.md"
LIKE = {"weighted": "fedavg", "fedbuff": "average"}
"""Rules that do the same as another where all devices answer in time, and the one that stands for both."""


def in_tables() -> list[dict[str, str]]:
    """Return what the page's tables of rules name as the encoding of the fewest bytes, by rule."""
    tables = re.findall(r"^\| rule .*\n(?:\|.*\n)+", HOW_TO.read_text(), re.MULTILINE)
    rows = [re.findall(r"^\| `(\w+)` .*\| `(\w+)` \|$", table, re.MULTILINE) for table in tables]
    return [dict(table) for table in rows]


@pytest.mark.parametrize("rule", THRIFTIEST)
def test_what_fedmq_calls_thriftiest_is_what_the_page_has_measured(rule: str) -> None:
    many, few, uneven, *_ = in_tables()
    found = {few[rule], uneven.get(LIKE.get(rule, rule), few[rule])}
    heaviest = min(found, key=["exact", "safe", "lean", "stateless", "extreme"].index)
    assert THRIFTIEST[rule] == (many[rule], heaviest)
