from __future__ import annotations

import numpy as np
import pytest

from fedmq.errors import Refused
from fedmq.rules import Claim, Finite
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


def test_finite_counts_what_is_not() -> None:
    with pytest.raises(Refused, match=r"3 of 5 numbers that are not finite"):
        Finite().check(vector(np.nan, 1, np.inf, -np.inf, 0), CLAIM, LAYOUT)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_finite_refuses_one_bad_number_anywhere(value: float) -> None:
    for place in range(5):
        delta = vector(1, 2, 3, 4, 5)
        delta[place] = value
        with pytest.raises(Refused, match="1 of 5"):
            Finite().check(delta, CLAIM, LAYOUT)


def test_finite_passes_the_vector_itself() -> None:
    delta = vector(1, 2, 3, 4, LARGEST)
    assert Finite().check(delta, CLAIM, LAYOUT) is delta


def test_finite_passes_a_model_without_numbers() -> None:
    Finite().check(vector(), CLAIM, Layout(()))


def test_finite_prints() -> None:
    assert str(Finite()) == "finite"
