"""Whole simulations: device-rounds in a second, processor time and memory, beside Flower's simulation.

A device-round is all of it: hearing of the round, fetching the model, one epoch over 50 examples in batches of 10 of a
perceptron of 101,770 parameters on the numpy engine, encoding, sending, averaging, and the receipt, over an MQTT
session of the device's own at QoS 1 and a private mosquitto. Updates travel as ``stateless``. The first round, in which
everyone connects and fetches a whole model, is left out.

Each fleet is simulated in this process' children: once with everything but the broker in one process, once with the
devices in two others. Processor time is that of all processes, the broker's included, in the rounds that count. Linux
only, as it reads /proc.

Where `--flower` or FLOWER_PYTHON names a Python that has ``flwr[simulation]``, Flower does the same work there on as
many clients, up to a thousand: see `benchmarks._fleet_flower`.

    python -m benchmarks.fleet [--flower PYTHON] [--quick] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks._processes import Taken, family
from benchmarks.report import Goal, report
from fedmq.device.interface import ModuleName
from fedmq.simulate.measuring import Probe, measure
from fedmq.simulate.settings import FleetTable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

SIZES: Final = {100: 20, 1_000: 6, 10_000: 3}
"""Devices, and how many rounds are timed."""
QUICK: Final = {20: 2, 40: 2}
PROCESSES: Final = (1, 2)
FLOWER_SIZES: Final = {100: 4, 1_000: 2}
QUICK_FLOWER: Final = {20: 2}
MOST_MB: Final = 1_000.0
LONGEST_ROUND_S: Final = 20.0
LEAST_RATE: Final = 1_000.0
TIMES_FLOWER: Final = 30.0
MOST_GROWTH: Final = 1.5
PATIENCE_S: Final = 900.0
LOOK_S: Final = 0.5
"""Pause between two looks at Flower's processes."""
HERE: Final = Path(__file__).resolve().parent
ENVIRONMENT: Final = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
WORLD: Final = """
name = "fleet"
[fleet]
module = "{module}"
devices = {devices}
engine = "numpy"
baselines = false
processes = {processes}
[rounds]
min_devices = {devices}
quorum = {devices}
soft_deadline_s = 600
hard_deadline_s = 600
[stop]
rounds = {rounds}
[encoding]
preset = "stateless"
[training]
epochs = 1
batch_size = 10
"""


@dataclass(frozen=True, slots=True)
class Mark:
    """The end of a round: when, and what all processes had taken until then, by process number."""

    time: float
    taken: Mapping[int, Taken]


