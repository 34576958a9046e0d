"""devices/simulated: each world runs from its file, with a real broker and real training."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fedmq.cli import main
from fedmq.cli.simulation import simulate as command_line
from fedmq.config import load
from fedmq.simulate.play import world_settings
from fedmq.simulate.settings import SimulationSettings
from fedmq.trainers.module import load_user_module

WORLDS = Path(__file__).parents[3] / "devices/simulated"
README = WORLDS / "README.md"
pytestmark = pytest.mark.broker


def simulate(world: str, folder: Path, *arguments: str) -> list[dict[str, float]]:
    """Run a world shortened to a few rounds, and return its rounds."""
    command = [
        sys.executable,
        "-m",
        "fedmq.cli",
        "simulate",
        str(WORLDS / world),
        "--out",
        str(folder / "run"),
    ]
    done = subprocess.run(
        [*command, "--no-baselines", *arguments], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in (folder / "run/rounds.jsonl").read_text().splitlines()]


def test_the_world_without_tensorflow_learns(tmp_path: Path) -> None:
    rounds = simulate("without_tensorflow.toml", tmp_path, "--rounds", "3")
    assert len(rounds) == 3
    assert rounds[-1]["accuracy"] > 0.6  # one in seven by guessing; each device alone 0.62 after thirty


@pytest.mark.slow
def test_a_change_from_the_handout_works_too(tmp_path: Path) -> None:
    arguments = ("--rounds", "1", "--partition", "dirichlet(0.1)", "--rule", "average", "--codec", "safe")
    (only,) = simulate("without_tensorflow.toml", tmp_path, *arguments)
    assert only["bytes_up"] < 250_000  # 780 kB as float32


@pytest.mark.slow
@pytest.mark.keras
@pytest.mark.timeout(300)
def test_the_world_with_tensorflow_learns(tmp_path: Path) -> None:
    rounds = simulate("smartwatch.toml", tmp_path, "--rounds", "4")
    assert rounds[-1]["accuracy"] > 0.7


@pytest.mark.parametrize(
    "world", ["city", *(pytest.param(name, marks=pytest.mark.slow) for name in ("farm", "phones", "hostile"))]
)
def test_a_world_in_virtual_time_runs(world: str, tmp_path: Path) -> None:
    rounds = simulate(f"{world}.toml", tmp_path, "--rounds", "2")
    assert [row["accepted"] >= 10 for row in rounds] == [True, True]
    assert all(row["hours"] > 0 for row in rounds)


@pytest.mark.slow
def test_the_handout_s_answers_are_those_of_its_worlds(tmp_path: Path) -> None:
    """The table of worlds, and the first answer: what a mean and a trimmed mean come to under attack."""
    text = README.read_text(encoding="utf-8")
    told = dict(re.findall(r"^\| `(\w+)\.toml` \|[^|]*\| ([\d.]+) % \|", text, re.MULTILINE))
    assert set(told) == {"city", "farm", "phones", "hostile"}
    for world, accuracy in told.items():
        rounds = simulate(f"{world}.toml", tmp_path / world)
        assert rounds[-1]["accuracy"] == pytest.approx(float(accuracy) / 100, abs=0.01)
    trimmed = simulate("hostile.toml", tmp_path / "trimmed", "--rule", "trimmed")
    assert trimmed[-1]["accuracy"] == pytest.approx(0.818, abs=0.01)


def test_every_command_of_the_handout_is_one_that_fedmq_takes() -> None:
    commands = re.findall(
        r"(?:^|`)fedmq simulate ([^`\n]*)", README.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert len(commands) > 12
    fedmq = main.make_context(
        "fedmq", ["simulate"]
    )  # without it, click would remember another way to ask for help
    for command in commands:
        words = shlex.split(command.removesuffix(" &"))
        given = command_line.make_context("simulate", words, parent=fedmq).params
        assert world_settings(str(WORLDS / given.pop("world")), given).fleet.devices >= 10


def test_both_worlds_are_one_world_but_for_the_engine() -> None:
    keras, numpy = (
        load(WORLDS / f"{name}.toml", SimulationSettings) for name in ("smartwatch", "without_tensorflow")
    )
    assert (keras.fleet.trainer, numpy.fleet.trainer) == ("keras", "numpy")
    assert keras.rounds == numpy.rounds
    assert (keras.name, keras.rule, keras.training) == (numpy.name, numpy.rule, numpy.training)


@pytest.mark.parametrize("module", ["model.py", "model_numpy.py"])
def test_the_modules_own_data_is_one_person_s(module: str) -> None:
    user = load_user_module(str(WORLDS / module))
    first, last = user.data("device-01"), user.data("device-10")
    assert isinstance(first.train, tuple)
    assert isinstance(last.train, tuple)
    assert first.train[0].shape[1:] == (100, 6)
    assert not np.array_equal(first.train[0][:10], last.train[0][:10])
