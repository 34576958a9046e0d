"""The run by hand of the README: mosquitto, an aggregator and devices, each a real process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from fedmq.transport.mosquitto import private_mosquitto

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]

MODULE = """
from fedmq.datasets import deal, mnist
from fedmq.trainers.numpy import Mlp

def model():
    return Mlp(inputs=784, hidden=(16,), classes=10)

def data(device):
    digits = mnist()
    rows = deal("dirichlet(0.5)", digits, devices=3)[int(device[-1]) - 1 if device[-1].isdigit() else 0]
    flat = lambda x: x.reshape(len(x), -1)
    return (flat(digits.x[rows]), digits.y[rows]), (flat(digits.x_test), digits.y_test)
"""

FEDERATION = """
[federation]
name = "digits"
folder = "state"

[model]
module = "digits.py"
trainer = "numpy"

[broker]
address = "{address}"

[rounds]
min_devices = 3
quorum = 3
soft_deadline_s = 60
hard_deadline_s = 90

[stop]
rounds = {rounds}

[encoding]
up = "int8 | lzma"
key = "float16"

[training]
epochs = 1
learning_rate = 0.1

[store]
keep_updates = true
"""

DEVICE = """
[device]
federation = "digits"
name = "device-{number}"
folder = "device-{number}"

[trainer]
kind = "numpy"
module = "digits.py"

[broker]
address = "{address}"
"""


class Terminals:
    """Starts `fedmq` processes in one folder, and stops what still runs at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.running: dict[str, subprocess.Popen[str]] = {}

    def start(self, name: str, *arguments: str) -> subprocess.Popen[str]:
        with (self.folder / f"{name}.log").open("a") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "fedmq.cli", *arguments],
                cwd=self.folder,
                stdout=log,
                stderr=log,
                text=True,
            )
        self.running[name] = process
        return process

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def until(self, name: str, words: str, seconds: float = 120) -> None:
        end = time.monotonic() + seconds
        while words not in self.log(name):
            assert time.monotonic() < end, f"{name} never said {words!r}: {self.log(name)}"
            assert self.running[name].poll() is None or words in self.log(name), self.log(name)
            time.sleep(0.05)

    def ended(self, names: Sequence[str], seconds: float = 60) -> None:
        for name in names:
            assert self.running[name].wait(seconds) == 0, self.log(name)


@pytest.fixture
def terminals(tmp_path: Path) -> Iterator[Terminals]:
    terminals = Terminals(tmp_path)
    (tmp_path / "digits.py").write_text(MODULE)
    yield terminals
    for process in terminals.running.values():
        process.kill()
        process.wait()


def write(folder: Path, address: str, rounds: int) -> None:
    (folder / "federation.toml").write_text(FEDERATION.format(address=address, rounds=rounds))
    for number in (1, 2, 3):
        (folder / f"device-{number}.toml").write_text(DEVICE.format(address=address, number=number))


async def test_three_devices_and_an_aggregator(terminals: Terminals, tmp_path: Path) -> None:
    async with private_mosquitto() as broker:
        write(tmp_path, broker.address, rounds=3)
        terminals.start("aggregator", "aggregate", "federation.toml")
        for number in (1, 2, 3):
            terminals.start(f"device-{number}", "device", f"device-{number}.toml")
        terminals.until("aggregator", "ended: 3 rounds are done")
        terminals.ended(["aggregator", "device-1", "device-2", "device-3"])
    told = terminals.log("aggregator")
    assert told.count("3/3") >= 3
    assert "ended: 3 rounds trained" in terminals.log("device-2")
    assert "round 3: accepted" in terminals.log("device-1")
    found = subprocess.run(
        [sys.executable, "-m", "fedmq.cli", "inspect", "state", "--json"],
        cwd=tmp_path,
        capture_output=True,
        check=True,
    )
    assert json.loads(found.stdout)["progress"]["steps"] == 3


@pytest.mark.slow
async def test_killed_processes_go_on_where_they_were(terminals: Terminals, tmp_path: Path) -> None:
    async with private_mosquitto() as broker:
        write(tmp_path, broker.address, rounds=8)
        terminals.start("aggregator", "aggregate", "federation.toml")
        for number in (1, 2, 3):
            terminals.start(f"device-{number}", "device", f"device-{number}.toml")
        terminals.until("aggregator", "2/8")
        for name, again in (
            ("aggregator", ["aggregate", "federation.toml"]),
            ("device-2", ["device", "device-2.toml"]),
        ):
            os.kill(terminals.running[name].pid, signal.SIGKILL)
            terminals.running[name].wait()
            terminals.start(name, *again)
        terminals.until("aggregator", "ended: 8 rounds are done")
        terminals.ended(["aggregator", "device-1", "device-2", "device-3"])
    replayed = terminals.start("replay", "replay", "state", "--rule", "average")
    assert replayed.wait(60) == 0, terminals.log("replay")
    assert "each of the run's 8 models again, bit for bit" in terminals.log("replay")


async def test_sigterm_stops_in_good_order(terminals: Terminals, tmp_path: Path) -> None:
    async with private_mosquitto() as broker:
        write(tmp_path, broker.address, rounds=1)
        terminals.start("aggregator", "aggregate", "federation.toml")
        terminals.start("device-1", "device", "device-1.toml")
        terminals.until("aggregator", "federation digits on")
        terminals.until("device-1", "device device-1 of digits")
        for name in ("aggregator", "device-1"):
            time.sleep(0.5)
            terminals.running[name].terminate()
        terminals.ended(["aggregator", "device-1"], seconds=20)
    assert "stopped" in terminals.log("aggregator")
    assert "Traceback" not in terminals.log("aggregator") + terminals.log("device-1")
