"""What five worlds do to rules and codecs, in virtual time: hours and bytes to an accuracy, and what was in vain.

Six hundred devices draw their examples from MNIST's 5,000 images, a round asks one in twenty of them, and needs ten
answers (in the lab, a hundred devices are dealt all images out, and one in five is asked); softmax regression of 7,850
numbers, one local epoch. Every run ends at the target accuracy, or after so many rounds or simulated days. A training
was in vain whose update did not count: it came too late, or its device heard that the round was over.

    python -m benchmarks.worlds --json --plots docs/explanation
    python -m benchmarks.worlds --weeks 2 --devices 100000     # one long run of a large fleet, for time and memory
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.courses import processes
from benchmarks.report import Goal, report
from fedmq.aggregator.encodings import encoding
from fedmq.device.interface import ModuleName
from fedmq.protocol.policy import Policy, StopWhen
from fedmq.rules import preset
from fedmq.simulate import FleetTable, SimulationSettings
from fedmq.simulate.virtual import VirtualSimulation
from fedmq.simulate.virtual.play import spell_time
from fedmq.worlds import WORLD_PURPOSES, WORLDS, World

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fedmq.simulate.virtual.rows import VirtualRow

TARGET: Final = 0.8
WAYS: Final = (
    ("fedavg", "safe"),
    ("fedavg", "lean"),
    ("trimmed", "safe"),
    ("fedbuff", "safe"),
)
"""Rules, each with the encoding beside it."""
QUICK: Final = WAYS[:2]
ROUNDS: Final = Policy(
    fraction=0.05, min_devices=10, quorum=10, soft_deadline_s=2 * 3600.0, hard_deadline_s=12 * 3600.0
)
ASYNCHRONOUS: Final = {"fedbuff": 10}
"""Rules whose federations have no rounds, and the size of their buffers: about half of the answers of a round."""
TRAINING: Final = {"epochs": 1, "batch_size": 16, "learning_rate": 0.05}
HOUR_S: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Trial:
    """One run: a world, a rule and a codec."""

    world: str
    rule: str
    codec: str
    devices: int = 600
    rounds: int = 40
    days: float = 30.0
    seed: int = 0

    @property
    def name(self) -> str:
        """What figures and plots call it."""
        return f"{self.rule}, {self.codec}"

    @property
    def settings(self) -> SimulationSettings:
        """What is simulated."""
        buffer = ASYNCHRONOUS.get(self.rule, 0)
        world = WORLDS[self.world]
        rounds = replace(ROUNDS, fraction=ROUNDS.fraction if world.data else 0.2)
        if buffer:
            rounds = replace(rounds, buffer=buffer, quorum=buffer, max_staleness=20)
        return SimulationSettings(
            fleet_of(self.devices, self.seed, world),
            name=self.world,
            rounds=rounds,
            stop=StopWhen(rounds=self.rounds * (2 if buffer else 1), target=TARGET),
            rule=preset(self.rule),
            encoding=encoding(self.codec),
            training=dict(TRAINING),
            world=world,
            days=self.days,
        )

    def run(self) -> Course:
        """Run it."""
        simulation = VirtualSimulation(self.settings)
        simulation.run()
        return Course(self, tuple(simulation.rows))


def fleet_of(devices: int, seed: int, world: World) -> FleetTable:
    """Return a fleet that draws from MNIST, or where the world has no data of its own is dealt it out."""
    count = devices if world.data is not None else min(devices, 100)
    return FleetTable(
        ModuleName("benchmarks._digits"),
        data="mnist",
        devices=count,
        partition="dirichlet(0.5)",
        seed=seed,
        trainer="numpy",
        baselines=False,
    )


@dataclass(frozen=True, slots=True)
class Course:
    """What a run gave."""

    trial: Trial
    rows: tuple[VirtualRow, ...]

    @property
    def reached(self) -> bool:
        """Whether it came to the target."""
        return self.best >= TARGET

    @property
    def best(self) -> float:
        """The best accuracy."""
        return max((row.accuracy or 0.0 for row in self.rows), default=0.0)

    @property
    def hours(self) -> float:
        """Simulated time, in hours."""
        return self.rows[-1].hours if self.rows else 0.0

    @property
    def vain(self) -> float:
        """Share of the trainings that did not count."""
        trained = sum(row.trained for row in self.rows)
        return 1.0 - sum(row.accepted for row in self.rows) / trained if trained else 0.0

    @property
    def figures(self) -> dict[str, float]:
        """The figures, named as the report has them."""
        start = f"{self.trial.world} | {self.trial.name} |"
        accepted = sum(row.accepted for row in self.rows)
        return {
            f"{start} rounds": len(self.rows),
            f"{start} hours": round(self.hours, 3),
            f"{start} reached": float(self.reached),
            f"{start} best": round(self.best, 4),
            f"{start} MB up": round(sum(row.bytes_up for row in self.rows) / 1e6, 3),
            f"{start} MB down": round(sum(row.bytes_down for row in self.rows) / 1e6, 3),
            f"{start} in vain": round(self.vain, 4),
            f"{start} cuts": sum(row.cuts for row in self.rows),
            f"{start} J an update": round(sum(row.joules for row in self.rows) / max(1, accepted), 2),
        }


def main() -> None:
    """Parse the command line, run, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one rule, two codecs, small fleets, few rounds")
    parser.add_argument("--json", action="store_true", dest="as_json", help="end with one JSON object")
    parser.add_argument("--world", choices=WORLDS, action="append", help="this world only (may be repeated)")
    parser.add_argument("--plots", type=Path, help="folder for one picture of each world")
    parser.add_argument("--weeks", type=float, help="instead: one run of so many simulated weeks")
    parser.add_argument("--devices", type=int, default=100_000, help="of that run")
    options = parser.parse_args()
    if options.weeks:
        report(*long_run(options.devices, options.weeks), options.as_json)
        return
    courses = run(trials(options.world or list(WORLDS), quick=options.quick))
    print_tables(courses)
    if options.plots:
        draw(courses, options.plots)
    figures = {name: value for course in courses for name, value in course.figures.items()}
    report(figures, [], options.as_json)


