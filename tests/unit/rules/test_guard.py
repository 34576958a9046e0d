from __future__ import annotations

import numpy as np
import pytest

from fedmq.errors import ConfigError, Refused
from fedmq.rules import Claim, ExamplesBound, Finite, NormClip
from fedmq.rules.measure import norm, trainable_spans
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


def test_spans_are_the_runs_of_trainable_numbers() -> None:
    assert trainable_spans(LAYOUT) == (slice(0, 2), slice(4, 5))
    assert trainable_spans(Layout((Variable("a", (2,)), Variable("b", (3,))))) == (slice(0, 5),)
    assert trainable_spans(Layout((Variable("a", (2,), kind="statistic"),))) == ()


def test_the_norm_leaves_statistics_out() -> None:
    assert norm(vector(2, 3, 1e30, np.nan, 6), LAYOUT) == 7.0


def test_the_norm_of_the_largest_numbers_does_not_overflow() -> None:
    assert norm(vector(LARGEST, 0, 0, 0, 0), LAYOUT) == LARGEST


def test_the_norm_over_several_blocks() -> None:
    layout = Layout((Variable("kernel", (40_000,)),))
    assert norm(np.full(40_000, 0.5, np.float32), layout) == 100.0


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


def test_clip_scales_trainable_numbers_only() -> None:
    delta = vector(20, 30, 1000, -1000, 60)
    clipped = NormClip(7.0).check(delta, CLAIM, LAYOUT)
    np.testing.assert_array_equal(clipped, vector(2, 3, 1000, -1000, 6))
    np.testing.assert_array_equal(delta, vector(20, 30, 1000, -1000, 60))


def test_clip_passes_what_is_short_enough() -> None:
    delta = vector(2, 3, 1000, -1000, 6)
    assert NormClip(7.0).check(delta, CLAIM, LAYOUT) is delta


def test_clip_takes_the_longest_vector_there_is() -> None:
    delta = np.full(5, LARGEST, np.float32)
    assert norm(NormClip(1.0).check(delta, CLAIM, LAYOUT), LAYOUT) == pytest.approx(1.0)


def test_clip_refuses_what_has_no_norm() -> None:
    with pytest.raises(Refused, match="norm is not finite"):
        NormClip(7.0).check(vector(np.inf, 0, 0, 0, 0), CLAIM, LAYOUT)


@pytest.mark.parametrize("limit", [0.0, -1.0, np.nan, np.inf])
def test_clip_wants_a_positive_limit(limit: float) -> None:
    with pytest.raises(ConfigError, match="positive finite"):
        NormClip(limit)


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


def test_guards_print_their_settings() -> None:
    assert [str(guard) for guard in (Finite(), NormClip(2.5), ExamplesBound(2, 9))] == [
        "finite",
        "clip(2.5)",
        "examples(2..9)",
    ]
