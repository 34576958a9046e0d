from __future__ import annotations

import numpy as np
import pytest

from fedmq.errors import ConfigError, Refused
from fedmq.rules import Claim, ExamplesBound
from fedmq.vectors import Layout, Variable

LAYOUT = Layout(
    (
        Variable("kernel", (2,)),
        Variable("variance", (2,), kind="statistic"),
        Variable("mine", (9,), scope="personal"),
        Variable("bias", (1,)),
        Variable("empty", (0,)),
    )
)
CLAIM = Claim(examples=5)
LARGEST = float(np.finfo(np.float32).max)


def vector(*numbers: float) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.array(numbers, np.float32)


@pytest.mark.parametrize("examples", [1, 2, 300])
def test_examples_within_the_bounds_pass(examples: int) -> None:
    delta = vector(1, 1, 1, 1, 1)
    assert ExamplesBound(1, 300).check(delta, Claim(examples), LAYOUT) is delta


@pytest.mark.parametrize("examples", [-5, 0, 301, 10**12])
def test_examples_outside_the_bounds_are_refused(examples: int) -> None:
    with pytest.raises(Refused, match=f"claims {examples} examples, between 1 and 300"):
        ExamplesBound(1, 300).check(vector(1, 1, 1, 1, 1), Claim(examples), LAYOUT)


@pytest.mark.parametrize(("low", "high"), [(-1, 5), (6, 5)])
def test_bounds_must_be_in_order(low: int, high: int) -> None:
    with pytest.raises(ConfigError, match="0 <= low <= high"):
        ExamplesBound(low, high)


def test_the_bounds_print() -> None:
    assert str(ExamplesBound(2, 9)) == "examples(2..9)"
