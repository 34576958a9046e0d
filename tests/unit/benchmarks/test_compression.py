"""What `benchmarks.compression` counts, and the networks that it trains."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import _air
from benchmarks._compression import Cache, Row, Trial
from benchmarks._compression_tables import Results, Setting, Way, most, shown
from benchmarks._downlink import Broadcast, Down
from benchmarks._networks import BareTrainer, Convolutional, Perceptron
from benchmarks.compression import Scope
from fedmq.trainers.numpy import Mlp, NumpyTrainer

SETTINGS = {"epochs": 2, "batch_size": 16}
SETTING = Setting("mlp", "0.5", 20, 3)
INT8 = Way("int8 | huffman")


def images(count: int) -> tuple[Any, Any]:
    random = np.random.default_rng(4)
    x = random.random((count, 28, 28, 1), np.float32) * (random.random((1, 28, 28, 1)) < 0.6)
    return x.astype(np.float32), random.integers(0, 10, count)


def test_the_bare_perceptron_learns_what_fedmqs_own_learns() -> None:
    x, y = images(37)
    network = Perceptron(hidden=16)
    bare = BareTrainer(network, network.take(x, y), network.take(x, y))
    ours = NumpyTrainer(Mlp(784, (16,), classes=10), x, y, held_out=(x, y))
    model = bare.initial()

    trained, wanted = (trainer.train(model, SETTINGS, seed=5) for trainer in (bare, ours))

    assert np.abs(trained.vector - wanted.vector).max() < 1e-5 < np.abs(trained.vector - model).max()
    assert (trained.steps, trained.examples, trained.reach) == (wanted.steps, wanted.examples, wanted.reach)
    assert bare.evaluate(model) == pytest.approx(ours.evaluate(model), abs=1e-5)


def test_the_convolutional_network_goes_down_its_gradient() -> None:
    x, y = images(6)
    network = Convolutional(channels=(3, 4), hidden=5)
    data = network.take(x, y)
    trainer = BareTrainer(network, data, data, seed=1)
    model = trainer.initial()
    weights = network.open(model, data)
    network.step(weights, data.x, data.y, np.float32(1))
    slope = model - network.close(weights, model, data)

    starts = np.cumsum([0, *network.layout.sizes])
    for start, stop in pairwise(starts.tolist()):  # each variable by itself
        along = np.zeros_like(model)
        along[start:stop] = slope[start:stop]
        length = np.linalg.norm(along)
        there, back = (trainer.evaluate(model + h * along / length)["loss"] for h in (2e-3, -2e-3))
        assert (there - back) / 4e-3 == pytest.approx(length, rel=0.1)


def test_devices_download_what_they_missed() -> None:
    layout = Perceptron(hidden=1).layout
    model = np.random.default_rng(0).standard_normal(layout.size).astype(np.float32)
    published = Broadcast.found(Down("int8", "float32"), layout, model, devices=2)
    first, delta = layout.size + 4 * len(layout.sizes), 4 * layout.size

    published.fetch([0])
    published.publish(model)
    published.publish(model)
    published.fetch([0])
    published.fetch([0, 1])

    assert published.nbytes == 2 * first + 4 * delta
    assert np.abs(published.replica - model).max() < 1e-4


def test_who_was_away_for_long_downloads_a_key_frame() -> None:
    layout = Perceptron(hidden=1).layout
    model = np.random.default_rng(0).standard_normal(layout.size).astype(np.float32)
    published = Broadcast.found(Down("float32", "float32", "int8", every=3), layout, model, devices=2)
    whole = layout.size + 4 * len(layout.sizes)
    published.fetch([0])
    published.nbytes = 0

    for _ in range(4):
        published.publish(model)
    published.fetch([0])

    assert published.keys == [(3, whole)]
    assert published.nbytes == whole + 2 * 4 * layout.size  # the frames after it
    assert 0 < np.abs(published.replica - model).max() < 1e-6 or np.array_equal(published.replica, model)


def test_without_a_downlink_everyone_is_sent_everything() -> None:
    layout = Perceptron(hidden=1).layout
    model = np.ones(layout.size, np.float32)
    published = Broadcast.found(None, layout, model, devices=2)

    published.publish(2 * model)
    published.fetch([0, 1])
    published.fetch([1])

    assert published.nbytes == 3 * 4 * layout.size
    assert np.array_equal(published.replica, 2 * model)


def row(trial: Trial, accuracy: list[float], each: int) -> Row:
    rounds = range(1, trial.rounds + 1)
    ups = [trial.asked * each * number for number in rounds]
    return Row(trial, accuracy, [1.0] * trial.rounds, ups, [2 * up for up in ups], 1000, 0.1)


def test_rows_are_kept_and_cut(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    trial = SETTING.trial(INT8, seed=3)
    cache.add(row(trial, [0.1, 0.2, 0.3], 10))

    again = Cache(tmp_path)
    shorter = Setting("mlp", "0.5", 20, 2).trial(INT8, seed=3)
    longer = Setting("mlp", "0.5", 20, 4).trial(INT8, seed=3)

    assert again.find(trial) == cache.find(trial)
    cut = again.find(shorter)
    assert cut is not None
    assert cut.accuracy == [0.1, 0.2]
    assert cut.per_update == 10
    assert again.missing([trial, shorter, longer, SETTING.trial(INT8, 4), longer]) == [
        longer,
        SETTING.trial(INT8, 4),
    ]
    assert again.missing([trial], again=True) == [trial]


def results() -> Results:
    cache = Cache()
    for seed, better in ((0, 0.01), (1, -0.002)):
        cache.add(row(SETTING.trial(Way(), seed), [0.5, 0.92, 0.9], 4000))
        cache.add(row(SETTING.trial(INT8, seed), [0.5 + better, 0.9 + better, 0.9 + better], 500))
    return Results(cache, range(2))


def test_a_way_is_compared_with_float32_on_the_same_seeds() -> None:
    found = results().compared(SETTING, INT8)

    assert found is not None
    assert (found.up, found.down) == (500, 1000)
    assert (found.fewer_up, found.fewer_down, found.fewer) == (8, 4, 8000 / 1500)
    assert found.gains == pytest.approx([1 - 2 / 3, -0.2 - 2 / 3])
    assert found.points == pytest.approx(-0.8 / 3)
    assert found.up_to_target is None  # one seed is never there
    reference = results().compared(SETTING, Way())
    assert reference is not None
    assert (reference.points, reference.up_to_target, reference.fewer_to_target) == (0, 20 * 8000, 1)


def test_a_way_that_lacks_a_row_is_compared_without_it_and_reaches_no_goal() -> None:
    found = results()
    assert found.compared(SETTING, Way("float16")) is None

    more = Results(found.cache, range(3))
    partial = more.compared(SETTING, INT8)

    assert partial is not None
    assert partial.gains == pytest.approx([1 - 2 / 3, -0.2 - 2 / 3])
    assert shown(partial).endswith("(2 of 3 seeds)")
    assert most(more, [SETTING], [INT8], "fewer_up") == 0 < most(found, [SETTING], [INT8], "fewer_up")


def test_a_way_under_attack_is_another_course() -> None:
    honest, attacked = (
        SETTING.trial(Way("int8", rule="median", attack=what), 1) for what in ("", "sign_flip")
    )
    assert (attacked.rule, attacked.attack, attacked.codec) == ("median", "sign_flip", "int8")
    assert honest.key != attacked.key
    assert Way("int8", rule="median", attack="sign_flip").reference.attack == "sign_flip"


def test_what_costs_too_much_saves_nothing() -> None:
    found = results()
    assert most(found, [SETTING], [Way(), INT8], "fewer_up") == 8
    assert most(found, [SETTING, Setting("mlp", "0.1", 20, 3)], [Way(), INT8], "fewer_up") == 0


def test_a_round_puts_more_on_the_air_than_it_carries() -> None:
    line = "int8 | huffman"
    assert _air.up(1000) - _air.up(900) == _air.down(1000, line, line) - _air.down(900, line, line) == 100
    assert 150 < _air.up(1000) - 1000 < 350
    assert 350 < _air.down(1000, line, line) - 1000 < 650
    assert _air.down(1000, line, line, frames=2) < _air.down(1000, line, line)


def test_one_course_is_repeated_by_its_seed() -> None:
    trial = next(iter(Scope.quick().trials()))
    short = Trial(**{**json.loads(trial.key), "rounds": 1})
    first, second = short.run(), short.run()

    assert (first.accuracy, first.loss, first.up, first.down) == (
        second.accuracy,
        second.loss,
        second.up,
        second.down,
    )
    assert first.accuracy[0] > 0.3
