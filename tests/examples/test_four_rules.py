from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from examples.four_rules import METHODS, POOLED, WRONG, main, not_a_mean

if TYPE_CHECKING:
    from pathlib import Path

NAMES = {POOLED, WRONG, *(method.name for method in METHODS)}


def test_what_tutorials_call_an_average_is_none() -> None:
    ones = np.ones(3, np.float32)
    np.testing.assert_allclose(not_a_mean(ones, [ones] * 10), 0.1111, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("data", ["mnist", pytest.param("smartwatch", marks=pytest.mark.keras)])
@pytest.mark.timeout(300)
def test_every_rule_learns(data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--data", data, "--quick", "--out", str(tmp_path)])
    told = capsys.readouterr().out
    assert all(name in told for name in NAMES)
    assert (tmp_path / "four-rules.png").stat().st_size > 10_000
    figures = json.loads((tmp_path / "four-rules.json").read_text())[data]
    assert figures.keys() == NAMES
    assert all(len(course["accuracies"][0]) == 2 for course in figures.values())
    last = {name: course["accuracies"][0][-1] for name, course in figures.items()}
    # After so few rounds, five local epochs may be ahead of one epoch on all data: only the wrong average must lose.
    assert all(last[WRONG] < last[name] for name in (POOLED, *(method.name for method in METHODS)))
