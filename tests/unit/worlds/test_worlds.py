"""Worlds as a whole: presets, TOML, speeds, links, data and who attacks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from fedmq.config import structure
from fedmq.config.tables import tables
from fedmq.errors import ConfigError
from fedmq.worlds import (
    WORLD_PURPOSES,
    WORLDS,
    Attackers,
    Battery,
    Connection,
    Data,
    Hardware,
    Population,
    Shares,
    World,
    world,
)
from fedmq.worlds.attacks import SignFlip
from fedmq.worlds.availability import DAY_S

LABELS = np.repeat(np.arange(10), 100)


@dataclass(frozen=True, slots=True)
class File:
    world: World


def read(table: Any) -> World:  # noqa: ANN401 - whatever TOML holds
    return structure({"world": table}, File).world


@pytest.mark.parametrize("name", WORLDS)
def test_every_preset_comes_back_from_toml(name: str) -> None:
    assert WORLD_PURPOSES[name].endswith(".")
    assert read(name) == read({"preset": name}) == WORLDS[name]
    assert read(tables(WORLDS[name])) == WORLDS[name]


def test_single_keys_change_a_preset() -> None:
    changed = read(
        {"preset": "hostile", "link": {"latency_s": 2}, "attackers": {"attack": {"kind": "sign_flip"}}}
    )
    assert changed.link == Connection(2.0, 5_000.0, 20_000.0, 0.8, 6.0)
    assert changed.attackers == Attackers(0.2, SignFlip())
    assert changed.availability == WORLDS["hostile"].availability
    assert read({"battery": {"level": 0.5}}) == World(battery=Battery(level=0.5))


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ("city-lt", "there is no world 'city-lt': did you mean 'city-lte'"),
        ("zzz", "there is no world 'zzz': known are lab, city-lte"),
        (3, "is 3; a preset's name or a table was wanted"),
        ({"preset": 3}, "preset is 3; a text in quotes was wanted"),
        ({"lnk": {}}, r"world.lnk is unknown here \(did you mean 'link'\?\)"),
        ({"link": {"latencies": 1}}, r"world.link.latencies is unknown here \(did you mean 'latency_s'\?\)"),
        ({"link": 3}, "world.link is 3; a table was wanted"),
        ({"attackers": {"attack": "sign_flop"}}, r"kind 'sign_flop'; .* \(did you mean 'sign_flip'\?\)"),
        ({"attackers": {"share": 2}}, "share is 2.0; it must be a share"),
        ({"hardware": {"speeds": []}}, "speeds is empty"),
        ({"hardware": {"speeds": [0]}}, "a speed is 0.0; it must be above 0"),
        ({"hardware": {"spread": -1}}, "spread is -1.0; it must be 0 or more"),
        ({"link": {"up_kbit_s": 0}}, "up_kbit_s is 0.0; it must be above 0"),
        ({"battery": {"level": 7}}, "level is 7.0; it must be a share"),
        ({"data": {"examples": 0}}, "examples is 0.0; it must be from 1"),
        ({"data": {"season_days": 3}}, "say turnover_days too"),
    ],
)
def test_what_cannot_be_is_named(table: Any, complaint: str) -> None:  # noqa: ANN401
    with pytest.raises(ConfigError, match=complaint):
        read(table)


def test_a_name_finds_its_world() -> None:
    assert world("lab") == World()


# --- speed and links --------------------------------------------------------------------------------------------------


def test_training_takes_as_long_as_its_examples_and_hardware() -> None:
    plain = Population(World(hardware=Hardware(0.5, setup_s=2.0)))
    assert plain.training_s(0, 10) == plain.training_s(9, 10) == 7.0
    classes = Population(World(hardware=Hardware(1.0, speeds=(1.0, 4.0))))
    assert {classes.training_s(device, 8) for device in range(20)} == {8.0, 2.0}
    drawn = Population(World(hardware=Hardware(1.0, spread=0.5, noise=0.1)))
    logs = np.log([drawn.training_s(device, 1.0) for device in range(3000)])
    assert logs.std() == pytest.approx(math.hypot(0.5, 0.1), rel=0.1)
    assert abs(logs.mean()) < 0.05
    assert drawn.training_s(1, 5, 1) != drawn.training_s(1, 5, 2)
    assert drawn.training_s(1, 5, 1) == drawn.training_s(1, 5, 1)


def test_bytes_take_their_time() -> None:
    plain = Population(World(link=Connection(0.5, up_kbit_s=8.0, down_kbit_s=80.0)))
    assert plain.upload_s(0, 1000) == 1.5
    assert plain.download_s(0, 1000) == 0.6
    spread = Population(World(link=Connection(0.0, spread=0.5)))
    times = [spread.upload_s(device, 10**6) for device in range(2000)]
    assert np.median(times) == pytest.approx(0.08, rel=0.1)
    assert np.std(np.log(times)) == pytest.approx(0.5, rel=0.1)


def test_links_break_as_often_as_asked() -> None:
    population = Population(World(link=Connection(cuts_per_hour=6.0, reconnect_s=10.0)))
    time, cuts = 0.0, 0
    while (time := population.next_cut(4, time)) < 100 * 3600:
        cuts += 1
        assert 5.0 < population.reconnected(4, time) - time < 15.0
        assert population.next_cut(4, time - 1e-3) == time
    assert cuts == pytest.approx(600, abs=2)
    assert Population(World()).next_cut(0, 1.0) == math.inf


def test_attackers_are_as_many_as_asked() -> None:
    population = Population(World(attackers=Attackers(0.3)))
    assert np.mean([population.attacks(device) for device in range(3000)]) == pytest.approx(0.3, abs=0.03)
    assert not Population(World()).attacks(0)


# --- data -------------------------------------------------------------------------------------------------------------


def mixture(shares: Shares, device: int, time: float) -> np.ndarray:
    return np.bincount(LABELS[shares.rows(device, time)], minlength=10) / shares.count(device)


def test_shares_repeat_and_differ() -> None:
    shares = Shares(Data(), LABELS, 1)
    assert (
        shares.rows(3, 0.0).tolist()
        == shares.rows(3, 9e9).tolist()
        == Shares(Data(), LABELS, 1).rows(3, 0.0).tolist()
    )
    assert shares.rows(3, 0.0).tolist() != shares.rows(4, 0.0).tolist()
    assert shares.rows(3, 0.0).tolist() != Shares(Data(), LABELS, 2).rows(3, 0.0).tolist()
    assert len(shares.rows(3, 0.0)) == 50


def test_quantities_are_skewed_as_asked() -> None:
    shares = Shares(Data(examples=100, spread=0.7), LABELS, 1)
    counts = [shares.count(device) for device in range(2000)]
    assert np.median(counts) == pytest.approx(100, rel=0.08)
    assert np.log(counts).std() == pytest.approx(0.7, rel=0.1)


def test_mixtures_are_as_alike_as_asked() -> None:
    def largest(labels: float) -> float:
        shares = Shares(Data(labels=labels), LABELS, 1)
        return float(np.mean([mixture(shares, device, 0.0).max() for device in range(100)]))

    assert largest(100.0) < 0.25
    assert largest(0.1) > 0.6
    even = Shares(Data(labels=100.0), LABELS, 1)
    everyone = np.bincount(LABELS[np.concatenate([even.rows(device, 0.0) for device in range(200)])])
    assert everyone.min() > 800


def test_examples_turn_over_one_by_one() -> None:
    shares = Shares(Data(examples=400, turnover_days=10), LABELS, 1)
    before, day, fortnight = (shares.rows(2, days * DAY_S) for days in (5, 6, 19))
    assert np.mean(before != day) == pytest.approx(0.1, abs=0.05)
    assert np.mean(before != fortnight) > 0.95
    assert np.abs(mixture(shares, 2, 0.0) - mixture(shares, 2, 20 * DAY_S)).sum() < 0.35


def test_mixtures_drift_with_the_seasons() -> None:
    shares = Shares(Data(examples=400, labels=0.3, turnover_days=1, season_days=10), LABELS, 1)
    moves = [np.abs(mixture(shares, 2, 0.0) - mixture(shares, 2, days * DAY_S)).sum() for days in (0, 3, 11)]
    assert moves[0] == 0.0 < moves[1] < moves[2]
    assert moves[2] > 0.7
