from __future__ import annotations

import json
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from examples.own_model.my_model import SAMPLES, STATES, data
from fedmq.config import AggregatorFile, DeviceFile, load
from fedmq.simulate import SimulationSettings
from fedmq.transport.mosquitto import Mosquitto, find_mosquitto

FOLDER = Path("examples/own_model").resolve()


def test_data_is_uneven_and_the_same_at_every_call() -> None:
    (x, y), (x_test, y_test) = data("motor-1")
    (again, _), _ = data("motor-1")
    np.testing.assert_array_equal(x, again)
    assert x.shape == (150, SAMPLES, 3)
    assert len(x_test) == 50
    assert np.bincount(y).max() > 75
    assert np.bincount(y_test, minlength=len(STATES)).min() > 10


def test_the_files_fit_together() -> None:
    federation = load(FOLDER / "federation.toml", AggregatorFile)
    device = load(FOLDER / "device.toml", DeviceFile)
    world = load(FOLDER / "world.toml", SimulationSettings)
    assert device.device.federation == federation.settings().name == world.federation.name
    assert device.trainer.module == federation.model.module == world.fleet.module
    assert device.broker == federation.broker


def fedmq(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "fedmq.cli", *map(str, arguments)]


@pytest.mark.slow
@pytest.mark.keras
@pytest.mark.timeout(300)
def test_it_can_be_simulated(tmp_path: Path) -> None:
    shape = ("--rounds", "2", "--devices", "3", "--no-baselines")
    subprocess.run(fedmq("simulate", FOLDER / "world.toml", *shape, "--out", tmp_path), check=True)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["reason"] == "2 rounds are done"
    assert (tmp_path / "model.keras").exists()


@pytest.mark.slow
@pytest.mark.keras
@pytest.mark.broker
@pytest.mark.timeout(300)
async def test_it_runs_with_an_aggregator_and_real_devices(tmp_path: Path) -> None:
    """The steps of docs/tutorial/three-terminals.md, without the plugs pulled."""
    if find_mosquitto() is None:
        pytest.skip("mosquitto is not installed")
    async with Mosquitto() as broker:
        folder = Path(shutil.copytree(FOLDER, tmp_path / "motors"))
        _write(
            folder,
            "federation.toml",
            "federation.toml",
            {"mqtt://localhost:1883": broker.address, "rounds = 30": "rounds = 2"},
        )
        for number in (3, 2, 1):
            motor = {"mqtt://localhost:1883": broker.address, "motor-1": f"motor-{number}"}
            _write(folder, "device.toml", f"motor-{number}.toml", motor)
        with ExitStack() as running:
            devices = [_device(running, folder / f"motor-{number}.toml") for number in (1, 2, 3)]
            told = subprocess.run(
                fedmq("aggregate", folder / "federation.toml"), check=True, stdout=subprocess.PIPE, text=True
            ).stdout
            ends = [device.communicate(timeout=60)[0] for device in devices]
    assert "2/2" in told
    assert "ended: 2 rounds are done" in told
    assert all("round 2: accepted" in end and "ended: 2 rounds trained" in end for end in ends)
    assert not list(folder.glob("state/motor-*/outbox/*.update"))


def _device(running: ExitStack, file: Path) -> subprocess.Popen[str]:
    """Start a device, which ends with `running` at the latest."""
    process = subprocess.Popen(fedmq("device", file), stdout=subprocess.PIPE, text=True)
    running.enter_context(process)
    running.callback(process.terminate)
    return process


def _write(folder: Path, source: str, target: str, changes: dict[str, str]) -> None:
    text = (folder / source).read_text()
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    (folder / target).write_text(text)
