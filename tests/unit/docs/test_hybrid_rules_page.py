"""docs/how-to/hybrid-rules.md: every world on it is run, the rest is loaded."""

from __future__ import annotations

import dataclasses
import doctest
import json
import re
from pathlib import Path

import numpy as np
import pytest

from fedmq.config import DeviceFile, load
from fedmq.rules import HYBRIDS, Part, Plateau, Stage
from fedmq.simulate.fleet import build_fleet
from fedmq.simulate.narration import judged
from fedmq.simulate.settings import SimulationSettings
from fedmq.simulate.simulation import Simulation
from fedmq.store.modelfile import load_model
from fedmq.transport.memory import MemoryBroker

PAGE = Path("docs/how-to/hybrid-rules.md")
BLOCKS = dict(
    re.findall(r'^```\w+ title="([\w.]+)"\n(.*?)^```$', PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
)
WORLDS = [name for name, text in BLOCKS.items() if "[fleet]" in text]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in BLOCKS.items():
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize("name", WORLDS)
async def test_a_world_runs_to_its_end(name: str, folder: Path) -> None:
    settings = load(folder / name, SimulationSettings)
    broker = MemoryBroker()
    simulation = Simulation(settings, build_fleet(settings.fleet), folder / "run")
    await simulation.run(lambda: broker)
    assert len(simulation.outcome.rows) == settings.stop.rounds
    assert all(row.accepted == settings.fleet.devices for row in simulation.outcome.rows)


async def test_the_clusters_are_the_two_minds(folder: Path) -> None:
    settings = load(folder / "by_cluster.toml", SimulationSettings)
    broker = MemoryBroker()
    simulation = Simulation(settings, build_fleet(settings.fleet), folder / "run")
    await simulation.run(lambda: broker)
    assert simulation.vector is not None
    trainers = list(simulation.fleet.trainers.values())
    first = simulation.vector[: trainers[0].layout.size]
    for number, trainer in enumerate(trainers, 1):
        agrees = trainer.evaluate(first)["accuracy"] > 0.5
        assert agrees is (number % 3 != 0)
    assert min(trainers[0].evaluate(first)["accuracy"], 1 - trainers[2].evaluate(first)["accuracy"]) > 0.8
    assert simulation.outcome.accuracy is not None
    assert simulation.outcome.accuracy > 0.8, "each device is judged by the model that it chose"
    clusters = simulation.outcome.clusters
    assert (clusters["cluster-0.devices"], clusters["cluster-1.devices"]) == (6, 3)
    assert judged(simulation.outcome).endswith("by the model it chose (cluster-0: 6, cluster-1: 3)")
    saved = [load_model(folder / "run" / f"model-cluster-{number}.fedmq") for number in (0, 1)]
    assert saved[1].facts["model"] == "cluster-1"
    np.testing.assert_array_equal(np.concatenate([each.vector for each in saved]), simulation.vector)


REFERENCE = Path("docs/reference/configuration.md").read_text("utf-8")
TABLES = {
    '`[[rule.parts]]`, with `kind = "by_layer"`': Part,
    '`[[rule.stages]]`, with `kind = "by_schedule"`': Stage,
    "`plateau`": Plateau,
}


@pytest.mark.parametrize("heading", TABLES)
def test_the_reference_has_every_key_with_its_default(heading: str) -> None:
    text = REFERENCE.split(f"\n#### {heading}\n", 1)[1].split("\n###", 1)[0]
    told = dict(re.findall(r"^\| `(\w+)` \| .*? \| (.*?) \| .+ \|$", text, re.MULTILINE))
    assert told == {field.name: default_of(field) for field in dataclasses.fields(TABLES[heading])}


def default_of(field: dataclasses.Field[object]) -> str:
    if field.default is dataclasses.MISSING:
        return "required"
    return "none" if field.default is None else f"`{json.dumps(field.default)}`"


def test_the_page_shows_every_hybrid() -> None:
    for kind in HYBRIDS:
        assert any(f'kind = "{kind}"' in BLOCKS[name] for name in WORLDS), kind


def test_the_device_s_file_loads(folder: Path) -> None:
    found = load(folder / "device.toml", DeviceFile)
    assert found.trainer.options["personal"] == ["head", "batch_normalization*"]


def test_what_is_typed_gives_what_is_shown() -> None:
    assert doctest.testfile(str(PAGE.resolve()), module_relative=False).failed == 0
