"""Clusters, both halves: a fleet of two minds learns two models, and a new device finds its own."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from fedmq.algorithms import Algorithm, Clusters, told
from fedmq.errors import ConfigError, Refused
from fedmq.rules import Claim, Memory, preset
from fedmq.rules.hybrids import ByCluster
from fedmq.trainers.numpy import Mlp, NumpyTrainer
from fedmq.vectors import Layout, Variable, Vector

MODEL = Mlp(5, classes=2)
SETTINGS = {"epochs": 2, "batch_size": 8, "learning_rate": 0.5}


def device(seed: int, *, contrary: bool) -> NumpyTrainer:
    """A device that calls positive what others call negative, or not."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((80, 5))
    y = ((x @ np.arange(1, 6) > 0) ^ contrary).astype(int)
    return NumpyTrainer(MODEL, x[:60], y[:60], held_out=(x[60:], y[60:]))


def settled(algorithm: Algorithm, model: Vector, trainer: NumpyTrainer) -> Algorithm:
    """The algorithm as a device has it: from what the task tells, once it has looked at the model."""
    found, rest = told(algorithm.telling)
    assert rest == {}
    return found.settled(model, trainer.layout, trainer.evaluate)


def learned(algorithm: Algorithm, fleet: list[NumpyTrainer], rounds: int) -> Vector:
    layout = fleet[0].layout
    extended = algorithm.extend(layout)
    rule, memory = (
        algorithm.govern(preset("fedavg")),
        dict[str, np.ndarray[tuple[int], np.dtype[np.float64]]](),
    )
    model = np.zeros(extended.size, np.float32)
    kept: Memory = memory
    for number in range(rounds):
        fold = rule.zero(extended, kept)
        for trainer in fleet:
            half = settled(algorithm, model, trainer)
            start = half.start(model, layout)
            trained = trainer.train(start, SETTINGS, seed=number)
            delta = half.answer(model, trained.vector, trained.reach, layout)
            rule.absorb(fold, delta, Claim(trained.examples, trained.steps, trained.metrics))
        outcome = rule.finish(fold, model)
        model, kept = outcome.model, outcome.memory
    return model


def accuracy(algorithm: Algorithm, model: Vector, trainer: NumpyTrainer) -> float:
    return trainer.evaluate(settled(algorithm, model, trainer).start(model, trainer.layout))["accuracy"]


FLEET = [device(seed, contrary=seed % 3 == 0) for seed in range(9)]


def test_two_minds_get_a_model_each_where_one_model_cannot_serve_both() -> None:
    one, two = Clusters(models=1), Clusters(models=2, rounds=2)
    compromise, apart = learned(one, FLEET, 6), learned(two, FLEET, 6)
    assert np.mean([accuracy(one, compromise, trainer) for trainer in FLEET]) < 0.75
    assert min(accuracy(two, apart, trainer) for trainer in FLEET) > 0.85


def test_a_new_device_finds_the_model_that_fits_it() -> None:
    two = Clusters(models=2, rounds=1)
    model = learned(two, FLEET, 5)
    for contrary in (False, True):
        assert accuracy(two, model, device(77, contrary=contrary)) > 0.85


def test_models_are_taken_apart_by_name_once_there_are_several() -> None:
    two, layout = Clusters(models=2), FLEET[0].layout
    model = np.zeros(two.extend(layout).size, np.float32)
    assert list(two.apart(model, layout)) == [""]
    model[-1] = 1
    assert [(name, own.sum()) for name, own in two.apart(model, layout).items()] == [
        ("cluster-0", 0),
        ("cluster-1", 1),
    ]
    np.testing.assert_array_equal(two.shown(model, layout), model)


def test_no_more_models_than_a_device_holds() -> None:
    Clusters(models=16)
    with pytest.raises(ConfigError, match="models 17, wants 16 at most"):
        Clusters(models=17)


def test_before_the_split_nobody_looks() -> None:
    def never(_: Vector) -> Mapping[str, float]:
        raise AssertionError

    layout = FLEET[0].layout
    model = np.zeros(3 * layout.size, np.float32)
    model[: layout.size] = 1
    half = Clusters(models=3).settled(model, layout, never)
    np.testing.assert_array_equal(half.start(model, layout), 1)


PLAIN = Layout((Variable("w", (2,)),))
THREE = np.array([1, 1, 2, 2, 3, 3], np.float32)


def test_the_lowest_loss_is_chosen_and_its_place_alone_changes() -> None:
    losses = {1.0: {"loss": 0.5}, 2.0: {"loss": 0.2}, 3.0: {"accuracy": 0.9}}
    half = Clusters(models=3).settled(THREE, PLAIN, lambda model: losses[float(model[0])])
    np.testing.assert_array_equal(half.start(THREE, PLAIN), 2)
    delta = half.answer(THREE, np.full(2, 7, np.float32), None, PLAIN)
    assert delta.tolist() == [0, 0, 5, 5, 0, 0]
    assert half.extend(PLAIN).size == 6


def test_a_device_that_holds_nothing_back_cannot_choose() -> None:
    with pytest.raises(Refused, match="this device holds none back"):
        Clusters(models=3).settled(THREE, PLAIN, lambda _: {})


def test_the_rule_is_governed_as_it_is() -> None:
    assert Clusters(3, 4, 0.5).govern(preset("fedavgm")) == ByCluster(preset("fedavgm"), 3, 4, 0.5)


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="clusters has models 0"):
        Clusters(models=0)
