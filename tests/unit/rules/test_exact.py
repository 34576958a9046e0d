"""Exact sums of one block, wherever its bits went: lane, crumbs or slices."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmq.rules.exact import Block, carried, value
from fedmq.vectors import Vector

LAST = Fraction(2) ** -79
Product = tuple[Vector, float]


def summed(products: Iterable[Product]) -> Block:
    products = list(products)
    size = products[0][0].size
    block, scratch = Block(np.zeros(size, np.uint64)), np.empty((2, size))
    for numbers, weight in products:
        block.add(numbers, weight, float(np.abs(numbers).max()) * weight, scratch)
    return block


def total(digits: np.ndarray[tuple[int, int], np.dtype[np.int64]], place: int) -> Fraction:
    high, middle, low = (int(digit) for digit in digits[:, place])
    return (((high << 44) + middle) * 2**44 + low) * LAST


def exact(products: Sequence[Product], place: int) -> Fraction:
    """Sum of the products, each rounded to a multiple of 2^-79."""
    terms = (Fraction(float(numbers[place])) * Fraction(weight) for numbers, weight in products)
    return sum((round(term / LAST) * LAST for term in terms), Fraction())


SIZE = 200
"""More numbers than there may be crumbs."""


def vector(seed: int, scale: int, spread: int) -> Vector:
    """Numbers of all magnitudes from ``2**scale`` down to ``2**(scale - spread)``."""
    rng = np.random.default_rng(seed)
    return np.ldexp(rng.uniform(-1, 1, SIZE), scale - rng.integers(0, spread + 1, SIZE)).astype(np.float32)


vectors = st.builds(vector, st.integers(0, 99), st.integers(-130, 30), st.integers(0, 60))
weights = st.one_of(st.integers(1, 2**24).map(float), st.floats(2.0**-20, 2.0**28, width=32))


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(vectors, weights), min_size=1, max_size=5))
def test_the_sum_is_that_of_exact_arithmetic(products: list[Product]) -> None:
    digits = summed(products).digits()
    assert np.abs(2 * digits[1:].astype(np.float64) + 1).max() <= 2**44
    for place in range(0, SIZE, 7):
        assert total(digits, place) == exact(products, place)


@pytest.mark.parametrize("spread", [0, 12, 60])
def test_what_goes_where_hangs_on_order_and_the_sum_does_not(spread: int) -> None:
    """Weights of 1 to 2^12 times numbers that need none, some and many crumbs, and peaks far apart."""
    products = [
        (vector(1, 0, spread), 1.0),
        (vector(2, 3, spread), 4096.0),
        (vector(3, -20, spread), 613.0),
        (vector(4, 29, spread), 2.0**28),
    ]
    found = {summed(order).digits().tobytes() for order in permutations(products)}
    assert len(found) == 1
    for place in range(SIZE):
        assert total(summed(products).digits(), place) == exact(products, place)


def test_looking_at_the_sum_changes_none() -> None:
    first, second = vector(1, 0, 20), vector(2, 8, 20)
    block, scratch = summed([(first, 3.0), (second, 3.0)]), np.empty((2, SIZE))
    block.digits()
    block.digits()
    block.add(first, 5.0, 5.0, scratch)
    block.add(second, 5.0, 5.0 * 2**8, scratch)
    again = summed([(first, 3.0), (second, 3.0), (first, 5.0), (second, 5.0)])
    assert block.digits().tobytes() == again.digits().tobytes()


def test_a_full_lane_makes_way_for_slices() -> None:
    """5,000 of the greatest products that the lane takes come to more than 2^63 of its units."""
    great, scratch = np.full(1, 31.5, np.float32), np.empty((2, 1))
    block = summed([(np.ones(1, np.float32), 1.0)])
    for _ in range(5000):
        block.add(great, 1.0, 31.5, scratch)
    assert total(block.digits(), 0) == 1 + Fraction(63, 2) * 5000


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_greatest_products_fit(sign: float) -> None:
    number = np.full(1, sign * float(np.nextafter(np.float32(2.0**31), np.float32(0))), np.float32)
    products = [(number, 2.0**28)] * 3
    assert total(summed(products).digits(), 0) == exact(products, 0)


def test_sums_made_of_digits_go_on() -> None:
    first, second = vector(1, 0, 40), vector(2, 10, 40)
    block, scratch = Block(np.zeros(SIZE, np.uint64), summed([(first, 7.0)]).digits()), np.empty((2, SIZE))
    block.add(second, 3.0, 3.0 * 2**10, scratch)
    assert block.digits().tobytes() == summed([(first, 7.0), (second, 3.0)]).digits().tobytes()


def test_zeros_cost_nothing() -> None:
    bins = np.zeros(3, np.uint64)
    Block(bins).add(np.zeros(3, np.float32), 5.0, 0.0, np.empty((2, 3)))
    assert not bins.any()


def test_carrying_holds_at_the_ends_of_64_bits() -> None:
    """2^20 - 1 updates, each at the end of its slice."""
    ends = np.array([[0, 0], [(2**20 - 1) << 43, -(2**20 - 1) << 43], [2**63 - 2**43, -(2**63) + 2**43]])
    before = [total(ends, place) for place in (0, 1)]
    assert [total(carried(ends), place) for place in (0, 1)] == before
    assert (ends[1:] >= -(2**43)).all()
    assert (ends[1:] < 2**43).all()


@given(st.integers(-(2**62), 2**62), st.integers(-(2**43), 2**43 - 1), st.integers(-(2**43), 2**43 - 1))
def test_the_value_is_within_2_to_the_minus_51_of_the_sum(high: int, middle: int, low: int) -> None:
    digits = np.array([[high], [middle], [low]])
    true = total(digits, 0)
    assert abs(Fraction(float(value(digits)[0])) - true) <= abs(true) * Fraction(2) ** -51
