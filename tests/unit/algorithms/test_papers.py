"""Each algorithm against its paper's listing, on a thousand generated federations and more."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fedmq.algorithms import Algorithm, Differences, FedDyn, FedNova, FedProx, Scaffold
from fedmq.rules import ByExamples, Replace, Rule
from fedmq.trainers.numpy import Mlp, NumpyTrainer
from fedmq.vectors import Vector
from tests.unit.algorithms import listings
from tests.unit.algorithms.fleets import Fleet, Quadratic, drawn_rounds, gradients
from tests.unit.algorithms.listings import Gradient, Numbers, Round

CASES = 1000
SOFTMAX_CASES = 100


def drawn_fleet(chance: np.random.Generator, **options: object) -> list[Quadratic]:
    size, devices = int(chance.integers(1, 7)), int(chance.integers(1, 6))
    return [
        Quadratic.drawn(chance, size, examples=int(chance.integers(1, 50)), **options) for _ in range(devices)
    ]


def cases(count: int = CASES) -> Iterator[np.random.Generator]:
    return (np.random.default_rng(seed) for seed in range(count))


def run(
    algorithm: Algorithm,
    trainers: Sequence[Quadratic],
    rounds: Sequence[Round],
    rate: float,
    rule: Rule | None = None,
) -> Fleet:
    fleet = Fleet(algorithm, trainers, rule or Rule(), {"learning_rate": rate})
    for each in rounds:
        fleet.round(each)
    return fleet


def zeros(trainers: Sequence[Quadratic]) -> Numbers:
    return np.zeros(len(trainers[0].minimum))


@pytest.mark.slow
def test_fedprox_is_the_papers() -> None:
    for chance in cases():
        trainers, rate, mu = drawn_fleet(chance), chance.uniform(0.02, 0.4), chance.uniform(0.01, 2)
        rounds = drawn_rounds(chance, len(trainers))
        ours = run(FedProx(mu), trainers, rounds, rate).model
        theirs = listings.fedprox(gradients(trainers), zeros(trainers), rounds, rate, mu)
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=2e-6)


@pytest.mark.slow
def test_scaffold_is_the_papers() -> None:
    for chance in cases():
        trainers, rate, global_rate = drawn_fleet(chance), chance.uniform(0.02, 0.3), chance.uniform(0.5, 1.2)
        rounds = drawn_rounds(chance, len(trainers))
        fleet = run(Scaffold(), trainers, rounds, rate, Rule(step=Replace(global_rate)))
        x, c, c_i = listings.scaffold(gradients(trainers), zeros(trainers), rounds, rate, global_rate)
        np.testing.assert_allclose(fleet.model, x, rtol=1e-5, atol=2e-6)
        np.testing.assert_allclose(fleet.vector[len(x) :], c, rtol=1e-5, atol=5e-6)
        for kept, own in zip(fleet.kept, c_i, strict=True):
            np.testing.assert_allclose(kept.get("scaffold.control", 0 * own), own, rtol=1e-5, atol=5e-6)


@pytest.mark.slow
@pytest.mark.parametrize("momentum", [0.0, 0.6])
def test_fednova_is_the_papers(momentum: float) -> None:
    for chance in cases():
        trainers, rate = drawn_fleet(chance, momentum=momentum), chance.uniform(0.02, 0.2)
        rounds = drawn_rounds(chance, len(trainers))
        ours = run(FedNova(momentum), trainers, rounds, rate, Rule(weigh=ByExamples())).model
        examples = [trainer.examples for trainer in trainers]
        theirs = listings.fednova(gradients(trainers), zeros(trainers), rounds, rate, momentum, examples)
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=2e-6)


def descend(
    gradient: Gradient, rate: float, theta: Numbers, own: Numbers, alpha: float, steps: int
) -> Numbers:
    """Go `steps` down the slope of Acar et al.'s local objective."""
    w = theta.copy()
    for _ in range(steps):
        w = w - rate * (gradient(w) - own + alpha * (w - theta))
    return w


def solve(trainer: Quadratic, theta: Numbers, own: Numbers, alpha: float, steps: int) -> Numbers:
    """Return the argmin of Acar et al.'s local objective."""
    whole = trainer.curvature + alpha * np.eye(len(theta))
    return np.asarray(np.linalg.solve(whole, trainer.curvature @ trainer.minimum + own + alpha * theta))


