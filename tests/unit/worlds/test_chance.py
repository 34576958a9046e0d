"""Draws without memory: the same one by one and all at once, in any order, and evenly spread."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fedmq.worlds.chance import Chance


@given(st.integers(0, 2**40), st.integers(-(2**40), 2**40), st.integers(-5, 2**70))
def test_one_and_many_agree(device: int, counter: int, seed: int) -> None:
    chance = Chance(seed, "test")
    assert chance.many(np.array([device, device + 1]), np.array([counter, 0]))[0] == chance.one(
        device, counter
    )
    assert chance.many(np.array([7, device]), counter)[1] == chance.one(device, counter)


def test_draws_are_even_and_apart() -> None:
    devices = np.arange(20_000)
    first, second = Chance(1, "speed").many(devices), Chance(1, "link").many(devices)
    later = Chance(1, "speed").many(devices, 1)
    for draws in (first, second, later):
        assert 0.0 < draws.min() < draws.max() < 1.0
        assert np.abs(np.histogram(draws, 20, (0, 1))[0] - 1000).max() < 150
    for other in (second, later, np.roll(first, 1), Chance(2, "speed").many(devices)):
        assert abs(np.corrcoef(first, other)[0, 1]) < 0.03


def test_normal_draws_are_normal() -> None:
    draws = np.array([Chance(1, "n").normal(device) for device in range(4000)])
    assert abs(draws.mean()) < 0.05
    assert abs(draws.std() - 1) < 0.05


def test_a_generator_repeats() -> None:
    assert Chance(1, "g").generator(3, 4).random() == Chance(1, "g").generator(3, 4).random()
    assert Chance(1, "g").generator(3, 4).random() != Chance(1, "g").generator(3, 5).random()
