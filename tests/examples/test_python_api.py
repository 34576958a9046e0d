from __future__ import annotations

import re

import pytest

from examples.python_api import TRUTH, ByRoot, main
from fedmq.rules import Claim, Rule


def test_the_greenhouses_find_the_truth(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    told = capsys.readouterr().out
    assert "ended: 30 rounds are done" in told
    learned = [float(number) for number in re.findall(r"learned +(-?\d+\.\d)", told)]
    assert learned == pytest.approx(TRUTH.tolist(), abs=0.5)


def test_the_rules_own_part_weighs_by_the_root() -> None:
    assert ByRoot().weigh(Claim(400)) == (20.0,)
    assert "by root of examples" in str(Rule(weigh=ByRoot()))