@pytest.mark.slow
@pytest.mark.parametrize("exact", [False, True])
def test_feddyn_is_the_papers(exact: bool) -> None:  # noqa: FBT001
    for chance in cases():
        trainers = drawn_fleet(chance, exact=exact)
        rate, alpha = chance.uniform(0.02, 0.3), chance.uniform(0.1, 2)
        rounds = drawn_rounds(chance, len(trainers))
        fleet = run(FedDyn(alpha), trainers, rounds, rate)
        minimise = [
            partial(solve, one) if exact else partial(descend, one.gradient, rate) for one in trainers
        ]
        x, h, own = listings.feddyn(minimise, zeros(trainers), rounds, alpha)
        np.testing.assert_allclose(fleet.model, x, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(fleet.memory["algorithm.drift"], h, rtol=1e-5, atol=1e-5)
        for kept, wanted in zip(fleet.kept, own, strict=True):
            np.testing.assert_allclose(kept.get("feddyn.gradient", 0 * wanted), wanted, rtol=1e-5, atol=1e-5)


def thinned(chance: np.random.Generator, share: float, scale: float) -> Callable[..., Any]:
    """Return a codec that keeps a share of the numbers, other ones for every round and device, times `scale`."""
    salt = int(chance.integers(1 << 30))

    def compress(round_: int, device: int, numbers: Numbers) -> Numbers:
        keep = np.random.default_rng([salt, round_, device]).random(numbers.size) < share
        return np.asarray(np.where(keep, numbers * numbers.dtype.type(scale), numbers.dtype.type(0)))

    return compress


@pytest.mark.slow
def test_differences_are_the_papers() -> None:
    for chance in cases():
        trainers, rate, global_rate = drawn_fleet(chance), chance.uniform(0.02, 0.3), chance.uniform(0.5, 1.2)
        alpha, share = chance.uniform(0.1, 1.0), chance.uniform(0.3, 1.0)
        rounds = drawn_rounds(chance, len(trainers))
        codec = thinned(chance, share, chance.choice([1.0, 1 / share]))
        fleet = Fleet(
            Differences(alpha), trainers, Rule(step=Replace(global_rate)), {"learning_rate": rate}, codec
        )
        for each in rounds:
            fleet.round(each)
        x, h, h_i = listings.differences(
            gradients(trainers), zeros(trainers), rounds, rate, global_rate, alpha, codec
        )
        np.testing.assert_allclose(fleet.model, x, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(fleet.memory["algorithm.expected"], h, rtol=1e-5, atol=1e-5)
        for kept, own in zip(fleet.kept, h_i, strict=True):
            np.testing.assert_allclose(kept.get("differences.expected", 0 * own), own, rtol=1e-5, atol=1e-5)


def test_differences_of_the_whole_fleet_at_rate_1_are_ef21() -> None:
    for chance in itertools.islice(cases(), 50):
        trainers, rate, codec = drawn_fleet(chance), 0.1, thinned(chance, 0.5, 1.0)
        each = Round(list(range(len(trainers))), [3] * len(trainers))
        fleet = Fleet(Differences(), trainers, Rule(), {"learning_rate": rate}, codec)
        for _ in range(8):
            fleet.round(each)
        theirs = listings.ef21(gradients(trainers), zeros(trainers), 8, rate, 3, codec)
        np.testing.assert_allclose(fleet.model, theirs, rtol=1e-5, atol=1e-5)


# --- softmax regression, with the trainer that comes with fedmq


def softmax_gradient(x: Numbers, y: NDArray[np.int64], classes: int) -> Gradient:
    """Return the gradient of the mean cross-entropy at weights of shape (inputs * classes + classes,)."""

    def gradient(w: Numbers) -> Numbers:
        kernel, bias = w[:-classes].reshape(-1, classes), w[-classes:]
        scores = x @ kernel + bias
        chances = np.exp(scores - scores.max(axis=1, keepdims=True))
        chances /= chances.sum(axis=1, keepdims=True)
        chances[np.arange(len(y)), y] -= 1
        return np.concatenate(((x.T @ chances / len(x)).ravel(), chances.mean(axis=0)))

    return gradient


def softmax_fleet(chance: np.random.Generator) -> tuple[list[NumpyTrainer], list[Gradient]]:
    inputs, classes = int(chance.integers(1, 4)), int(chance.integers(2, 4))
    trainers, slopes = [], []
    for _ in range(int(chance.integers(1, 5))):
        rows = int(chance.integers(2, 9))
        x, y = chance.normal(size=(rows, inputs)), chance.integers(0, classes, rows)
        trainers.append(NumpyTrainer(Mlp(inputs, classes=classes), x, y))
        slopes.append(softmax_gradient(x, y, classes))
    return trainers, slopes


Case = tuple[Algorithm, Rule, Callable[[list[Gradient], Numbers, list[Round], list[int]], Numbers]]
RATE = 0.3
SOFTMAX: dict[str, Case] = {
    "fedprox": (FedProx(0.5), Rule(), lambda g, x, r, _: listings.fedprox(g, x, r, RATE, 0.5)),
    "scaffold": (Scaffold(), Rule(), lambda g, x, r, _: listings.scaffold(g, x, r, RATE, 1.0)[0]),
    "fednova": (
        FedNova(),
        Rule(weigh=ByExamples()),
        lambda g, x, r, n: listings.fednova(g, x, r, RATE, 0.0, n),
    ),
    "feddyn": (
        FedDyn(0.5),
        Rule(),
        lambda g, x, r, _: listings.feddyn([partial(descend, one, RATE) for one in g], x, r, 0.5)[0],
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SOFTMAX)
def test_softmax_regression_goes_the_papers_way(name: str) -> None:
    algorithm, rule, listing = SOFTMAX[name]
    for chance in cases(SOFTMAX_CASES):
        trainers, slopes = softmax_fleet(chance)
        rounds = drawn_rounds(chance, len(trainers))
        fleet = Fleet(algorithm, trainers, rule, {"learning_rate": RATE, "batch_size": 100})
        first = fleet.model.astype(np.float64)
        for each in rounds:
            fleet.round(each)
        theirs = listing(slopes, first, rounds, [trainer.examples for trainer in trainers])
        np.testing.assert_allclose(fleet.model, theirs, rtol=1e-5, atol=1e-5)


# --- what they are for


def test_scaffold_and_feddyn_reach_the_common_minimum_where_fedavg_and_fedprox_stand_beside_it() -> None:
    chance = np.random.default_rng(1)
    trainers = [Quadratic.drawn(chance, 5) for _ in range(4)]
    best = np.linalg.solve(
        sum(one.curvature for one in trainers), sum(one.curvature @ one.minimum for one in trainers)
    )
    every = Round(list(range(4)), [10] * 4)

    def distance(algorithm: Algorithm) -> float:
        return float(np.linalg.norm(run(algorithm, trainers, [every] * 150, 0.1).model - best))

    assert distance(Scaffold()) < 1e-4
    assert distance(FedDyn(0.5)) < 1e-3
    assert distance(FedProx(0.1)) > 0.05


def test_differences_stand_where_nothing_is_lost_however_little_a_codec_takes() -> None:
    """One number of five a round, the largest: without differences the devices pull the model to and fro."""
    chance = np.random.default_rng(1)
    trainers = [Quadratic.drawn(chance, 5) for _ in range(4)]
    every = Round(list(range(4)), [5] * 4)

    def largest(_round: int, _device: int, delta: Numbers) -> Numbers:
        return np.asarray(np.where(np.abs(delta) == np.abs(delta).max(), delta, delta.dtype.type(0)))

    def end(algorithm: Algorithm, codec: Callable[..., Any]) -> Vector:
        fleet = Fleet(algorithm, trainers, Rule(), {"learning_rate": 0.02}, codec)
        for _ in range(150):
            fleet.round(every)
        return fleet.model

    whole = end(FedProx(1e-9), lambda _round, _device, delta: delta)
    assert np.linalg.norm(end(Differences(), largest) - whole) < 1e-3
    assert np.linalg.norm(end(FedProx(1e-9), largest) - whole) > 0.05


def test_fednova_reaches_the_common_minimum_of_devices_that_take_different_numbers_of_steps() -> None:
    """With alike curvatures, and gentle steps; FedAvg leans towards the device that takes more of them."""
    trainers = [Quadratic(np.eye(1), np.array([side])) for side in (-1.0, 1.0)]
    uneven = Round([0, 1], [1, 20])

    def end(algorithm: Algorithm) -> float:
        return float(run(algorithm, trainers, [uneven] * 300, 0.005).model[0])

    assert abs(end(FedNova())) < 0.06
    assert end(FedProx(1e-9)) > 0.8


def test_listings_agree_with_each_other_where_they_must() -> None:
    """With one step each, FedProx, FedNova and the first round of SCAFFOLD are all gradient descent on the mean."""
    for chance in itertools.islice(cases(), 20):
        trainers, rate = drawn_fleet(chance), 0.1
        slopes, x, everyone = gradients(trainers), zeros(trainers), list(range(len(trainers)))
        once = [Round(everyone, [1] * len(trainers))]
        wanted = x - rate * np.mean([slope(x) for slope in slopes], axis=0)
        np.testing.assert_allclose(listings.fedprox(slopes, x, once, rate, 1.0), wanted)
        np.testing.assert_allclose(listings.scaffold(slopes, x, once, rate, 1.0)[0], wanted)
        np.testing.assert_allclose(listings.fednova(slopes, x, once, rate, 0.9, [1] * len(trainers)), wanted)
