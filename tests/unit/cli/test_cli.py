"""The command line: help that teaches, and nonsense answered in one sentence without a traceback."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from click.testing import CliRunner

from fedmq import __version__
from fedmq.cli import main
from fedmq.protocol.messages import Beacon
from fedmq.store.modelfile import StoredModel, save_model
from fedmq.vectors import Layout, Variable
from fedmq.wire.envelope import encode

if TYPE_CHECKING:
    from pathlib import Path

COMMANDS = ["simulate", "aggregate", "device", "broker", "inspect", "init"]
DEVICE = '[device]\nfederation = "f"\nfolder = "x"\n[trainer]\nkind = "{kind}"\nmodule = "{module}"\n'


def run(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(main, list(arguments))
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result.output


def test_help_names_every_command() -> None:
    told = run("--help")
    assert all(command in told for command in COMMANDS)
    assert "fedmq simulate" in told


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    assert len(run(command, "--help").splitlines()) > 5


def test_version() -> None:
    assert __version__ in run("--version")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["simulate", "nowhere"], "there is no world 'nowhere'"),
        (["simulate", "--rule", "fedagv"], "did you mean 'fedavg'?"),
        (["simulate", "--codec", "int9"], "int8"),
        (["aggregate", "nothing.toml"], "cannot read nothing.toml"),
        (["device", "nothing.toml"], "cannot read nothing.toml"),
        (["inspect", "nothing"], "nothing does not exist"),
        (["init", "nothing.py", "--trainer", "numpy"], "there is no file nothing.py"),
        (["init", "nothing.py", "--trainer", "torch_trainer"], "cannot be loaded"),
        (["init", "x.py", "--trainer", "json:nothing"], "has no function 'nothing'"),
    ],
)
def test_nonsense_gets_one_sentence(
    arguments: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told = run(*arguments, code=1)
    assert sentence in told
    assert told.count("\n") == 1


def test_a_device_file_with_a_bad_broker(tmp_path: Path) -> None:
    path = tmp_path / "device.toml"
    path.write_text(DEVICE.format(kind="numpy", module="x.py") + '[broker]\naddress = "http://x"\n')
    assert "http" in run("device", str(path), code=1)


def test_aggregate_check_explains_the_file(tmp_path: Path) -> None:
    path = tmp_path / "federation.toml"
    path.write_text(
        '[federation]\nname = "watch"\nfolder = "s"\n[model]\nmodule = "m.py"\n[rule]\npreset = "fedavgm"\n'
    )
    told = run("aggregate", str(path), "--check")
    assert "watch" in told
    assert "momentum(0.9)" in told


def test_inspect_knows_a_model_and_a_message(tmp_path: Path) -> None:
    save_model(
        tmp_path / "m.fedmq",
        StoredModel(Layout((Variable("w", (3,)),)), np.zeros(3, np.float32), {"version": 4}),
    )
    assert json.loads(run("inspect", str(tmp_path / "m.fedmq"), "--json"))["parameters"] == 3
    (tmp_path / "captured").write_bytes(encode(Beacon(alive=True, run=b"12345678", epoch=3)))
    assert "Beacon" in run("inspect", str(tmp_path / "captured"))
    (tmp_path / "other").write_bytes(b"something else")
    assert "nothing that fedmq knows" in run("inspect", str(tmp_path / "other"), code=1)


def test_the_command_line_and_the_aggregator_never_import_a_framework() -> None:
    code = (
        "import sys, fedmq.cli, fedmq.aggregator.aggregator, fedmq.device.device, fedmq.config\n"
        "print([name for name in ('tensorflow', 'keras', 'matplotlib', 'iotcore') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
