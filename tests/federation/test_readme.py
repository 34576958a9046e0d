"""The README's own files, run as real processes with real Keras training; and the demo, end to end."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fedmq.transport.mosquitto import private_mosquitto

pytestmark = [pytest.mark.slow, pytest.mark.keras, pytest.mark.timeout(600)]

README = Path(__file__).parents[2] / "README.md"
FEDMQ = [sys.executable, "-m", "fedmq.cli"]


def blocks() -> dict[str, str]:
    """Return the README's TOML blocks by the file that the text above each names."""
    found = re.findall(r"`(\w+\.toml)`[^`]*```toml\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    return dict(found)


@pytest.mark.broker
async def test_the_three_terminals_of_the_readme(tmp_path: Path) -> None:
    files = blocks()
    assert set(files) == {"federation.toml", "device.toml"}
    async with private_mosquitto() as broker:
        here = {name: text.replace("mqtt://localhost:1883", broker.address) for name, text in files.items()}
        assert all(broker.address in text for text in here.values())
        (tmp_path / "federation.toml").write_text(
            here["federation.toml"].replace("rounds = 10", "rounds = 3")
        )
        (tmp_path / "device.toml").write_text(here["device.toml"])
        devices = [
            subprocess.Popen([*FEDMQ, "device", "device.toml", "--name", f"device-{n}"], cwd=tmp_path)
            for n in (1, 2, 3)
        ]
        try:
            told = subprocess.run(
                [*FEDMQ, "aggregate", "federation.toml"],
                cwd=tmp_path,
                capture_output=True,
                text=True,
                check=False,
            )
            assert "ended: 3 rounds are done" in told.stdout, told.stderr
            assert [device.wait(60) for device in devices] == [0, 0, 0]
        finally:
            for device in devices:
                device.kill()


def test_the_demo(tmp_path: Path) -> None:
    """A short one; the whole is `make demo`."""
    done = subprocess.run(
        [*FEDMQ, "simulate", "--rounds", "8", "--json", "--out", "run"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == 9
    summary = lines[-1]
    assert summary["local_only"] < summary["accuracy"] < summary["pooled"]
    assert summary["accuracy"] > 0.6
    for name in ("rounds.jsonl", "summary.json", "settings.json", "model.fedmq", "model.keras", "plot.png"):
        assert (tmp_path / "run" / name).stat().st_size > 0
    assert "Traceback" not in done.stderr
