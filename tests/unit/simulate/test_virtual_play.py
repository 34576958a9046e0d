"""`fedmq simulate` in virtual time: what it takes, what it tells, and the folder that it leaves."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from fedmq.cli import main
from fedmq.config import load
from fedmq.errors import ConfigError
from fedmq.simulate import FleetTable, SimulationSettings
from fedmq.simulate.play import play, world_settings
from fedmq.simulate.virtual.play import line, name_of, spell_time
from fedmq.simulate.virtual.rows import VirtualRow
from fedmq.store.archive import KeepUpdates
from fedmq.store.modelfile import load_model
from fedmq.worlds import WORLDS, Battery, World

if TYPE_CHECKING:
    from pathlib import Path

TOML = """
name = "town"
[fleet]
module = "digits.py"
data = "mnist"
devices = 40
trainer = "numpy"
[rounds]
fraction = 0.2
min_devices = 4
soft_deadline_s = 600
hard_deadline_s = 1800
[stop]
rounds = 3
[world]
preset = "city-lte"
battery = { daily_j = 50 }
"""
MODULE = """
from fedmq.trainers.numpy import Mlp

def model():
    return Mlp(784, (), classes=10)

def data(device):
    raise AssertionError
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "digits.py").write_text(MODULE)
    (tmp_path / "town.toml").write_text(TOML)
    return tmp_path / "town.toml"


def test_a_run_is_told_of_and_leaves_a_folder(path: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = CliRunner().invoke(main, ["simulate", str(path), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "world: city-lte but for battery, in virtual time" in done.output
    assert "40 devices, data: drawn from mnist" in done.output
    assert "ended: 3 rounds are done" in done.output
    rows = [json.loads(text) for text in (out / "rounds.jsonl").read_text().splitlines()]
    summary = json.loads((out / "summary.json").read_text())
    assert len(rows) == summary["rounds"] == 3
    assert summary["hours"] == pytest.approx(rows[-1]["hours"], abs=1e-3)
    assert summary["trainings"] >= sum(row["accepted"] for row in rows) > 0
    assert rows[0]["joules"] > 0
    assert rows[0]["devices_s"] == pytest.approx(rows[0]["accepted"] / rows[0]["wall_s"], rel=0.01)
    assert rows[0]["memory_mb"] > 20
    assert load_model(out / "model.fedmq").facts["version"] == 4
    assert (out / "plot.png").stat().st_size > 10_000
    assert load(path, SimulationSettings).world is not None


def test_json_is_one_object_a_line(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedmq.simulate.virtual.play._draw", lambda *_: [])
    options = [
        "--json",
        "--world",
        "lab",
        "--days",
        "1",
        "--rounds",
        "2",
        "--partition",
        "iid",
        "--out",
        str(tmp_path / "r"),
    ]
    done = CliRunner().invoke(main, ["simulate", str(path), *options])
    assert done.exit_code == 0, done.output
    *rows, summary = map(json.loads, done.output.splitlines())
    assert [row["round"] for row in rows] == [1, 2]
    assert summary["reason"] == "2 rounds are done"


def test_the_command_line_chooses_the_world(path: Path) -> None:
    assert world_settings(str(path), {"in_world": "hostile", "days": 2.0}).world == WORLDS["hostile"]
    kept = world_settings(str(path), {"virtual": True}).world
    assert kept is not None
    assert kept.battery == Battery(daily_j=50)
    lab = world_settings("mnist", {"virtual": True, "devices": 20_000, "days": 2.0})
    assert (lab.world, lab.days, lab.fleet.devices) == (World(), 2.0, 20_000)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"world": None, "fleet": FleetTable("m", devices=20_000)}, "10000 can have an MQTT session each"),  # type: ignore[arg-type]
        ({"world": None, "days": 3.0}, r"days is 3.0; .* goes with a \[world\]"),
        ({"days": -1.0}, "days is -1.0"),
        ({"store": KeepUpdates(keep_updates=True)}, "leave it out in virtual time"),
    ],
)
def test_what_does_not_go_together_is_refused(path: Path, changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        replace(load(path, SimulationSettings), **changes)


def test_virtual_time_has_no_use_for_a_broker(path: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="leave --broker or the world out"):
        play(load(path, SimulationSettings), tmp_path / "run", broker="mqtt://localhost", as_json=False)


def test_a_round_is_told_in_a_line() -> None:
    row = VirtualRow(
        3,
        3,
        "abandoned: no quorum",
        None,
        None,
        20,
        5,
        4,
        1500,
        2_000_000,
        60.0,
        {"late": 2},
        hours=50.0,
        late=3,
        dropped=1,
        devices_s=12.5,
        memory_mb=60.0,
    )
    text = line(row, 9)
    assert "3/9" in text
    assert "2.1 d" in text
    assert "5/20" in text
    assert text.endswith("abandoned: no quorum; 2 refused: late")
    assert " 4 " in text
    assert line(replace(row, outcome="stepped", reasons={}, accuracy=0.5), 0).endswith(
        " s        12.5   60.0 MB"
    )


def test_times_and_worlds_are_named_for_people() -> None:
    assert [spell_time(seconds) for seconds in (1.5, 150, 9000, 2e5)] == [
        "1.5 s",
        "2.5 min",
        "2.5 h",
        "2.3 d",
    ]
    assert name_of(WORLDS["hostile"]) == "hostile"
    assert name_of(World(battery=Battery())) == "lab but for battery"
