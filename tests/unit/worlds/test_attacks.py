"""Each attack does what its paper says."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest

from fedmq.errors import ConfigError
from fedmq.worlds.attacks import (
    ATTACKS,
    Attack,
    Gaussian,
    InnerProduct,
    LabelFlip,
    LittleIsEnough,
    Mimic,
    MinMax,
    SignFlip,
)

HONEST = np.random.default_rng(7).normal(1.0, 0.3, (9, 400)).astype(np.float32)
CRAFTING = [cls() for cls in ATTACKS.values() if not cls().poisons_labels]


def crafted(attack: Attack, attackers: int = 3) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return attack.craft(HONEST, attackers, np.random.default_rng(1))


@pytest.mark.parametrize("attack", CRAFTING, ids=str)
def test_every_attacker_gets_a_finite_vector_and_a_seed_repeats_it(attack: Attack) -> None:
    first = crafted(attack)
    assert first.shape == (3, 400)
    assert first.dtype == np.float32
    assert np.isfinite(first).all()
    np.testing.assert_array_equal(first, crafted(attack))
    assert attack.craft(HONEST[:1], 2, np.random.default_rng(1)).shape == (2, 400)


def test_flips_and_inner_products_are_multiples_of_the_mean() -> None:
    np.testing.assert_allclose(crafted(SignFlip(2.0))[0], -2 * HONEST.mean(0), rtol=1e-6)
    np.testing.assert_allclose(crafted(InnerProduct(0.1))[2], -0.1 * HONEST.mean(0), rtol=1e-6)


def test_a_little_is_the_papers_number_of_deviations() -> None:
    # 50 devices, 24 of them bad: s = 26 - 24 = 2, so 24 of 26 honest ones need no convincing (their section 3.1).
    assert LittleIsEnough.deviations(26, 24) == pytest.approx(NormalDist().inv_cdf(24 / 26))
    assert LittleIsEnough.deviations(9, 1) == 0.0
    assert LittleIsEnough.deviations(3, 3) == pytest.approx(NormalDist().inv_cdf(2 / 3))
    assert LittleIsEnough.deviations(2, 3) == 0.0
    expected = HONEST.mean(0) - 1.5 * HONEST.std(0)
    np.testing.assert_allclose(crafted(LittleIsEnough(1.5))[1], expected, rtol=1e-5)


def test_mimics_copy_the_most_one_sided_device() -> None:
    odd = HONEST.copy()
    odd[4] += 5
    copies = Mimic().craft(odd, 2, np.random.default_rng(0))
    np.testing.assert_array_equal(copies, odd[[4, 4]])


def test_noise_is_as_long_as_asked_and_differs() -> None:
    noise = Gaussian(10.0).craft(HONEST, 50, np.random.default_rng(3))
    lengths = np.linalg.norm(noise, axis=1) / np.linalg.norm(HONEST, axis=1).mean()
    assert lengths.mean() == pytest.approx(10.0, rel=0.05)
    assert not np.array_equal(noise[0], noise[1])


def test_min_max_goes_just_to_the_edge_of_the_crowd() -> None:
    edge = crafted(MinMax())[0].astype(np.float64)
    widest = max(np.linalg.norm(a - b) for a in HONEST for b in HONEST)
    farthest = max(np.linalg.norm(edge - row) for row in HONEST)
    assert farthest == pytest.approx(widest, rel=1e-5)
    assert (edge - HONEST.mean(0)) @ HONEST.std(0) < 0


def test_min_max_among_equals_is_one_of_them() -> None:
    same = np.ones((4, 6), np.float32)
    np.testing.assert_array_equal(MinMax().craft(same, 1, np.random.default_rng(0))[0], same[0])


def test_flipped_labels_count_from_the_other_end() -> None:
    assert LabelFlip.labels(np.array([0, 3, 9]), 10).tolist() == [9, 6, 0]
    with pytest.raises(ConfigError, match="train on flipped labels"):
        crafted(LabelFlip())


@pytest.mark.parametrize("make", [SignFlip, InnerProduct, LittleIsEnough, Gaussian])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_a_size_that_makes_no_sense_is_named(make: type[SignFlip], value: float) -> None:
    with pytest.raises(ConfigError, match="wants a positive finite number"):
        make(value)
