"""What tasks tell devices of an algorithm, and what configuration may say."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from typing import Any

import pytest

import fedmq.algorithms
from fedmq.aggregator.settings import Federation
from fedmq.algorithms import (
    ALGORITHMS,
    Algorithm,
    Differences,
    FedDyn,
    FedNova,
    FedProx,
    Plain,
    Scaffold,
    told,
)
from fedmq.config.structure import structure
from fedmq.config.tables import tables
from fedmq.descent import gain
from fedmq.errors import ConfigError, Refused
from fedmq.simulate.settings import SimulationSettings

MODULES = [f"fedmq.algorithms.{module.name}" for module in pkgutil.iter_modules(fedmq.algorithms.__path__)]
HEADINGS = ("Formula", "Source", "Cost", "Use it", "Configuration", "Example")


@pytest.mark.parametrize("name", [*MODULES, "fedmq.descent"])
def test_examples_in_docstrings_hold(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize("kind", ALGORITHMS)
def test_every_algorithm_says_what_it_is(kind: str) -> None:
    text = ALGORITHMS[kind].__doc__ or ""
    assert ALGORITHMS[kind].kind == kind
    for heading in HEADINGS:
        assert f"\n    {heading}" in text
    assert f'`kind = "{kind}"`' in text
    assert str(ALGORITHMS[kind]()).startswith(kind)


@pytest.mark.parametrize(
    ("algorithm", "device"),
    [
        (Plain(), Plain()),
        (FedProx(0.5), Plain()),  # the trainers' own setting says it all
        (FedNova(0.9), Plain()),
        (Scaffold(fleet=7), Scaffold()),
        (FedDyn(0.25, fleet=7), FedDyn(0.25)),
        (Differences(0.5, fleet=7), Differences(0.5)),
    ],
    ids=str,
)
def test_devices_make_of_the_task_what_they_need(algorithm: Algorithm, device: Algorithm) -> None:
    found, rest = told({"epochs": 2, **algorithm.telling})
    assert found == device
    assert rest == {"epochs": 2, **({"proximal": 0.5} if isinstance(algorithm, FedProx) else {})}
    assert found.extend.__func__ is algorithm.extend.__func__ or not isinstance(algorithm, Scaffold)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("training", "says"),
    [
        ({"algorithm": "moon"}, "algorithm 'moon', this device knows plain, fedprox"),
        ({"algorithm": 7}, "algorithm 7"),
        ({"algorithm": "feddyn", "algorithm.alfa": 0.1}, r"'alfa' of feddyn.*'alpha'"),
        (
            {"algorithm": "feddyn", "algorithm.zeal": 0.1},
            "'zeal' of feddyn, which this device does not know: update",
        ),
        ({"algorithm": "feddyn", "algorithm.alpha": -1.0}, "alpha -1.0"),
        ({"algorithm": "feddyn", "algorithm.alpha": "much"}, "cannot be used"),
        ({"algorithm.alpha": 0.1}, "'alpha' of plain"),
    ],
)
def test_what_a_device_does_not_know_it_declines(training: dict[str, Any], says: str) -> None:
    with pytest.raises(Refused, match=says):
        told(training)


def test_settings_whose_names_only_begin_alike_are_the_trainers() -> None:
    assert told({"algorithmic": 1}) == (Plain(), {"algorithmic": 1})


@pytest.mark.parametrize(
    ("kind", "options", "says"),
    [
        (FedProx, {"mu": 0.0}, "mu"),
        (FedProx, {"mu": float("inf")}, "mu"),
        (FedDyn, {"alpha": float("nan")}, "alpha"),
        (FedDyn, {"fleet": 0}, "fleet"),
        (Differences, {"rate": 0.0}, "rate"),
        (Differences, {"rate": 1.5}, "rate"),
        (Differences, {"fleet": 0}, "fleet"),
        (Scaffold, {"fleet": 0}, "fleet"),
        (FedNova, {"momentum": 1.0}, "momentum"),
        (FedNova, {"momentum": -0.1}, "momentum"),
        (FedNova, {"most_steps": 0}, "most_steps"),
    ],
)
def test_numbers_out_of_range_are_refused(kind: type, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        kind(**options)


@pytest.mark.parametrize("kind", ALGORITHMS)
@pytest.mark.parametrize("table", [False, True])
def test_configuration_names_them(kind: str, table: bool) -> None:  # noqa: FBT001
    given = {"fleet": {"module": "m"}, "algorithm": {"kind": kind} if table else kind}
    settings = structure(given, SimulationSettings)
    assert settings.algorithm == settings.federation.algorithm == ALGORITHMS[kind]()
    assert structure(tables(settings), SimulationSettings) == settings


def test_a_setting_that_the_algorithm_tells_as_well_is_refused() -> None:
    with pytest.raises(ConfigError, match="proximal"):
        Federation("f", training={"proximal": 0.1}, algorithm=FedProx())
    many = {f"setting-{number}": number for number in range(31)}
    with pytest.raises(ConfigError, match="33 training settings"):
        Federation("f", training=many, algorithm=FedDyn())
    assert len(Federation("f", training=many, algorithm=Scaffold()).telling) == 32


def test_texts_for_people() -> None:
    assert [
        str(Scaffold(3)),
        str(FedDyn(1, 3)),
        str(FedNova(0.5)),
        str(Differences()),
        str(Differences(0.5, 3)),
        str(FedNova().govern(Federation("f").rule)),
    ] == [
        "scaffold(fleet of 3)",
        "feddyn(1, fleet of 3)",
        "fednova(0.5)",
        "differences",
        "differences(0.5, fleet of 3)",
        "finite, examples(1..10000000), per step | by examples | mean | replace",
    ]


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.3, 0.9])
def test_gain_counts_how_often_a_constant_gradient_enters(momentum: float, nesterov: bool) -> None:  # noqa: FBT001
    way = velocity = 0.0
    for steps in range(1, 30):
        velocity = momentum * velocity + 1
        way += momentum * velocity + 1 if nesterov else velocity
        assert gain(steps, momentum, nesterov=nesterov) == pytest.approx(way)