@dataclass(frozen=True, slots=True)
class Measured:
    """One simulation: `seconds` for each round, processor milliseconds for each device-round in all and by part.

    Memory is of all processes together at the end; `aggregator_mb` and its growth behind the first round are resident
    memory of the process that has the aggregator in it.
    """

    devices: int
    seconds: float
    parts_ms: Mapping[str, float]
    rss_mb: float
    pss_mb: float
    aggregator_mb: float
    growth_mb: float

    @property
    def rate(self) -> float:
        """Device-rounds in a second."""
        return self.devices / self.seconds

    @property
    def cpu_ms(self) -> float:
        """Processor milliseconds for each device-round."""
        return sum(self.parts_ms.values())

    def figures(self, name: str) -> dict[str, float]:
        """Return what is to be told, under names that begin with `name`."""
        parts = {f"{name}: processor ms, {part}": spent for part, spent in self.parts_ms.items()}
        return {
            f"{name}: device-rounds/s": self.rate,
            f"{name}: processor ms": self.cpu_ms,
            **(parts if len(parts) > 1 else {}),
            f"{name}: resident MB": self.rss_mb,
            f"{name}: proportional MB": self.pss_mb,
            **({f"{name}: aggregator's process MB": self.aggregator_mb} if self.aggregator_mb else {}),
            **({f"{name}: its growth MB": self.growth_mb} if self.aggregator_mb else {}),
        }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument(
        "--flower", default=os.environ.get("FLOWER_PYTHON"), help="a Python with flwr[simulation]"
    )
    parser.add_argument(
        "--devices", type=int, action="append", help="only fleets of so many (may be given again)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="fleets of 20 and 40 devices, to see that it works"
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON, too")
    given = parser.parse_args(arguments)
    sizes, peers = (QUICK, QUICK_FLOWER) if given.quick else (SIZES, FLOWER_SIZES)
    chosen = {size: rounds for size, rounds in sizes.items() if not given.devices or size in given.devices}
    found = {
        (size, count): simulate(size, rounds, count) for size, rounds in chosen.items() for count in PROCESSES
    }
    flower = {
        size: simulate_flower(given.flower, size, peers[size])
        for size in peers
        if given.flower and size in chosen
    }
    engine = engine_rate(1.0 if given.quick else 5.0)
    figures = {"engine alone: device-rounds/s": engine[0], "engine alone: processor ms": engine[1]}
    for (size, count), one in found.items():
        figures |= one.figures(f"{size} in {count}")
    for size, one in flower.items():
        figures |= one.figures(f"{size} on flower")
    report(figures, list(goals(found, flower)), given.json)


def goals(found: Mapping[tuple[int, int], Measured], flower: Mapping[int, Measured]) -> Iterator[Goal]:
    """Yield the goals that these fleets can tell of."""
    for size in sorted({size for size, _ in found}):
        best = min((one for (each, _), one in found.items() if each == size), key=lambda one: one.seconds)
        if size == 1_000:
            yield Goal("1,000 devices: device-rounds/s", best.rate, ">=", LEAST_RATE)
            yield Goal("1,000 devices: MB in all", best.pss_mb, "<", MOST_MB)
        if size == 10_000:
            yield Goal("10,000 devices: seconds a round", best.seconds, "<=", LONGEST_ROUND_S)
        if size in flower:
            yield Goal(f"{size:,} devices: times Flower's", best.rate / flower[size].rate, ">", TIMES_FLOWER)
    for count in PROCESSES:
        costs = [one.cpu_ms for (_, each), one in found.items() if each == count]
        if len(costs) > 1:
            name = f"dearest device-round to cheapest over sizes, in {count}"
            yield Goal(name, max(costs) / min(costs), "<=", MOST_GROWTH)


# --- fedmq ------------------------------------------------------------------------------------------------------------


def simulate(devices: int, rounds: int, processes: int) -> Measured:
    """Run ``fedmq simulate``, one round more than are timed."""
    with tempfile.TemporaryDirectory(prefix="fedmq-fleet-") as folder:
        world = Path(folder, "world.toml")
        module = json.dumps(str(HERE / "_fleet_mlp.py"))[1:-1]
        world.write_text(
            WORLD.format(module=module, devices=devices, rounds=rounds + 1, processes=processes),
            encoding="utf-8",
        )
        command = [
            sys.executable,
            "-m",
            "fedmq.cli",
            "simulate",
            str(world),
            "--json",
            "--out",
            f"{folder}/run",
        ]
        running = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT, cwd=HERE.parent
        )
        with running:
            limit = _limit(running)
            marks = [
                Mark(time.perf_counter(), family(running.pid))
                for line in running.stdout or ()
                if _full(line, devices)
            ]
            limit.cancel()
    if running.returncode or len(marks) <= rounds:
        raise SystemExit(
            f"a simulation of {devices} devices ended after {len(marks)} of {rounds + 1} full rounds"
        )
    one = _measured(devices, marks, running.pid)
    print(
        f"  {devices:,} devices in {processes}: {one.rate:,.0f} device-rounds/s, {one.cpu_ms:.2f} ms",
        flush=True,
    )
    return one


def _full(line: str, devices: int) -> bool:
    """Tell whether a line is of a round in which everyone's update counted; others would look too fast."""
    row = json.loads(line)
    return row.get("accepted") == devices and "round" in row


def _measured(devices: int, marks: Sequence[Mark], pid: int) -> Measured:
    begin, end = marks[0], marks[-1]
    count = devices * (len(marks) - 1)
    parts: dict[str, float] = {}
    for each, taken in end.taken.items():
        before = begin.taken.get(each, Taken("", 0.0, 0.0, 0.0))
        spent, looped = taken.cpu_s - before.cpu_s, taken.loop_s - before.loop_s
        for part, seconds in _parts(each, taken, pid, spent, looped, alone=len(end.taken) <= 2):
            parts[part] = parts.get(part, 0.0) + 1e3 * seconds / count
    return Measured(
        devices,
        (end.time - begin.time) / (len(marks) - 1),
        parts,
        sum(taken.rss_mb for taken in end.taken.values()),
        sum(taken.pss_mb for taken in end.taken.values()),
        end.taken[pid].rss_mb,
        end.taken[pid].rss_mb - begin.taken[pid].rss_mb,
    )


