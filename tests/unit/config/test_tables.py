"""Settings as plain tables and back: what a run folder and kept updates remember."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fedmq.aggregator.settings import Encoding, Federation
from fedmq.algorithms import ALGORITHMS
from fedmq.codecs import parse
from fedmq.config import structure
from fedmq.config.kept import read, written
from fedmq.config.rules import SLOTS
from fedmq.config.tables import inline, tables
from fedmq.device.interface import ModuleName
from fedmq.errors import ConfigError, MisuseError
from fedmq.rules import PRESETS, Guard, Rule
from fedmq.simulate import FleetTable, SimulationSettings
from fedmq.simulate.play import WORLDS, world_settings


def through_json(value: Any) -> Any:  # noqa: ANN401 - plain data
    return json.loads(json.dumps(tables(value)))


@pytest.mark.parametrize("world", WORLDS)
def test_a_world_comes_back(world: str) -> None:
    settings = world_settings(world, {"codec": "int8 | lzma", "seed": 3})
    assert structure(through_json(settings), SimulationSettings) == settings


@pytest.mark.parametrize("name", PRESETS)
def test_a_federation_comes_back_with_all_that_its_arithmetic_depends_on(name: str) -> None:
    federation = Federation("f", PRESETS[name], encoding=Encoding(parse("safe"), parse("half"), 5))
    assert read(written(federation)) == federation


@pytest.mark.parametrize(
    "part", [made for slot, table in SLOTS.items() if slot is Guard for made in table.values()]
)
def test_a_part_comes_back_with_its_settings(part: type) -> None:
    rule = Rule(guards=(part(),))
    assert structure(through_json(rule), Rule) == rule


@pytest.mark.parametrize("kind", ALGORITHMS)
def test_an_algorithm_comes_back(kind: str) -> None:
    federation = Federation("f", algorithm=ALGORITHMS[kind]())
    assert read(written(federation)) == federation


def test_paths_of_modules_do_not_hang_on_the_folder_one_is_in() -> None:
    fleet = tables(FleetTable(ModuleName("mine.py")))
    assert fleet["module"] == str(Path("mine.py").absolute())
    assert tables(FleetTable(ModuleName("package.module")))["module"] == "package.module"
    assert tables(Path("x")) == str(Path("x").absolute())


def test_what_no_file_can_hold_is_named() -> None:
    with pytest.raises(MisuseError, match="object has no form"):
        tables(object())


def test_settings_of_another_fedmq_are_an_error_not_a_crash() -> None:
    text = written(Federation("f")).replace('"mean"', '"mein"')
    with pytest.raises(ConfigError, match="kept updates"):
        read(text)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({}, "{}"),
        ({"a": 1, "b": [1.5, "x", True]}, '{ a = 1, b = [1.5, "x", true] }'),
        ("größe\n", '"größe\\n"'),
    ],
)
def test_toml_on_one_line(value: object, text: str) -> None:
    assert inline(value) == text
