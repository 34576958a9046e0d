"""Simulated fleets: a seed repeats the run, the folder tells the story, baselines stand beside it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from fedmq.aggregator.settings import Encoding
from fedmq.codecs import parse
from fedmq.config import structure
from fedmq.device.interface import ModuleName
from fedmq.errors import ConfigError
from fedmq.protocol.policy import Policy, StopWhen
from fedmq.protocol.quantities import spell_bytes as size
from fedmq.simulate import FleetTable, Simulation, SimulationSettings
from fedmq.simulate.fleet import build_fleet, build_trainer
from fedmq.simulate.narration import line
from fedmq.simulate.play import play, world_settings
from fedmq.simulate.runfolder import RoundRow
from fedmq.store.modelfile import load_model
from fedmq.transport.memory import MemoryBroker

if TYPE_CHECKING:
    from pathlib import Path

MODULE = """
from fedmq.datasets import mnist
from fedmq.trainers.numpy import Mlp

def model():
    return Mlp(784, (8,), classes=10)

def data(device):
    digits = mnist()
    number = int(device.split("-")[1])
    rows = slice(50 * number, 50 * number + 50)
    return (digits.x[rows].reshape(50, -1), digits.y[rows]), (digits.x_test[:50].reshape(50, -1), digits.y_test[:50])
"""


@pytest.fixture
def settings(tmp_path: Path) -> SimulationSettings:
    (tmp_path / "digits.py").write_text(MODULE)
    fleet = FleetTable(ModuleName(str(tmp_path / "digits.py")), devices=4, trainer="numpy", seed=5)
    policy = Policy(min_devices=4, quorum=4, fraction=0.75, soft_deadline_s=60, hard_deadline_s=60)
    policy = replace(policy, quorum=1)
    return SimulationSettings(
        fleet,
        name="digits",
        rounds=policy,
        stop=StopWhen(rounds=4),
        encoding=Encoding(up=parse("safe")),
        training={"epochs": 2, "learning_rate": 0.1},
    )


async def simulate(settings: SimulationSettings, folder: Path) -> Simulation:
    broker = MemoryBroker()
    simulation = Simulation(settings, build_fleet(settings.fleet), folder)
    await simulation.run(lambda: broker)
    return simulation


async def test_a_seed_repeats_the_run_to_the_last_bit(settings: SimulationSettings, tmp_path: Path) -> None:
    first, second = [await simulate(settings, tmp_path / name) for name in ("one", "two")]
    assert first.vector is not None
    assert second.vector is not None
    assert first.vector.tobytes() == second.vector.tobytes()
    other = replace(settings, fleet=replace(settings.fleet, seed=6))
    third = await simulate(other, tmp_path / "three")
    assert third.vector is not None
    assert third.vector.tobytes() != first.vector.tobytes()


async def test_the_run_folder_tells_the_story(settings: SimulationSettings, tmp_path: Path) -> None:
    simulation = await simulate(settings, tmp_path / "run")
    simulation.compare(lambda _: None)
    rows = [json.loads(text) for text in (tmp_path / "run" / "rounds.jsonl").read_text().splitlines()]
    assert [row["round"] for row in rows] == [1, 2, 3, 4]
    assert all(row["bytes_up"] > 0 and row["bytes_down"] > 0 for row in rows)
    assert rows[-1]["accuracy"] == simulation.outcome.accuracy
    summary = simulation.outcome.summary()
    assert {"accuracy", "local_only", "pooled"} <= set(summary)
    asked = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert asked["encoding"]["up"] == "int8 | huffman"
    assert structure(asked, SimulationSettings) == settings, (
        "the run can be repeated from what it says of itself"
    )
    stored = load_model(tmp_path / "run" / "model.fedmq")
    np.testing.assert_array_equal(stored.vector, simulation.vector)
    assert stored.facts["version"] == 5


def test_play_tells_a_person_and_draws(
    settings: SimulationSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    play(settings, tmp_path / "run", broker=None, as_json=False)
    told = capsys.readouterr().out
    assert "4 devices" in told
    assert "broker: a private" in told
    assert "    4/4 " in told
    assert "pooled" in told
    assert (tmp_path / "run" / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_play_tells_a_machine(
    settings: SimulationSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quiet = replace(settings, fleet=replace(settings.fleet, baselines=False))
    play(quiet, tmp_path / "run", broker=None, as_json=True)
    lines = [json.loads(text) for text in capsys.readouterr().out.splitlines()]
    assert [row.get("round") for row in lines[:-1]] == [1, 2, 3, 4]
    assert "pooled" not in lines[-1]


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"devices": 4}, lambda s: (s.fleet.devices, s.rounds.min_devices, s.rounds.quorum) == (4, 4, 4)),
        ({"rounds": 7}, lambda s: s.stop.rounds == 7),
        ({"rule": "average"}, lambda s: str(s.rule).startswith("finite") and "uniform" in str(s.rule)),
        ({"epochs": 9}, lambda s: s.training["epochs"] == 9),
        ({"keep_updates": True}, lambda s: s.store.keep_updates),
        ({"codec": "float16"}, lambda s: str(s.encoding.up) == "float16"),
        (
            {"seed": 3, "partition": "iid", "baselines": False},
            lambda s: not s.fleet.baselines and s.fleet.seed == 3,
        ),
    ],
)
def test_the_command_line_changes_a_world(changes: dict[str, object], check: object) -> None:
    assert check(world_settings("smartwatch", changes))  # type: ignore[operator]


def test_a_rule_may_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('[rule]\nstep = "adam"\n')
    assert "adam" in str(world_settings("smartwatch", {"rule": str(tmp_path / "mine.toml")}).rule)


def test_a_partition_needs_data_to_deal_out(settings: SimulationSettings, tmp_path: Path) -> None:
    (tmp_path / "w.toml").write_text('[fleet]\nmodule = "digits.py"\n')
    with pytest.raises(ConfigError, match="--partition deals out"):
        world_settings(str(tmp_path / "w.toml"), {"partition": "iid"})


@pytest.mark.parametrize("kind", ["nothing.at.all", "json:nothing"])
def test_a_trainer_that_is_not_there(kind: str) -> None:
    with pytest.raises(ConfigError):
        build_trainer(kind)


def test_too_many_devices() -> None:
    with pytest.raises(ConfigError, match="from 1 to 10000"):
        FleetTable(ModuleName("x"), devices=0)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (344_118, "344 kB"), (2.1e6, "2.1 MB"), (3e9, "3.0 GB")],
)
def test_sizes_are_readable(count: float, text: str) -> None:
    assert size(count) == text


def test_a_line_says_what_went_wrong() -> None:
    row = RoundRow(3, 4, "abandoned: too few", None, None, 5, 1, 2, 10, 20, 1.5, {"not finite": 2})
    assert line(row, 0).endswith("abandoned: too few; 2 refused: not finite")
