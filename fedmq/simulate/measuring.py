"""Which engine is fastest for a fleet, here: each trains a few of its devices, in a process of its own.

In its own process, since Keras has one backend in each, and so that a framework that loses leaves no memory behind.
Run as a program, it takes one `Probe` as JSON and prints one `Measured`.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess  # to start itself
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any, Final

from fedmq.device.interface import ModuleName
from fedmq.engines.choice import installed, load
from fedmq.engines.engine import Job
from fedmq.errors import ConfigError, FedmqError
from fedmq.simulate.dealing import engine_options, supplies_of
from fedmq.simulate.settings import FleetTable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fedmq.device.interface import Setting
    from fedmq.engines.engine import Engine

_DEVICES: Final = 64
_SECONDS: Final = 1.0
_PATIENCE_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class Probe:
    """What is measured: an engine on the devices of a fleet, at these settings, for so many seconds."""

    engine: str
    fleet: FleetTable
    training: Mapping[str, Setting] = field(default_factory=dict)
    devices: int = _DEVICES
    seconds: float = _SECONDS


@dataclass(frozen=True, slots=True)
class Measured:
    """What came of it, or in one sentence why nothing did.

    `rate` is local rounds in a second, after a first one; `cpu_rate` is local rounds in a second of processor time,
    which says more where other programs run, too. `ready_s` is from the start to the end of the first round.
    """

    engine: str
    name: str = ""
    rate: float = 0.0
    cpu_rate: float = 0.0
    peak_mb: float = 0.0
    ready_s: float = 0.0
    refusal: str = ""

    def __str__(self) -> str:
        if self.refusal:
            return f"{self.engine}: {self.refusal}"
        return f"{self.engine}: {self.rate:,.0f} device-rounds/s, {self.peak_mb:.0f} MB ({self.name})"


def measure(probe: Probe) -> Measured:
    """Measure in a process of its own. What goes wrong there is a refusal."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    environment.pop("KERAS_BACKEND", None)  # each engine says which
    try:
        done = subprocess.run(  # noqa: S603  # our own program
            [sys.executable, "-m", "fedmq.simulate.measuring", json.dumps(asdict(probe))],
            env=environment,
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Measured(probe.engine, refusal=f"was not ready after {_PATIENCE_S:.0f} s")
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    if done.returncode == 0 and lines:
        return Measured(**json.loads(lines[-1]))
    return Measured(probe.engine, refusal=f"failed ({lines[-1] if lines else 'without a word'})")


def fastest(fleet: FleetTable, training: Mapping[str, Setting]) -> tuple[Measured, Sequence[Measured]]:
    """Return the fastest engine for this fleet, and what all that are installed did. Raises ConfigError."""
    tried = [measure(Probe(name, fleet, training)) for name in installed()]
    able = [each for each in tried if not each.refusal]
    if not able:
        said = "; ".join(map(str, tried))
        raise ConfigError(f"no engine that is installed trains this fleet ({said}): leave engine out")
    return max(able, key=lambda each: each.rate), tried


def measure_here(probe: Probe, ready: Callable[[], object] = lambda: None) -> Measured:
    """Measure in this process; `ready` is called between the first round and those that count."""
    began = time.perf_counter()
    try:
        make = load(probe.engine)
        supplies = dict(islice(supplies_of(probe.fleet).items(), probe.devices))
        engine = make(probe.fleet.module, supplies, engine_options(probe.fleet, probe.engine, probe.training))
    except FedmqError as error:
        return Measured(probe.engine, refusal=str(error))
    model = engine.initial()  # one for all, as the devices of one process have it
    jobs = [Job(device, model, probe.training, 1) for device in supplies]
    engine.train(jobs)
    ready_s = time.perf_counter() - began
    ready()
    rates = _rates(engine, jobs, probe.seconds)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
    return Measured(probe.engine, engine.name, *rates, peak_mb=peak, ready_s=ready_s)


def _rates(engine: Engine, jobs: Sequence[Job], seconds: float) -> tuple[float, float]:
    """Train as in a simulation, where devices come one after the other: stack after stack on each thread."""
    turns, turn = cycle(jobs), threading.Lock()
    began, worked = time.perf_counter(), time.process_time()

    def train() -> int:
        done = 0
        while time.perf_counter() - began < seconds:
            with turn:
                batch = list(islice(turns, engine.stack))
            engine.train(batch)
            done += len(batch)
        return done

    with ThreadPoolExecutor(engine.threads) as pool:
        done = sum(each.result() for each in [pool.submit(train) for _ in range(engine.threads)])
    return done / (time.perf_counter() - began), done / (time.process_time() - worked)


def _probe(given: Mapping[str, Any]) -> Probe:
    table = {**given["fleet"], "module": ModuleName(given["fleet"]["module"])}
    return Probe(**{**given, "fleet": FleetTable(**table)})


if __name__ == "__main__":
    print(json.dumps(asdict(measure_here(_probe(json.loads(sys.argv[1]))))))  # noqa: T201  # what was asked for
