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
from fedmq.protocol.messages import Beacon, Facts, Task, TaskKind, Update
from fedmq.store.archive import Archive, KeptRound
from fedmq.store.checkpoint import State, Weights
from fedmq.store.journal import Piece
from fedmq.store.modelfile import StoredModel, save_model
from fedmq.vectors import Layout, Variable
from fedmq.wire.envelope import encode

if TYPE_CHECKING:
    from pathlib import Path

COMMANDS = ["simulate", "aggregate", "device", "broker", "inspect", "init", "rules", "replay"]
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
        (["rules", "normclip"], "did you mean 'norm_clip'?"),
        (["rules", "xyzzy"], "`fedmq rules` lists what there is"),
        (["replay", "nothing"], "nothing is no folder"),
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


def test_inspect_knows_kept_updates(tmp_path: Path) -> None:
    layout = Layout((Variable("w", (3,)),))
    archive = Archive(tmp_path, "{}", 10_000)
    vector = np.zeros(3, np.float32)
    archive.begin(State(b"12345678", b"x" * 16, layout.digest), layout, Weights(1, vector, vector))
    task = Task(b"12345678", 1, 1, TaskKind.TRAIN, 1, layout.digest, b"s" * 16, 1.0, 60.0, "float32", 100, {})
    update = encode(Update(b"12345678", b"87654321", 1, layout.digest, Facts(10), {}))
    archive.keep(KeptRound(1, 1, 2, b"m" * 32, 1, 1, encode(task), "{}"), [Piece("watch", None, update)])
    told = run("inspect", str(tmp_path))
    assert "kept updates" in told
    assert "from 1 to 2" in told
    told = run("inspect", str(tmp_path / "round-0000000001.updates"))
    assert "kept updates of a closed round" in told
    assert "watch: 10 examples" in told


def test_rules_are_listed_and_told_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    told = run("rules")
    assert "Guards look at one update" in told
    assert "\n  norm_clip " in told
    assert max(map(len, told.splitlines())) <= 72
    assert "\nWhen to use it\n" in run("rules", "guards/norm-clip")
    assert json.loads(run("rules", "mean", "--json"))[0]["slot"] == "reducers"
    assert len(json.loads(CliRunner().invoke(main, ["rules", "--json"]).output)) > 20


def test_aggregate_check_says_whether_updates_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "federation.toml"
    path.write_text(
        '[federation]\nname = "watch"\nfolder = "s"\n[model]\nmodule = "m.py"\n[store]\nkeep_updates = true\n'
    )
    assert "kept, 1,073,741,824 bytes at most" in run("aggregate", str(path), "--check")
    assert "not kept" in run("aggregate", str(path), "--check", "--no-keep-updates")


def test_the_command_line_and_the_aggregator_never_import_a_framework() -> None:
    code = (
        "import sys, fedmq.cli, fedmq.aggregator.aggregator, fedmq.device.device, fedmq.config\n"
        "print([name for name in ('tensorflow', 'keras', 'matplotlib', 'iotcore') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
