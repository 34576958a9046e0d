"""Rules against Flower's own arithmetic, as tests/golden/make_rules.py recorded it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedmq.rules import Adam, ByExamples, Claim, Memory, Momentum, Rule, Uniform
from fedmq.vectors import Layout, Variable

GOLDEN: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "golden" / "rules.json").read_text(encoding="utf-8"),
)
SETTINGS = GOLDEN["settings"]
ADAM = SETTINGS["adam"]
RULES = {
    "average": Rule(weigh=Uniform()),
    "fedavg": Rule(weigh=ByExamples()),
    "fedavgm": Rule(weigh=ByExamples(), step=Momentum(SETTINGS["rate"], SETTINGS["beta"])),
    "fedadam": Rule(weigh=ByExamples(), step=Adam(ADAM["eta"], ADAM["beta_1"], ADAM["beta_2"], ADAM["tau"])),
}


@pytest.mark.parametrize("name", RULES)
def test_every_round_is_flowers(name: str) -> None:
    rule = RULES[name]
    model = np.array(GOLDEN["start"], np.float32)
    layout = Layout((Variable("w", model.shape),))
    memory: Memory = {}
    for devices, expected in zip(GOLDEN["deltas"], GOLDEN[name], strict=True):
        fold = rule.zero(layout, memory)
        for delta, examples in zip(devices, GOLDEN["examples"], strict=True):
            rule.absorb(fold, np.array(delta, np.float32), Claim(examples))
        outcome = rule.finish(fold, model)
        model, memory = outcome.model, outcome.memory
        np.testing.assert_allclose(model, expected, rtol=3e-7, atol=3e-7)
