"""What the core costs before it does anything: packages, disk, import time, memory; and a device that trains on LiteRT.

Builds the wheel, installs it with its core dependencies into a new environment, and imports it there in new
processes. Needs the package index. With ``--quick`` nothing is built or installed: imports are measured in the Python
that runs this.

The device with LiteRT is measured in the Python that runs this: a process with everything that `fedmq device` imports,
and a trainer from a file of `fedmq export`, after some rounds of training. The goal is for the device itself, as is the
one without a trainer; ``fedmq device`` has configuration and command line on top.

    python -m benchmarks.footprint [--quick] [--json]
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from benchmarks.report import Goal, report

ROOT: Final = Path(__file__).resolve().parents[1]

MOST_DISTRIBUTIONS: Final = 12
MOST_MEGABYTES: Final = 100
MOST_IMPORT_SECONDS: Final = 0.3
MOST_IMPORT_MEGABYTES: Final = 45
MOST_TRAINING_MEGABYTES: Final = 70

# What a device imports before it has a trainer; each is held to the same goals. NumPy alone is the reference: the
# least that anything which touches a vector can take.
MODULES: Final = ("fedmq", "fedmq.device.device")
REFERENCE: Final = "numpy"

IMPORT = """
import json, resource, sys, time
begin = time.perf_counter()
import {module}
seconds = time.perf_counter() - begin
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([seconds, peak * (1 if sys.platform == "darwin" else 1024) / 1e6]))
"""

MODEL: Final = ROOT / "devices" / "raspberry_pi" / "sensor.tflite"
TRAIN: Final = """
import json, resource, sys, time
from pathlib import Path
import numpy, {modules}
begin = time.perf_counter()
from fedmq.trainers.litert import LitertTrainer
import ai_edge_litert.interpreter
seconds = time.perf_counter() - begin
chance = numpy.random.default_rng(0)
x, y = chance.random((500, 100, 6), "float32"), chance.integers(0, 7, 500)
trainer = LitertTrainer(Path({model!r}), (x[:400], y[:400]), held_out=(x[400:], y[400:]))
vector = trainer.initial()
for round in range(3):
    vector = trainer.train(vector, {{"batch_size": 32, "learning_rate": 0.01}}, seed=round).vector
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([seconds, peak * (1 if sys.platform == "darwin" else 1024) / 1e6]))
"""

LIST = """
import importlib.metadata, json, pathlib, sysconfig
files = pathlib.Path(sysconfig.get_path("purelib")).rglob("*")
size = sum(file.stat().st_size for file in files if file.is_file())
names = sorted({found.name.lower() for found in importlib.metadata.distributions()})
print(json.dumps([names, size / 1e6]))
"""


@dataclass(frozen=True, slots=True)
class Installed:
    """What an environment holds: distributions by name, and the size of all their files in MB (10^6 bytes)."""

    distributions: tuple[str, ...]
    megabytes: float


@dataclass(frozen=True, slots=True)
class Imported:
    """What importing one module took: the best time and the largest peak of resident memory over some processes."""

    seconds: float
    megabytes: float


def build_wheel(folder: Path) -> Path:
    """Build fedmq's wheel from the source tree into `folder` and return its path."""
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    (wheel,) = folder.glob("fedmq-*.whl")
    return wheel


def install(wheel: Path, folder: Path) -> Path:
    """Install `wheel` and its core dependencies into a new environment at `folder`; return its Python.

    The environment holds no pip or setuptools, so whatever is in it is there for fedmq.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "--python", str(python)]
    subprocess.run([*pip, "install", str(wheel)], check=True)
    return python


def installed(python: Path) -> Installed:
    """Say what the environment of `python` holds."""
    names, megabytes = json.loads(_run(python, LIST))
    return Installed(tuple(names), megabytes)


def imported(python: Path, module: str, processes: int) -> Imported:
    """Import `module` in that many new processes, one after the other."""
    runs = [json.loads(_run(python, IMPORT.format(module=module))) for _ in range(processes)]
    return Imported(min(seconds for seconds, _ in runs), max(megabytes for _, megabytes in runs))


def trained(python: Path, modules: str, processes: int) -> Imported:
    """Train a Raspberry Pi's model in that many new processes, each of which imports `modules` first."""
    program = TRAIN.format(model=str(MODEL), modules=modules)
    runs = [json.loads(_run(python, program)) for _ in range(processes)]
    return Imported(min(seconds for seconds, _ in runs), max(megabytes for _, megabytes in runs))


def _run(python: Path, program: str) -> str:
    # By way of a shell: a process starts with its parent's peak of memory as its own, and a shell's is small.
    # -P, and another folder: the module must come from the environment, not from the source tree.
    command = ["/bin/sh", "-c", '"$@"; exit $?', "sh", str(python), "-P", "-c", program]
    run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=python.parent)
    return run.stdout


@click.command()
@click.option("--quick", is_flag=True, help="Measure imports in this environment; build and install nothing.")
@click.option("--json", "as_json", is_flag=True, help="End with one line of JSON.")
def main(*, quick: bool, as_json: bool) -> None:
    """Measure what installing and importing the core takes."""
    figures: dict[str, float] = {}
    goals: list[Goal] = []

    def hold(name: str, value: float, most: float) -> None:
        figures[name] = round(value, 4)
        goals.append(Goal(name, figures[name], "<=" if isinstance(value, int) else "<", most))

    with tempfile.TemporaryDirectory() as folder:
        python = Path(sys.executable)
        if not quick:
            wheel = build_wheel(Path(folder))
            python = install(wheel, Path(folder, "environment"))
            found = installed(python)
            figures["wheel_mb"] = round(wheel.stat().st_size / 1e6, 3)
            hold("distributions", len(found.distributions), MOST_DISTRIBUTIONS)
            hold("install_mb", found.megabytes, MOST_MEGABYTES)
        processes = 3 if quick else 10
        reference = imported(python, REFERENCE, processes)
        figures[f"{REFERENCE} import_s"] = round(reference.seconds, 4)
        figures[f"{REFERENCE} import_rss_mb"] = round(reference.megabytes, 4)
        for module in MODULES:
            core = imported(python, module, processes)
            hold(f"{module} import_s", core.seconds, MOST_IMPORT_SECONDS)
            hold(f"{module} import_rss_mb", core.megabytes, MOST_IMPORT_MEGABYTES)
        if importlib.util.find_spec("ai_edge_litert"):
            litert = trained(Path(sys.executable), "fedmq.device.device", processes)
            hold("litert import_s", litert.seconds, MOST_IMPORT_SECONDS)
            hold("litert training_rss_mb", litert.megabytes, MOST_TRAINING_MEGABYTES)
            whole = trained(
                Path(sys.executable), "fedmq.device.device, fedmq.config, fedmq.cli.services", processes
            )
            figures["litert fedmq device rss_mb"] = round(whole.megabytes, 4)
    report(figures, goals, as_json)


if __name__ == "__main__":
    main()
