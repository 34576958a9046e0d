"""The exact mean against exact arithmetic, and at the ends of its range."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fedmq.errors import DecodeError, MisuseError, Refused
from fedmq.rules import Mean, Sums
from fedmq.rules.reduce import MOST_DELTA, weight_units
from fedmq.vectors import Layout, Variable

MEAN = Mean()


def flat(size: int) -> Layout:
    return Layout((Variable("w", (size,)),))


def vector(*numbers: float) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.array(numbers, np.float32)


def folded(*pairs: tuple[float, float]) -> Sums:
    state = MEAN.zero(flat(1))
    for number, weight in pairs:
        MEAN.add(state, vector(number), weight)
    return state


def rounded(number: float) -> Fraction:
    return Fraction(float(np.float32(number)))


def exact_mean(pairs: list[tuple[float, float]]) -> Fraction:
    total = sum((rounded(weight) for _, weight in pairs), Fraction())
    return sum((rounded(number) * rounded(weight) for number, weight in pairs), Fraction()) / total


numbers = st.floats(-(2.0**30), 2.0**30, width=32)
weights = st.floats(2.0**-20, 2.0**28)


@settings(deadline=None)
@given(st.lists(st.tuples(numbers, weights), min_size=1, max_size=20))
@example([(1.0, 1.0), (2.0**-23, 1.0)])
@example([(2.0**30, 2.0**28), (-(2.0**30), 2.0**28), (1e-6, 1.0)])
@example([(-(2.0**-40), 1.0)])
@example([(512.0, 1.0), (-255.99998, 1.0), (-255.99998, 1.0)])
def test_the_mean_is_exact_but_for_two_roundings(pairs: list[tuple[float, float]]) -> None:
    exact = exact_mean(pairs)
    found = Fraction(float(MEAN.result(folded(*pairs))[0]))
    lost = len(pairs) * Fraction(2) ** -80 / sum(rounded(weight) for _, weight in pairs)
    assert abs(found - exact) <= abs(exact) * Fraction(2) ** -50 + lost


@settings(deadline=None)
@given(st.lists(st.tuples(numbers, weights), min_size=1, max_size=20))
def test_as_float32_it_is_the_nearest_but_on_the_edge_of_a_tie(pairs: list[tuple[float, float]]) -> None:
    exact = exact_mean(pairs)
    found = np.float32(MEAN.result(folded(*pairs))[0])
    spacing = Fraction(float(np.spacing(found)))
    lost = len(pairs) * Fraction(2) ** -80 / sum(rounded(weight) for _, weight in pairs)
    assert abs(Fraction(float(found)) - exact) <= abs(spacing) / 2 + abs(exact) * Fraction(2) ** -50 + lost


def test_a_large_number_that_cancels_leaves_the_small_ones_whole() -> None:
    assert MEAN.result(folded((2.0**30, 2**28), (1e-9, 1.0), (-(2.0**30), 2**28)))[0] == pytest.approx(
        float(np.float32(1e-9)) / (2**29 + 1), rel=1e-15
    )


def test_below_the_last_unit_a_product_is_rounded_to_it() -> None:
    assert MEAN.result(folded((2.0**-79, 1.0)))[0] == 2.0**-79
    assert MEAN.result(folded((1.75 * 2.0**-79, 1.0)))[0] == 2.0**-78
    assert MEAN.result(folded((2.0**-81, 1.0)))[0] == 0.0
    assert MEAN.result(folded((1e-45, 1.0)))[0] == 0.0


def test_weights_are_rounded_to_24_bits() -> None:
    assert weight_units(2**24 + 1) == weight_units(2**24)
    assert weight_units(2**24 - 1) == (2**24 - 1) << 43
    assert weight_units(2.0**-20) == 2**23
    assert MEAN.total(folded((1.0, 0.1))) == float(np.float32(0.1))


@pytest.mark.parametrize("weight", [0.0, -1.0, 2.0**-21, 2.0**28 + 64, 1e300, math.nan, math.inf, -math.inf])
def test_a_weight_out_of_bounds_is_refused(weight: float) -> None:
    with pytest.raises(Refused, match="a weight must lie between"):
        folded((1.0, weight))


@pytest.mark.parametrize("number", [2.0**31, -(2.0**31), 1e30, math.nan, math.inf, -math.inf])
def test_a_number_out_of_range_is_refused(number: float) -> None:
    with pytest.raises(Refused, match="finite and below"):
        folded((number, 1.0))


def test_the_sum_of_weights_has_room_for_4095_of_the_greatest() -> None:
    state = folded((1.0, 2.0**28))
    for _ in range(11):
        state = MEAN.merge(state, state)  # 2,048 of them
    with pytest.raises(Refused, match="room for fewer"):
        MEAN.merge(state, state)
    state.total = (4095 << 28 << 43) - 1
    MEAN.check(state, vector(1.0), 2.0**-20)
    state.total = 4095 << 28 << 43
    with pytest.raises(Refused, match="finish the round"):
        MEAN.add(state, vector(1.0), 2.0**28)
    assert state.count == 2048


def test_a_fold_takes_fewer_than_a_million_updates() -> None:
    state = folded((1.0, 1.0))
    state.count = 2**20 - 2
    MEAN.add(state, vector(1.0), 1.0)
    with pytest.raises(Refused, match="1048576 updates"):
        MEAN.add(state, vector(1.0), 1.0)


def test_a_thousand_deltas_have_the_mean_of_exact_arithmetic() -> None:
    """Large and small numbers side by side, over several blocks."""
    rng = np.random.default_rng(7)
    scales = np.repeat([1e-6, 1e8, 0.0], [16_384, 16_384, 5])
    stock = [(rng.standard_normal(scales.size) * scales).astype(np.float32) for _ in range(10)]
    state = MEAN.zero(flat(scales.size))
    for k in range(1000):
        MEAN.add(state, stock[k % 10], float(1 + k))
    expected = np.average(
        np.array(stock, np.float64), axis=0, weights=[sum(range(k + 1, 1001, 10)) for k in range(10)]
    )
    np.testing.assert_allclose(MEAN.result(state), expected, rtol=1e-9, atol=1e-20)


LAST = float(np.nextafter(np.float32(2.0), np.float32(0.0)))  # 24 bits, all of them ones


@pytest.mark.parametrize(
    ("number", "weight"),
    [
        (2.0**30 * LAST, 2.0**19 * LAST),  # the first slice at its fullest
        (2.0**7 * LAST, 1.0),  # the second
        (2.0**-1 * LAST, 2.0**8 * LAST),
        (2.0**-37 * LAST, 1.0),  # the third
        (2.0**-15 * LAST, 2.0**-20 * LAST),
    ],
)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_no_slice_overflows_however_many_updates_fill_it(number: float, weight: float, sign: float) -> None:
    state = folded((sign * number, weight))
    for _ in range(19):
        state = MEAN.merge(state, state)
    assert state.count == 2**19
    exact = sign * float(np.float32(number))
    assert MEAN.result(state)[0] == pytest.approx(exact, rel=2.0**-35)
    assert MEAN.dump(MEAN.load(MEAN.dump(state), flat(1))) == MEAN.dump(state)


def test_rows_that_cancel_lose_nothing() -> None:
    """Products just short of -2^8 fill the second row beyond 53 bits, and one of 2^20 in the first cancels them."""
    state = folded((-LAST / 2, 2.0**7 * LAST))
    for _ in range(12):
        state = MEAN.merge(state, state)
    MEAN.add(state, vector(2.0**20), 1.0)
    MEAN.add(state, vector(3 * 2.0**-35), 1.0)
    exact = -4096 * Fraction(LAST / 2) * Fraction(2.0**7 * LAST) + 2**20 + Fraction(3, 2**35)
    assert Fraction(float(MEAN.result(state)[0]) * MEAN.total(state)) == pytest.approx(exact, rel=2.0**-48)


def test_a_delta_of_zeros_counts_as_any_other() -> None:
    state = folded((0.0, 3.0), (8.0, 1.0))
    assert (state.count, MEAN.total(state), MEAN.result(state)[0]) == (2, 4.0, 2.0)


def test_in_float32_it_is_the_same_mean_rounded_once() -> None:
    state = folded((1.0, 3.0), (2.0**-30, 1.0))
    assert MEAN.rounded(state).dtype == np.float32
    assert MEAN.rounded(state) == np.float32(MEAN.result(state)[0])
    with pytest.raises(MisuseError, match="abandon the round"):
        MEAN.rounded(MEAN.zero(flat(1)))


def test_a_fold_of_nothing_has_no_mean() -> None:
    with pytest.raises(MisuseError, match="abandon the round"):
        MEAN.result(MEAN.zero(flat(1)))


def test_a_model_without_numbers_has_a_mean_without_numbers() -> None:
    state = MEAN.zero(flat(0))
    MEAN.add(state, vector(), 1.0)
    assert MEAN.result(state).shape == (0,)
    assert MEAN.load(MEAN.dump(state), flat(0)).count == 1


def test_deltas_may_be_strided() -> None:
    state = MEAN.zero(flat(2))
    MEAN.add(state, vector(1, 9, 2, 9)[::2], 1.0)
    np.testing.assert_array_equal(MEAN.result(state), [1.0, 2.0])


def test_the_bytes_are_as_written_down() -> None:
    dumped = MEAN.dump(folded((-1.0, 2.0)))
    assert dumped[:4] == (1).to_bytes(4, "little")
    assert dumped[4:20] == (2 << 43).to_bytes(16, "little")
    assert dumped[20:28] == bytes(8)
    assert dumped[28:36] == (-2 << 35).to_bytes(8, "little", signed=True)
    assert dumped[36:] == bytes(8)


@pytest.mark.parametrize("size", [0, 2, 100])
def test_bytes_of_another_length_do_not_load(size: int) -> None:
    with pytest.raises(DecodeError, match="44 bytes"):
        MEAN.load(MEAN.dump(folded((1.0, 1.0))), flat(size))


def forged(count: int, total: int, *rows: int) -> bytes:
    body = b"".join(row.to_bytes(8, "little", signed=True) for row in rows)
    return count.to_bytes(4, "little") + total.to_bytes(16, "little") + body


ONE = 1 << 43
"""A weight of one, in units."""


@pytest.mark.parametrize(
    "data",
    [
        forged(2**20, ONE << 20, 0, 0, 0),
        forged(0, ONE, 0, 0, 0),
        forged(1, 0, 0, 0, 0),
        forged(4, ONE >> 19, 0, 0, 0),
        forged(1, ONE << 40, 0, 0, 0),
        forged(1, 2**127, 0, 0, 0),
        forged(0, 0, 1, 0, 0),
        forged(1, ONE, 2**22 + 2, 0, 0),
        forged(1, ONE, 0, 2**43 + 1, 0),
        forged(1, ONE, 0, 0, -(2**43) - 1),
        forged(1, ONE, -(2**63), 0, 0),
    ],
)
def test_bytes_that_no_updates_give_do_not_load(data: bytes) -> None:
    with pytest.raises(DecodeError, match="no set of updates"):
        MEAN.load(data, flat(1))


@pytest.mark.parametrize("data", [forged(1, ONE, 2**22, 2**43 - 1, -(2**43)), forged(0, 0, 0, 0, 0)])
def test_bytes_at_the_ends_of_the_range_load(data: bytes) -> None:
    assert MEAN.dump(MEAN.load(data, flat(1))) == data


def test_bytes_that_were_not_carried_load_as_the_same_sum() -> None:
    assert MEAN.dump(MEAN.load(forged(1, ONE, 0, 0, 2**43), flat(1))) == forged(1, ONE, 0, 1, -(2**43))


@pytest.mark.parametrize("place", [0, 20_000, 69_999])
@pytest.mark.parametrize(
    "peak", [0.0, 1.0, 46_340.0, 46_341.0, 2.0**31 - 128, 2.0**31, 2.0**63, np.inf, np.nan]
)
def test_what_check_lets_through_is_what_add_takes(peak: float, place: int) -> None:
    """A rule of several lanes adds to the first of them in the belief that all will take the update."""
    mean, layout = Mean(), Layout((Variable("w", (70_000,)),))
    delta = np.zeros(70_000, np.float32)
    delta[place] = -peak
    if peak < MOST_DELTA:
        mean.check(mean.zero(layout), delta, 1.0)
        mean.add(mean.zero(layout), delta, 1.0)
        return
    with pytest.raises(Refused, match="must be finite and below"):
        mean.check(mean.zero(layout), delta, 1.0)
    with pytest.raises(Refused, match="must be finite and below"):
        mean.add(mean.zero(layout), delta, 1.0)
