"""Personal layers, from a world's file to the wire: shared features, and a head that never leaves its device."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from fedmq.cli import main
from fedmq.config import load
from fedmq.simulate.fleet import build_fleet
from fedmq.simulate.settings import SimulationSettings
from fedmq.simulate.simulation import Simulation
from fedmq.store.modelfile import load_model
from fedmq.transport.memory import MemoryBroker

pytestmark = pytest.mark.keras

MODULE = """
import keras
import numpy as np

def model():
    network = keras.Sequential([
        keras.Input((5,)), keras.layers.Dense(8, activation="relu", name="features"),
        keras.layers.Dense(2, name="head"),
    ])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(keras.optimizers.SGD(0.3), loss, metrics=["accuracy"])
    return network

def data(device):
    number = int(device.split("-")[1]) if "-" in device else 0
    rng = np.random.default_rng(number)
    x = rng.standard_normal((120, 5)).astype("float32")
    y = ((x @ np.arange(1, 6) > 0) ^ (number % 2 == 0)).astype(int)
    return (x[:60], y[:60]), (x[60:], y[60:])
"""

WORLD = """
[fleet]
module = "minds.py"
devices = 4
seed = 3
baselines = false
options = { threads = 1, personal = ["head"] }
[stop]
rounds = 6
[training]
epochs = 3
batch_size = 10
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "minds.py").write_text(MODULE)
    (tmp_path / "world.toml").write_text(WORLD)
    return tmp_path


@pytest.mark.slow
async def test_devices_of_two_minds_share_all_but_the_head(folder: Path) -> None:
    settings = load(folder / "world.toml", SimulationSettings)
    simulation = Simulation(settings, build_fleet(settings.fleet), folder / "run")
    broker = MemoryBroker()
    await simulation.run(lambda: broker)
    assert simulation.vector is not None
    assert simulation.vector.size == 5 * 8 + 8
    stored = load_model(folder / "run" / "model.fedmq").layout
    assert [variable.name for variable in stored.shared] == ["features/kernel", "features/bias"]
    trainers = simulation.fleet.trainers.values()
    assert min(trainer.evaluate(simulation.vector)["accuracy"] for trainer in trainers) > 0.8


@pytest.mark.slow
def test_the_first_model_can_leave_them_out(folder: Path) -> None:
    out = folder / "model.fedmq"
    found = CliRunner().invoke(main, ["init", str(folder / "minds.py"), "-o", str(out), "--personal", "head"])
    assert found.exit_code == 0, found.output
    assert "48 parameters" in found.output
    assert load_model(out).layout.size == 48
