"""Four families of averaging rules, side by side, on data that is spread unevenly over the devices.

Every curve but two is a whole federation: an aggregator and its devices, each with an MQTT session of its own, on a
broker in memory. The two others are training with all data in one place, and the sum that many tutorials call an
average.

    python examples/four_rules.py --data both --rounds 30 --seeds 2 --out runs/four-rules

NumPy's matrix products are small here: set OPENBLAS_NUM_THREADS=1 in the environment, or they wait for one another.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import MaxNLocator, PercentFormatter

from fedmq.datasets import deal, mnist
from fedmq.device.interface import ModuleName
from fedmq.protocol.policy import Policy, StopWhen
from fedmq.rules import (
    Blend,
    ByExamples,
    ByMetric,
    ExamplesBound,
    Finite,
    Momentum,
    NormClip,
    Rule,
    Uniform,
    preset,
)
from fedmq.simulate import FleetTable, Simulation, SimulationSettings
from fedmq.simulate.fleet import Fleet, build_fleet
from fedmq.trainers.numpy import Mlp, NumpyTrainer
from fedmq.transport.memory import MemoryBroker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from matplotlib.axes import Axes

    from fedmq.device.interface import Setting
    from fedmq.simulate.runfolder import RoundRow
    from fedmq.vectors import Vector

POOLED: Final = "all data in one place"
WRONG: Final = "(model + device) / n"
GREY: Final = "#666666"

# --- what is compared -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Method:
    """A rule, how many local epochs a round has, and what share of the fleet a round asks."""

    name: str
    colour: str  # out of Okabe and Ito's palette, which colour-blind readers can tell apart
    rule: Rule
    epochs: int = 1
    fraction: float = 1.0


METHODS: Final = (
    Method("simple average", "#E69F00", Rule(weigh=Uniform())),
    Method("weighted by examples", "#56B4E9", Rule(weigh=ByExamples())),
    Method("weighted by quality", "#CC79A7", Rule(weigh=ByMetric())),
    Method("federated averaging", "#0072B2", preset("fedavg"), epochs=5, fraction=0.5),
    Method(
        "hybrid",
        "#D55E00",
        Rule(
            guards=(Finite(), ExamplesBound(), NormClip(2.0)),
            weigh=Blend((ByExamples(), ByMetric()), (0.5, 0.5)),
            step=Momentum(beta=0.8),
        ),
    ),
)

COLOURS: Final = {POOLED: "black", **{method.name: method.colour for method in METHODS}}


def not_a_mean(model: Vector, devices: Sequence[Vector]) -> Vector:
    """Return what many tutorials call the average. Do not use it.

    The last device weighs 1/n, the one before it 1/n², and so on: ten devices that all send ones give 0.11.
    """
    for device in devices:
        model = (model + device) / np.float32(len(devices))
    return model


# --- where the data is ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class World:
    """A fleet by seed, and the batch size of its trainers."""

    name: str
    title: str
    build: Callable[[int], Fleet]
    batch_size: int


def digits(seed: int) -> Fleet:
    """Return 20 devices with handwritten digits; most know two or three of the ten digits well.

    Each device holds a fifth of its own digits out, from which the quality that it reports comes. The curves are
    judged on a thousand digits of everyone's that no device trains on.
    """
    data, network = mnist(), Mlp(784, (64,), classes=10)
    trainers = {}
    for number, rows in enumerate(deal("dirichlet(0.2)", data, devices=20, seed=seed), 1):
        mixed = np.random.default_rng(seed).permutation(rows)
        held, own = np.split(mixed, [max(1, len(mixed) // 5)])
        trainers[f"device-{number:02}"] = NumpyTrainer(
            network, data.x[own], data.y[own], held_out=(data.x[held], data.y[held]), seed=seed
        )
    pooled = NumpyTrainer(network, data.x, data.y, held_out=(data.x_test, data.y_test), seed=seed)
    return Fleet(trainers, pooled, "20 devices")


def watches(seed: int) -> Fleet:
    """Return ten people's smart watches, each a device, and the Keras model that comes with fedmq."""
    module = ModuleName("fedmq.demos.smartwatch")
    return build_fleet(FleetTable(module, data="smartwatch", devices=10, seed=seed, options={"threads": 1}))


WORLDS: Final = {
    "mnist": World("mnist", "Handwritten digits: 20 devices, Dirichlet(0.2)", digits, 16),
    "smartwatch": World("smartwatch", "Smart watches: 10 people, 10 devices", watches, 32),
}

