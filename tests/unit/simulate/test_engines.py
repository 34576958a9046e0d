"""Fleets on an engine: named or the fastest, the same federation as with trainers of their own."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from fedmq.aggregator.settings import Encoding
from fedmq.codecs import parse
from fedmq.device.interface import ModuleName
from fedmq.engines import choice
from fedmq.errors import ConfigError
from fedmq.protocol.policy import Policy, StopWhen
from fedmq.simulate import FleetTable, Simulation, SimulationSettings, measuring
from fedmq.simulate.fleet import build_fleet
from fedmq.simulate.measuring import Measured, Probe, measure
from fedmq.transport.memory import MemoryBroker
from tests.unit.simulate.toy import MODULE

if TYPE_CHECKING:
    from pathlib import Path

TRAINING: dict[str, bool | int | float | str] = {"epochs": 2, "batch_size": 8, "learning_rate": 0.1}


@pytest.fixture
def table(tmp_path: Path) -> FleetTable:
    (tmp_path / "mine.py").write_text(MODULE)
    return FleetTable(
        ModuleName(str(tmp_path / "mine.py")), devices=12, trainer="numpy", seed=5, options={}, baselines=True
    )


async def federate(table: FleetTable, folder: Path) -> Simulation:
    policy = Policy(min_devices=12, quorum=12, soft_deadline_s=60, hard_deadline_s=60)
    settings = SimulationSettings(
        table,
        rounds=policy,
        stop=StopWhen(rounds=2),
        encoding=Encoding(up=parse("float32"), down=parse("float32"), key=parse("float32")),
        training=TRAINING,
    )
    broker, fleet = MemoryBroker(), build_fleet(table, TRAINING)
    simulation = Simulation(settings, fleet, folder)
    await simulation.run(lambda: broker)
    simulation.compare(lambda _: None)
    fleet.close()
    return simulation


async def test_an_engine_gives_the_federation_that_trainers_give(table: FleetTable, tmp_path: Path) -> None:
    alone = await federate(table, tmp_path / "alone")
    shared = await federate(replace(table, engine="numpy"), tmp_path / "shared")
    assert alone.vector is not None
    assert shared.vector is not None
    np.testing.assert_allclose(shared.vector, alone.vector, atol=1e-5)
    assert shared.outcome.accuracy == alone.outcome.accuracy
    assert [curve.last for curve in shared.outcome.curves] == pytest.approx(
        [curve.last for curve in alone.outcome.curves], abs=0.02
    )


async def test_a_seed_repeats_a_run_on_an_engine(table: FleetTable, tmp_path: Path) -> None:
    shared = replace(table, engine="numpy", baselines=False)
    first, second = [await federate(shared, tmp_path / name) for name in ("one", "two")]
    assert first.vector is not None
    assert second.vector is not None
    assert first.vector.tobytes() == second.vector.tobytes()


def test_the_fastest_is_taken_and_all_are_told(table: FleetTable, monkeypatch: pytest.MonkeyPatch) -> None:
    rates = {"numpy": 70.0, "tensorflow": 900.0}

    def pretend(probe: Probe) -> Measured:
        if probe.engine not in rates:
            return Measured(probe.engine, refusal="no such luck")
        return Measured(probe.engine, f"{probe.engine} 1", rates[probe.engine], peak_mb=100.0)

    monkeypatch.setattr(measuring, "measure", pretend)
    monkeypatch.setattr(measuring, "installed", lambda: ["jax", "numpy"])
    with_auto = replace(table, engine="auto")
    fleet = build_fleet(with_auto, TRAINING)
    fleet.close()
    assert fleet.front is not None
    assert fleet.front.engine.name.startswith("numpy")
    assert [note.strip() for note in fleet.notes[1:]] == [
        "measured jax: no such luck",
        "measured numpy: 70 device-rounds/s, 100 MB (numpy 1)",
    ]
    best, _ = measuring.fastest(with_auto, TRAINING)
    assert best.engine == "numpy"
    monkeypatch.setattr(measuring, "installed", lambda: ["jax"])
    with pytest.raises(ConfigError, match="no engine that is installed trains this fleet"):
        build_fleet(with_auto, TRAINING)


def test_an_engine_is_measured_in_a_process_of_its_own(table: FleetTable) -> None:
    found = measure(Probe("numpy", table, TRAINING, devices=5, seconds=0.05))
    assert (found.engine, found.refusal) == ("numpy", "")
    assert found.rate > 1
    assert found.peak_mb > 10
    refused = measure(Probe("numpy", replace(table, options={"lerning_rate": 1.0}), TRAINING))
    assert "did you mean 'learning_rate'" in refused.refusal


def test_an_engine_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="did you mean 'numpy'"):
        choice.load("nunpy")
    monkeypatch.setattr(choice, "ENGINES", {"jax": "fedmq.engines.nowhere"})
    with pytest.raises(ConfigError, match=r"pip install 'fedmq\[jax\]'"):
        choice.load("jax")


def test_trainers_of_their_own_ask_one_at_a_time(table: FleetTable) -> None:
    assert build_fleet(table).callers == 1
    fleet = build_fleet(replace(table, engine="numpy"))
    assert fleet.callers == 12
    fleet.close()