def _parts(  # noqa: PLR0913 - what was taken, and whose it is
    number: int, taken: Taken, pid: int, spent: float, looped: float, *, alone: bool
) -> Iterator[tuple[str, float]]:
    """Yield what a process did, and the seconds that it spent on that: messages in its event loop, else computing."""
    if taken.name.startswith("mosquitto"):
        yield "broker", spent
        return
    ours = "devices and aggregator" if alone else "aggregator"
    who = ours if number == pid else "devices"
    yield f"{who}: messages", looped
    yield f"{who}: computing", spent - looped


def _limit(running: subprocess.Popen[str]) -> threading.Timer:
    """End a simulation that hangs."""
    timer = threading.Timer(PATIENCE_S, running.kill)
    timer.daemon = True
    timer.start()
    return timer


# --- peers ------------------------------------------------------------------------------------------------------------


def engine_rate(seconds: float) -> tuple[float, float]:
    """Return the engine's own device-rounds in a second, and the processor milliseconds of one."""
    fleet = FleetTable(ModuleName("benchmarks._fleet_mlp"), devices=100)
    found = measure(Probe("numpy", fleet, {"epochs": 1, "batch_size": 10}, 100, seconds))
    if found.refusal:
        raise SystemExit(str(found))
    return found.rate, 1e3 / found.cpu_rate


def simulate_flower(python: str, devices: int, rounds: int) -> Measured:
    """Run Flower's simulation, one round more than are timed, and look at its processes meanwhile.

    Its program runs from a folder of its own: Ray's processes look for modules beside it, and here are such that are
    called like Python's.
    """
    looks: list[tuple[float, Mapping[int, Taken]]] = []
    with tempfile.TemporaryDirectory(prefix="fedmq-flower-") as folder:
        program, output = Path(folder, "fleet_flower.py"), Path(folder, "output")
        shutil.copy(HERE / "_fleet_flower.py", program)
        command, environment = [python, str(program), str(devices), str(rounds + 1)], dict(ENVIRONMENT)
        environment.pop("PYTHONPATH", None)
        with output.open("w") as file:
            running = subprocess.Popen(
                command, stdout=file, stderr=subprocess.DEVNULL, text=True, env=environment, cwd=folder
            )
            limit = _limit(running)
            while running.poll() is None:
                looks.append((time.time(), family(running.pid)))
                time.sleep(LOOK_S)
            limit.cancel()
        said = output.read_text(encoding="utf-8").strip().splitlines()
    if running.returncode or not said:
        raise SystemExit(f"Flower's simulation of {devices} clients ended with code {running.returncode}")
    found = json.loads(said[-1])
    one = _of_flower(devices, found["rounds"][1:], looks)
    print(f"  {devices:,} clients on flower {found['version']}: {one.rate:,.1f} device-rounds/s", flush=True)
    return one


def _of_flower(
    devices: int, rounds: Sequence[Sequence[float]], looks: Sequence[tuple[float, Mapping[int, Taken]]]
) -> Measured:
    """Take what was seen from the first timed round's begin to the last one's end for the whole of that time."""
    begin, end = rounds[0][0], rounds[-1][1]
    inside = [(at, taken) for at, taken in looks if begin <= at <= end]
    spent = sum(_cpu_between(before, after) for (_, before), (_, after) in pairwise(inside))
    cores = spent / max(inside[-1][0] - inside[0][0], LOOK_S)
    peak = max((taken for _, taken in inside), key=lambda taken: sum(each.pss_mb for each in taken.values()))
    return Measured(
        devices,
        sum(after - before for before, after in rounds) / len(rounds),
        {"all": 1e3 * cores * (end - begin) / (devices * len(rounds))},
        sum(each.rss_mb for each in peak.values()),
        sum(each.pss_mb for each in peak.values()),
        0.0,
        0.0,
    )


def _cpu_between(before: Mapping[int, Taken], after: Mapping[int, Taken]) -> float:
    return sum(taken.cpu_s - (before[each].cpu_s if each in before else 0.0) for each, taken in after.items())


if __name__ == "__main__":
    main()
