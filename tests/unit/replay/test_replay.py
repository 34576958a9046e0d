"""Replays of real runs: the recorded rule gives every model and figure again, others give curves of their own."""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from fedmq.aggregator.settings import Encoding
from fedmq.algorithms import Algorithm, Clusters, Plain, Scaffold
from fedmq.cli import main
from fedmq.codecs import parse
from fedmq.device.interface import ModuleName
from fedmq.protocol.policy import Policy, StopWhen
from fedmq.replay import Replay, open_record
from fedmq.replay.candidates import candidates
from fedmq.rules import preset
from fedmq.simulate import FleetTable, Simulation, SimulationSettings
from fedmq.simulate.fleet import build_fleet
from fedmq.store.archive import KeepUpdates
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
ROUNDS = 5


async def record(folder: Path, algorithm: Algorithm | None = None) -> Path:
    (folder / "digits.py").write_text(MODULE)
    settings = SimulationSettings(
        FleetTable(ModuleName(str(folder / "digits.py")), devices=3, trainer="numpy", seed=5),
        name="digits",
        rounds=Policy(min_devices=3, quorum=1, fraction=0.75, soft_deadline_s=60, hard_deadline_s=60),
        stop=StopWhen(rounds=ROUNDS),
        rule=preset("fedavgm"),
        encoding=Encoding(parse("safe"), parse("half"), 3, parse("half")),
        training={"epochs": 1, "learning_rate": 0.1},
        store=KeepUpdates(keep_updates=True),
        algorithm=algorithm or Plain(),
    )
    broker = MemoryBroker()
    await Simulation(settings, build_fleet(settings.fleet), folder / "run").run(lambda: broker)
    return folder / "run"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return asyncio.run(record(tmp_path_factory.mktemp("recorded")))


@pytest.fixture
def folder(run: Path, tmp_path: Path) -> Path:
    """A copy of the run that a test may spoil."""
    return shutil.copytree(run, tmp_path / "copy")