def trials(worlds: Sequence[str], *, quick: bool) -> list[Trial]:
    """Return all runs."""
    found = [Trial(world, *way) for world in worlds for way in (QUICK if quick else WAYS)]
    return [replace(trial, devices=200, rounds=4) for trial in found] if quick else found


def run(cells: Sequence[Trial]) -> list[Course]:
    """Run everything, on two processes."""
    courses: list[Course] = []
    with processes(2) as pool:
        for course in pool.map(Trial.run, cells):
            print(f"{course.trial.world:18}{_row(course)}", file=sys.stderr, flush=True)
            courses.append(course)
    return courses


def print_tables(courses: Sequence[Course]) -> None:
    """Print a table for each world."""
    for world in dict.fromkeys(course.trial.world for course in courses):
        print(f"\n{world}: {WORLD_PURPOSES[world]}")
        print(
            f"{'rule, codec':18}{'rounds':>8}{'time':>10}{'best':>8}{'up':>10}{'down':>10}{'in vain':>9}{'J':>7}"
        )
        for course in courses:
            if course.trial.world == world:
                print(_row(course))


def _row(course: Course) -> str:
    """Return a row; a star marks a target that was not reached."""
    figures = {name.rpartition("| ")[2]: value for name, value in course.figures.items()}
    star = " " if course.reached else "*"
    return (
        f"{course.trial.name:18}{len(course.rows):>7}{star}{spell_time(course.hours * HOUR_S):>10}{course.best:>8.1%}"
        f"{figures['MB up']:>8.2f} M{figures['MB down']:>8.2f} M{course.vain:>9.1%}{figures['J an update']:>7.1f}"
    )


def draw(courses: Sequence[Course], folder: Path) -> None:
    """Write one picture of each world."""
    from fedmq.simulate.virtual.plot import draw as draw_runs  # noqa: PLC0415 - matplotlib is not always there

    for world in dict.fromkeys(course.trial.world for course in courses):
        runs = {course.trial.name: course.rows for course in courses if course.trial.world == world}
        draw_runs(folder / f"world-{world}.png", world, runs, TARGET)


def long_run(devices: int, weeks: float) -> tuple[dict[str, float], list[Goal]]:
    """Run a large fleet for long; return time and memory."""
    world, cohort = WORLDS["phones-by-night"], devices // 100
    enough = round(0.85 * cohort)
    policy = Policy(
        fraction=0.01,
        min_devices=enough,
        quorum=enough,
        soft_deadline_s=12 * HOUR_S,
        hard_deadline_s=12 * HOUR_S,
    )
    settings = SimulationSettings(
        fleet_of(devices, 0, world),
        rounds=policy,
        stop=StopWhen(),
        rule=preset("fedavgm"),
        encoding=encoding("safe"),
        training=dict(TRAINING),
        world=world,
        days=7 * weeks,
    )
    memory: list[float] = []
    began = time.process_time()
    simulation = VirtualSimulation(settings, on_round=lambda _: memory.append(_memory_mb()))
    simulation.run()
    seconds, accepted = time.process_time() - began, sum(row.accepted for row in simulation.rows)
    figures = {
        "devices": float(devices),
        "simulated days": 7 * weeks,
        "rounds": float(len(simulation.rows)),
        "device-rounds": float(accepted),
        "CPU s": round(seconds, 1),
        "CPU ms a device-round": round(1e3 * seconds / max(1, accepted), 3),
        "accuracy": simulation.outcome.accuracy or 0.0,
        "MB after the first round": memory[0] if memory else 0.0,
        "MB after the last round": memory[-1] if memory else 0.0,
    }
    grown = figures["MB after the last round"] - figures["MB after the first round"]
    return figures, [Goal("CPU minutes", seconds / 60, "<=", 15), Goal("MB more at the end", grown, "<=", 50)]


def _memory_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
