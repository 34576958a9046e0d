"""The Pi's configuration as it ships: real processes, mosquitto's production configuration, real training."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fedmq.config import AggregatorFile, DeviceFile, load
from fedmq.simulate.fleet import build_trainer
from fedmq.trainers.module import load_user_module
from tests.broker.configured_broker import PASSWORD, REPOSITORY, ConfiguredBroker, provision, script

if TYPE_CHECKING:
    from collections.abc import Iterator

PI = REPOSITORY / "devices/raspberry_pi"
FEDMQ = (sys.executable, "-m", "fedmq.cli")
DEVICES = ("pi-01", "pi-02", "pi-03")
MODULES = {"numpy": "sensor_numpy.py", "litert": "sensor.py", "keras": "sensor.py"}


def test_the_configuration_loads_and_names_what_is_there() -> None:
    settings = load(PI / "device.toml", DeviceFile)
    assert settings.device.device == settings.broker.user == "pi-01"
    assert Path(settings.trainer.module) == PI / "sensor.py"
    assert settings.device.folder == Path("/var/lib/fedmq")
    federation = load(REPOSITORY / "deploy/federation.toml", AggregatorFile)
    assert settings.device.federation == federation.federation.name


@pytest.mark.parametrize("module", sorted(set(MODULES.values())))
def test_each_module_is_what_fedmq_takes(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDMQ_RECORDINGS", str(tmp_path / "none"))
    supply = load_user_module(str(PI / module)).data("pi-03")
    assert supply.held_out is not None


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[ConfiguredBroker]:
    folder = provision(tmp_path / "broker")
    script(folder, "add_account.sh", *DEVICES)
    with ConfiguredBroker(folder, "production.conf") as running:
        yield running


def fedmq(*arguments: str | Path) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "OPENBLAS_NUM_THREADS": "1",
        "FEDMQ_RECORDINGS": "none",
        "PYTHONUNBUFFERED": "1",
    }
    return subprocess.Popen(
        [*FEDMQ, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        cwd=REPOSITORY,
    )


def said(process: subprocess.Popen[str], seconds: float = 240) -> str:
    """Wait for its end and return what it said."""
    try:
        return process.communicate(timeout=seconds)[0]
    except subprocess.TimeoutExpired:
        process.kill()
        return process.communicate()[0] + "\n(it was still running)"


class Site:
    """An aggregator and three Pis, each with the shipped files: only addresses, paths, names and speed are changed."""

    def __init__(self, folder: Path, broker: ConfiguredBroker, engine: str) -> None:
        self.folder, self.broker, self.engine = folder, broker, engine
        made = fedmq("init", PI / MODULES[engine], "--trainer", engine, "-o", folder / "model.fedmq")
        assert "parameters" in said(made)

    def _common(self, text: str, account: str) -> str:
        found = [line for line in text.splitlines() if line.startswith("address = ")]
        password = next(line for line in text.splitlines() if line.startswith("password_file"))
        return (
            text.replace(found[0], f'address = "mqtts://127.0.0.1:{self.broker.ports[PASSWORD]}"')
            .replace(password, f'password_file = "{self.broker.folder}/{account}.password"')
            .replace('ca_file = "ca.pem"', f'ca_file = "{self.broker.folder}/certificates/ca.pem"')
        )

    def aggregator(self, rounds: int) -> subprocess.Popen[str]:
        text = (REPOSITORY / "deploy/systemd/federation.toml").read_text()
        text = self._common(text, "aggregator").replace('"/var/lib/fedmq/watch"', '"aggregator"')
        text = text.replace("[stop]", f"[stop]\nrounds = {rounds}")
        (self.folder / "federation.toml").write_text(text)
        return fedmq("aggregate", self.folder / "federation.toml")

    def device(self, name: str, *, stay: bool = False) -> subprocess.Popen[str]:
        text = (PI / "device.toml").read_text()
        text = (
            self._common(text, name).replace('"pi-01"', f'"{name}"').replace('"/var/lib/fedmq"', f'"{name}"')
        )
        text = text.replace('kind = "litert"', f'kind = "{self.engine}"')
        text = text.replace('"sensor.py"', f'"{PI / MODULES[self.engine]}"')
        text = text if stay else text.replace("stay = true", "stay = false")
        (self.folder / f"{name}.toml").write_text(text)
        return fedmq("device", self.folder / f"{name}.toml")


def test_the_shipped_model_is_trained_by_the_shipped_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ai_edge_litert")
    monkeypatch.setenv("FEDMQ_RECORDINGS", str(tmp_path / "none"))
    settings = load(PI / "device.toml", DeviceFile)
    trainer = build_trainer(settings.trainer.kind)(settings.trainer.module, "pi-01", settings.trainer.options)
    first = trainer.initial()
    trained = trainer.train(first, {"learning_rate": 0.1}, seed=1)
    assert trained.metrics["loss"] > trainer.evaluate(trained.vector)["loss"]


@pytest.mark.broker
@pytest.mark.slow
@pytest.mark.parametrize("engine", ["litert", "numpy"])
def test_three_pis_without_a_framework_learn_together(
    engine: str, broker: ConfiguredBroker, tmp_path: Path
) -> None:
    site = Site(tmp_path, broker, engine)
    aggregator = site.aggregator(rounds=3)
    devices = [site.device(name) for name in DEVICES]
    told = said(aggregator)
    assert aggregator.returncode == 0, told
    assert "ended: 3 rounds are done" in told
    for device in devices:
        words = said(device)
        assert device.returncode == 0, words
        assert words.count(": accepted") == 3, words
        assert engine in words


@pytest.mark.broker
@pytest.mark.slow
def test_a_device_that_stays_outlives_the_federation_and_stops_when_told(
    broker: ConfiguredBroker, tmp_path: Path
) -> None:
    """As systemd does it: SIGTERM, and an exit code of 0."""
    site = Site(tmp_path, broker, "numpy")
    aggregator = site.aggregator(rounds=1)
    staying, *others = [site.device(name, stay=name == "pi-01") for name in DEVICES]
    assert "ended: 1 rounds are done" in said(aggregator)
    for device in others:
        said(device)
    assert staying.poll() is None
    staying.send_signal(signal.SIGTERM)
    words = said(staying, 20)
    assert staying.returncode == 0, words
    assert ": accepted" in words
    assert words.endswith("stopped\n")


@pytest.mark.broker
@pytest.mark.slow
def test_an_aggregator_that_is_killed_goes_on_where_it_was(broker: ConfiguredBroker, tmp_path: Path) -> None:
    """As systemd does it: killed without warning, started again with the same files."""
    site = Site(tmp_path, broker, "numpy")
    aggregator = site.aggregator(rounds=4)
    devices = [site.device(name) for name in DEVICES]
    assert aggregator.stdout is not None
    first = next(line for line in aggregator.stdout if "1/4" in line)
    aggregator.kill()
    said(aggregator)
    told = said(again := site.aggregator(rounds=4))
    assert again.returncode == 0, told
    assert "ended: 4 rounds are done" in told
    assert "1/4" in first
    assert "1/4" not in told
    for device in devices:
        assert ": accepted" in said(device)


@pytest.mark.broker
@pytest.mark.slow
@pytest.mark.keras
@pytest.mark.timeout(400)
def test_three_pis_with_tensorflow_learn_together(broker: ConfiguredBroker, tmp_path: Path) -> None:
    site = Site(tmp_path, broker, "keras")
    aggregator = site.aggregator(rounds=2)
    devices = [site.device(name) for name in DEVICES]
    told = said(aggregator, 360)
    assert "ended: 2 rounds are done" in told
    for device in devices:
        words = said(device)
        assert words.count(": accepted") == 2, words
        assert "keras" in words