def fedmq(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result.output


def test_the_recorded_rule_gives_models_and_figures_again(run: Path, tmp_path: Path) -> None:
    fedmq("replay", run, "--rule", "average", "--out", tmp_path)
    data = json.loads((tmp_path / "replay.json").read_text())
    recorded, average = data["courses"]
    rows = [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]
    assert data["bit_for_bit"] is True
    assert len(rows) == len(recorded["points"]) == ROUNDS
    assert [row["accuracy"] for row in rows] == [
        point["evaluation"]["accuracy"] for point in recorded["points"]
    ]
    assert [row["accepted"] for row in rows] == [point["updates"] for point in recorded["points"]]
    assert all(point["same"] and point["distance"] == 0 for point in recorded["points"])
    assert not any(point["same"] for point in average["points"][1:])
    assert all(point["distance"] > 0 for point in average["points"][1:])
    assert (tmp_path / "replay.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_rule_by_name_is_the_recorded_one(run: Path) -> None:
    replay = Replay(open_record(run).recording, candidates(["fedavgm"]))
    assert all(point.same for points in replay.run() for point in points)


def test_each_round_can_begin_with_the_recorded_model(run: Path, tmp_path: Path) -> None:
    rule = tmp_path / "still.toml"
    rule.write_text('[rule]\nstep = { kind = "replace", rate = 1e-9 }\n')
    data = json.loads(fedmq("replay", run, "--rule", rule, "--each-round", "--json", "--out", tmp_path))
    recorded, still = (course["points"] for course in data["courses"])
    assert data["each_round"]
    assert all(point["same"] for point in recorded)
    for before, after in itertools.pairwise(range(len(recorded))):
        assert still[after]["moved"] == pytest.approx(recorded[before]["moved"], rel=1e-6)
        assert still[after]["distance"] > 0


async def test_clusters_are_judged_as_in_the_run(tmp_path: Path) -> None:
    run = await record(tmp_path, Clusters(models=2, rounds=1))
    told = json.loads(fedmq("replay", run, "--json").splitlines()[-1])
    rows = [json.loads(text) for text in (run / "rounds.jsonl").read_text().splitlines()]
    assert rows[-1]["clusters"]
    assert [point["evaluation"]["accuracy"] for point in told["courses"][0]["points"]] == [
        row["accuracy"] for row in rows
    ]


async def test_an_algorithm_s_run_is_given_again(tmp_path: Path) -> None:
    run = await record(tmp_path, Scaffold())
    replay = Replay(open_record(run).recording, candidates(["average"]))
    list(replay.run())
    recorded, average = replay.courses
    assert recorded.faithful
    assert not average.faithful


def test_a_person_sees_a_table_and_the_caveat(run: Path, tmp_path: Path) -> None:
    told = fedmq("replay", run, "--rule", "average", "--rule", "fedadam", "--out", tmp_path)
    assert "recorded      average      fedadam" in told
    assert f"each of the run's {ROUNDS} models again, bit for bit" in told
    assert "devices are not retrained" in told
    assert "%" in told
    assert f"{tmp_path}/: replay.json, replay.png" in told


def test_a_program_gets_one_object(run: Path, tmp_path: Path) -> None:
    data = json.loads(fedmq("replay", run, "--json", "--out", tmp_path))
    assert [course["name"] for course in data["courses"]] == ["recorded"]


def test_a_service_s_folder_has_distances_instead_of_accuracy(run: Path, tmp_path: Path) -> None:
    told = fedmq("replay", run / "aggregator", "--rule", "average", "--out", tmp_path)
    assert "L2 distance from the recorded model" in told
    assert "%" not in told
    assert "bit for bit" in told
    assert (tmp_path / "replay.png").exists()


def test_rules_come_from_files_too(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "clipped.toml"
    file.write_text('[rule]\npreset = "fedavg"\nguards = ["finite", { kind = "norm_bound", limit = 1e-6 }]\n')
    told = fedmq("replay", run, "--rule", file, "--rule", file, "--out", tmp_path)
    assert "clipped 2" in told
    assert "clipped stays: no update was taken" in told
    assert "clipped refuses 2: update" in told


def test_a_round_that_a_rule_cannot_finish_leaves_its_model(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "wild.toml"
    file.write_text('[rule]\nstep = { kind = "replace", rate = 1e300 }\n')
    told = fedmq("replay", run, "--rule", file, "--out", tmp_path)
    assert told.count("wild stays: step would leave") == ROUNDS
    (_, wild) = json.loads((tmp_path / "replay.json").read_text())["courses"]
    assert [point["moved"] for point in wild["points"]] == [0] * ROUNDS
    assert [point["version"] for point in wild["points"]] == list(range(2, ROUNDS + 2))


@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        ("fedagv", "did you mean 'fedavg'?"),
        ("nothing.toml", "cannot read a rule from"),
        ("empty.toml", "has no [rule] table"),
        ("broken.toml", "cannot read a rule from"),
        ("wrong.toml", "line 2"),
    ],
)
def test_a_wrong_rule_gets_one_sentence(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: str, sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.toml").write_text("[federation]\n")
    (tmp_path / "broken.toml").write_text("[rule\n")
    (tmp_path / "wrong.toml").write_text('[rule]\nreduce = "meen"\n')
    told = fedmq("replay", run, "--rule", rule, code=1)
    assert sentence in told
    assert told.count("\n") == 1


def test_a_wrong_run_gets_one_sentence(folder: Path, tmp_path: Path) -> None:
    assert "is no folder" in fedmq("replay", tmp_path / "nowhere", code=1)
    (tmp_path / "empty").mkdir()
    assert "--keep-updates" in fedmq("replay", tmp_path / "empty", code=1)
    (folder / "settings.json").write_text("{")
    assert "not valid JSON" in fedmq("replay", folder, code=1)


def test_a_damaged_round_is_named(folder: Path) -> None:
    path = folder / "aggregator" / "updates" / "round-0000000003.updates"
    path.write_bytes(path.read_bytes()[:-100])
    told = fedmq("replay", folder, code=1)
    assert "round-0000000003.updates holds 2 of 3 updates: it is damaged" in told


def test_an_archive_without_a_round_is_named(folder: Path) -> None:
    for path in (folder / "aggregator" / "updates").glob("*.updates"):
        path.unlink()
    assert "holds no round yet" in fedmq("replay", folder, code=1)


def test_other_bits_are_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on another processor, or with another version."""
    monkeypatch.setattr("fedmq.replay.course.fingerprint", lambda _: b"another")
    assert "other bits than the run had from round 1 on" in fedmq("replay", folder)
