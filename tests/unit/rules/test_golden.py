"""Rules against Flower's own arithmetic on a thousand federations, as tests/golden/make_rules.py recorded it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from fedmq.rules import Adagrad, Adam, ByExamples, Claim, Momentum, QFair, Rule, Uniform, Yogi
from fedmq.rules.memory import EMPTY
from fedmq.vectors import Layout, Variable, Vector
from tests.golden.rule_cases import CASES, SIZE, Case, cases

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "rules.npz", allow_pickle=False)
LAYOUT = Layout((Variable("w", (SIZE,)),))


def adam(s: dict[str, float]) -> Rule:
    return Rule(weigh=ByExamples(), step=Adam(s["rate"], s["beta"], s["beta2"], s["tau"]))


def yogi(s: dict[str, float]) -> Rule:
    return Rule(weigh=ByExamples(), step=Yogi(s["rate"], s["beta"], s["beta2"], s["tau"]))


RULES: dict[str, Callable[[dict[str, float]], Rule]] = {
    "average": lambda _: Rule(weigh=Uniform()),
    "fedavg": lambda _: Rule(weigh=ByExamples()),
    "fedavgm": lambda s: Rule(weigh=ByExamples(), step=Momentum(s["rate"], s["beta"])),
    "fedadam": adam,
    "fedyogi": yogi,
    "fedadagrad": lambda s: Rule(weigh=ByExamples(), step=Adagrad(s["rate"], tau=s["tau"])),
    "qfedavg": lambda s: Rule(weigh=QFair(s["q"], s["learning_rate"])),
}
drawn = cache(cases)


def last_model(rule: Rule, case: Case) -> Vector:
    model, memory = case.start.astype(np.float32), EMPTY
    for deltas in case.deltas:
        fold = rule.zero(LAYOUT, memory)
        for delta, examples, loss in zip(deltas, case.examples, case.losses, strict=True):
            rule.absorb(fold, delta.astype(np.float32), Claim(examples, metrics={"loss": loss}))
        outcome = rule.finish(fold, model)
        model, memory = outcome.model, outcome.memory
    return model


@pytest.mark.parametrize("count", [100, pytest.param(CASES, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", RULES)
def test_every_federation_ends_where_flowers_does(name: str, count: int) -> None:
    """Within a few roundings to float32, in which our models are between rounds and Flower's were not."""
    ours = np.array([last_model(RULES[name](case.settings), case) for case in drawn()[:count]])
    assert len(ours) == count
    np.testing.assert_allclose(ours, GOLDEN[name][:count], rtol=1e-6, atol=1e-6)


def test_the_golden_file_says_what_made_it() -> None:
    assert "flwr 1.42.0" in str(GOLDEN["made_with"])
    assert set(GOLDEN.files) == {"made_with", *RULES}