# --- the runs ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Course:
    """Runs of one method, one entry a seed.

    `accuracies` on everyone's held-out data after each round; `passes` over the fleet's data, the cost in training;
    `megabytes` of MQTT payload, up and down, None where nothing is sent.
    """

    accuracies: list[list[float]] = field(default_factory=list)
    passes: list[float] = field(default_factory=list)
    megabytes: list[float] = field(default_factory=list)

    def add(self, accuracies: Iterable[float], passes: float, megabytes: float | None = None) -> None:
        """Add one run."""
        self.accuracies.append(list(accuracies))
        self.passes.append(passes)
        if megabytes is not None:
            self.megabytes.append(megabytes)

    def at(self, round_: int) -> float:
        """Return the mean over the seeds after round `round_`, counted from 1."""
        return fmean(row[round_ - 1] for row in self.accuracies)


def federate(world: World, fleet: Fleet, method: Method, rounds: int) -> Sequence[RoundRow]:
    """Run one federation; return what is known of its rounds."""
    broker = MemoryBroker()
    with TemporaryDirectory() as folder:
        simulation = Simulation(settings_for(world, len(fleet.trainers), method, rounds), fleet, Path(folder))
        return asyncio.run(simulation.run(lambda: broker)).rows


def settings_for(world: World, devices: int, method: Method, rounds: int) -> SimulationSettings:
    """Return the simulation's settings; its fleet is built already."""
    asked = int(devices * method.fraction)
    return SimulationSettings(
        fleet=FleetTable(ModuleName("-"), devices=devices, baselines=False),
        name=world.name,
        rounds=Policy(
            method.fraction, min_devices=devices, quorum=asked, soft_deadline_s=300, hard_deadline_s=600
        ),
        stop=StopWhen(rounds=rounds),
        rule=method.rule,
        training={"epochs": method.epochs, "batch_size": world.batch_size},
    )


def note(course: Course, method: Method, fleet: Fleet, rows: Sequence[RoundRow]) -> None:
    """Add a federation's rounds to the method's course."""
    passes = method.epochs * sum(row.accepted for row in rows) / len(fleet.trainers)
    megabytes = sum(row.bytes_up + row.bytes_down for row in rows) / 1e6
    course.add((row.accuracy or 0.0 for row in rows), passes, megabytes)


def pool(world: World, fleet: Fleet, rounds: int) -> Iterator[float]:
    """Train with all data in one place, one epoch a round; yield the accuracy after each."""
    trainer = judge(fleet)
    vector = trainer.initial()
    for round_ in range(rounds):
        vector = trainer.train(vector, {"batch_size": world.batch_size}, seed=round_).vector
        yield accuracy(fleet, vector)


def mistake(world: World, fleet: Fleet, rounds: int) -> Iterator[float]:
    """Train as the simple average does, and put `not_a_mean` in the place of the mean; yield the accuracies."""
    settings: Mapping[str, Setting] = {"batch_size": world.batch_size}
    trainers = list(fleet.trainers.values())
    vector = trainers[0].initial()
    for round_ in range(rounds):
        vector = not_a_mean(vector, [one.train(vector, settings, seed=round_).vector for one in trainers])
        yield accuracy(fleet, vector)


def judge(fleet: Fleet) -> Any:  # noqa: ANN401 - the fleet's trainer, whichever engine it has
    """Return the trainer that holds everyone's data."""
    assert fleet.pooled is not None
    return fleet.pooled


def accuracy(fleet: Fleet, vector: Vector) -> float:
    """Return how many of everyone's held-out examples the model gets right, from 0 to 1."""
    return float(judge(fleet).evaluate(vector).get("accuracy", 0.0))


def explore(world: World, rounds: int, seeds: int) -> dict[str, Course]:
    """Run every method for every seed, telling which as it goes."""
    courses = {name: Course() for name in [*(method.name for method in METHODS), WRONG, POOLED]}
    for seed in range(seeds):
        fleet = world.build(seed)
        for method in METHODS:
            began = time.monotonic()
            note(courses[method.name], method, fleet, federate(world, fleet, method, rounds))
            print(f"{world.name}, seed {seed}: {method.name} in {time.monotonic() - began:.0f} s", flush=True)
        courses[WRONG].add(mistake(world, fleet, rounds), rounds)
        courses[POOLED].add(pool(world, fleet, rounds), rounds)
    return courses


