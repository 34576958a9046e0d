"""Engines alone: local rounds in a second, and memory, of each in a process of its own.

A local round is one epoch over 50 examples in batches of 10; 100 devices train it side by side, from one model. Rates
are what `fedmq simulate` would see of the engine: weights in as NumPy vectors, weights out. ``python -m
benchmarks.engines`` measures the engines that are installed; where JAX sees a GPU, 10,000 devices on that as well.

Engines that take little memory are measured once more with a process for each core and 100 devices in each, as
`fedmq simulate` runs fleets of some size on them (`FleetTable.shares`).
"""

from __future__ import annotations

import argparse
import multiprocessing
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Final

from benchmarks.report import Goal, report
from fedmq.device.interface import ModuleName
from fedmq.engines.choice import ENGINES, installed
from fedmq.engines.front import cores
from fedmq.simulate.measuring import Measured, Probe, measure, measure_here
from fedmq.simulate.settings import LIGHT, FleetTable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from threading import Barrier

MODELS: Final = {"mlp": 2_400.0, "cnn": 400.0}
"""What is trained, and how many local rounds in a second the fastest engine should do on two cores."""
ON_GPU: Final = {"mlp": 300_000.0, "cnn": 100_000.0}
_TRAINING: Final = {"epochs": 1, "batch_size": 10}
_PATIENCE_S: Final = 300.0


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="a second for each engine and model, not five")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON, too")
    parser.add_argument(
        "--engine", action="append", choices=ENGINES, help="measure only this one (may be given again)"
    )
    given = parser.parse_args(arguments)
    seconds = 1.0 if given.quick else 5.0
    figures: dict[str, float] = {}
    for model in MODELS:
        for name in given.engine or installed():
            figures.update(_figures(model, name, _measured(model, name, seconds)))
            if name in LIGHT and cores() > 1:
                several = _side_by_side(model, name, seconds)
                figures.update(_figures(model, several.engine, several))
    if platform() != "cpu":
        for model in ON_GPU:
            found = _measured(model, "jax", seconds, devices=2_000 if given.quick else 10_000)
            figures.update(_figures(model, "jax on gpu", found))
    report(figures, list(_goals(figures)), given.json)


def platform() -> str:
    """Return where JAX would compute, ``cpu`` or ``gpu``; ``cpu`` where there is no JAX."""
    program = "import jax; print(jax.devices()[0].platform)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    return done.stdout.strip().splitlines()[-1] if done.returncode == 0 and done.stdout.strip() else "cpu"


def _measured(model: str, engine: str, seconds: float, devices: int = 100) -> Measured:
    fleet = FleetTable(ModuleName(f"benchmarks._engine_{model}"), devices=devices)
    found = measure(Probe(engine, fleet, _TRAINING, devices, seconds))
    print(f"  {model}: {found}", flush=True)
    return found


def _side_by_side(model: str, engine: str, seconds: float) -> Measured:
    """Measure in a process for each core; all begin to count at one moment."""
    name, context = f"{engine} in {cores()} processes", multiprocessing.get_context("spawn")
    start = context.Barrier(cores())
    fleet = FleetTable(ModuleName(f"benchmarks._engine_{model}"), devices=100, options={"workers": 1})
    probe = Probe(engine, fleet, _TRAINING, 100, seconds)
    with ProcessPoolExecutor(cores(), context, _Part.begin, (start,)) as pool:
        waiting = [pool.submit(_Part.measure, probe) for _ in range(cores())]
        parts = [each.result() for each in waiting]
    found = _together(name, parts)
    print(f"  {model}: {found}", flush=True)
    return found


def _together(name: str, parts: Sequence[Measured]) -> Measured:
    """Return what several did in the same seconds."""
    if refusal := next((part.refusal for part in parts if part.refusal), ""):
        return Measured(name, refusal=refusal)
    rate, cpus = sum(part.rate for part in parts), sum(part.rate / part.cpu_rate for part in parts)
    peak, ready = sum(part.peak_mb for part in parts), max(part.ready_s for part in parts)
    return Measured(name, parts[0].name, rate, rate / cpus, peak, ready)


class _Part:
    """One of several processes that are measured side by side."""

    start: Barrier

    @classmethod
    def begin(cls, start: Barrier) -> None:
        """Know what all wait at."""
        cls.start = start

    @classmethod
    def measure(cls, probe: Probe) -> Measured:
        """Measure, as soon as the others are ready as well."""
        found = measure_here(probe, lambda: cls.start.wait(_PATIENCE_S))
        if found.refusal:
            cls.start.abort()
        return found


def _figures(model: str, engine: str, found: Measured) -> dict[str, float]:
    if found.refusal:
        return {}
    return {
        f"{model} {engine} device-rounds/s": found.rate,
        f"{model} {engine} device-rounds per CPU second": found.cpu_rate,
        f"{model} {engine} peak MB": found.peak_mb,
        f"{model} {engine} ready after s": found.ready_s,
    }


def _goals(figures: dict[str, float]) -> Iterator[Goal]:
    what = " device-rounds/s"
    for model, goal in MODELS.items():
        rates = {
            name.removesuffix(what): rate
            for name, rate in figures.items()
            if name.startswith(f"{model} ") and name.endswith(what) and "on gpu" not in name
        }
        if rates:
            best = max(rates, key=rates.__getitem__)
            engine = best.removeprefix(f"{model} ")
            yield Goal(f"{model}, device-rounds/s of the fastest engine ({engine})", rates[best], ">=", goal)
    for model, goal in ON_GPU.items():
        if (rate := figures.get(f"{model} jax on gpu device-rounds/s")) is not None:
            yield Goal(f"{model}, device-rounds/s on the GPU", rate, ">=", goal)


if __name__ == "__main__":
    main()