# --- what is shown ----------------------------------------------------------------------------------------------------


def table(world: World, courses: Mapping[str, Course], rounds: int) -> str:
    """Return the figures as text."""
    marks = sorted({10, 20, rounds} & set(range(1, rounds + 1)))
    seeds = len(courses[POOLED].accuracies)
    head = "".join(f"{f'round {mark}':>10}" for mark in marks)
    lines = [f"{world.title}; mean of {seeds} seeds", f"{'':<22}{head}{'passes':>9}{'traffic':>11}"]
    for name, course in courses.items():
        figures = "".join(f"{course.at(mark):>10.1%}" for mark in marks)
        traffic = f"{fmean(course.megabytes):.1f} MB" if course.megabytes else "none"
        lines.append(f"{name:<22}{figures}{fmean(course.passes):>9.0f}{traffic:>11}")
    return "\n".join(lines)


def draw(path: Path, found: Mapping[str, Mapping[str, Course]]) -> None:
    """Write the picture: one panel a world, one curve a method."""
    with plt.rc_context({"axes.spines.top": False, "axes.spines.right": False}):
        size = (6.6 * len(found), 5.8)
        figure, panels = plt.subplots(1, len(found), figsize=size, layout="constrained", squeeze=False)
        for axes, (name, courses) in zip(panels[0], found.items(), strict=True):
            axes.set_title(WORLDS[name].title, loc="left", fontweight="bold")
            curves(axes, courses)
            label_ends(axes, courses)
        panels[0][0].set_ylabel("accuracy on everyone's held-out data")
        figure.savefig(path, dpi=110)
        plt.close(figure)


def curves(axes: Axes, courses: Mapping[str, Course]) -> None:
    """Draw for each method the mean over its seeds, and a band from the worst to the best."""
    for name, course in courses.items():
        rows = np.asarray(course.accuracies)
        x = np.arange(1, rows.shape[1] + 1)
        line = {POOLED: "--", WRONG: ":"}.get(name, "-")
        colour = COLOURS.get(name, GREY)
        axes.plot(x, rows.mean(axis=0), color=colour, lw=1.3 if name == POOLED else 2.0, ls=line)
        axes.fill_between(x, rows.min(axis=0), rows.max(axis=0), color=colour, alpha=0.12, lw=0)
    axes.set(xlabel="round", xlim=(1, len(courses[POOLED].accuracies[0])), ylim=(0, 1))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.grid(axis="y", color="#e2e2e2", lw=0.8)
    axes.set_axisbelow(True)


def label_ends(axes: Axes, courses: Mapping[str, Course]) -> None:
    """Write each curve's last value and name beside its end, moved down where they would overlap."""
    last, above = len(courses[POOLED].accuracies[0]), 1.05
    for name, course in sorted(courses.items(), key=lambda item: -item[1].at(last)):
        value, colour = course.at(last), COLOURS.get(name, GREY)
        above = min(value, above - 0.048)
        axes.annotate(
            f"{value:.1%}  {name}",
            (last, value),
            (last * 1.05, above),
            color=colour,
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.7, "relpos": (0, 0.5), "shrinkB": 0},
        )


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", choices=[*WORLDS, "both"], default="both")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument(
        "--seeds", type=int, default=2, help="runs of each method; curves show their mean and spread"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/four-rules"), help="folder for picture and figures"
    )
    parser.add_argument("--quick", action="store_true", help="two rounds, one seed: does it work at all?")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, print the tables, and leave four-rules.png and four-rules.json in the folder."""
    options = parsed(arguments)
    rounds, seeds = (2, 1) if options.quick else (options.rounds, options.seeds)
    began, found = time.monotonic(), {}
    for world in [WORLDS[name] for name in (WORLDS if options.data == "both" else [options.data])]:
        found[world.name] = explore(world, rounds, seeds)
        print(f"\n{table(world, found[world.name], rounds)}\n", flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    draw(options.out / "four-rules.png", found)
    figures = {
        world: {name: asdict(course) for name, course in courses.items()} for world, courses in found.items()
    }
    (options.out / "four-rules.json").write_text(json.dumps(figures) + "\n", encoding="utf-8")
    print(
        f"{time.monotonic() - began:.0f} s, of which {time.process_time():.0f} s of one core; see {options.out}/"
    )


if __name__ == "__main__":
    main()
