"""Rounds and bytes to a target accuracy, on data that is spread unevenly: the field's algorithms side by side.

Two worlds of 20 devices on MNIST's 5,000 images (Dirichlet 0.1 and 0.5, a perceptron in NumPy), and the ten persons
with smart watches (Keras, the demo's model). Every method has the same local training and codec; each method's own
numbers stand in `METHODS`, the same for all worlds. A round asks all devices; FedBuff's steps take five updates each,
so for it a "round" is as many steps as take in one update for each device.

    python -m benchmarks.convergence --json
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING, Final

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.ticker import PercentFormatter

from benchmarks.courses import (
    Buffer,
    Plan,
    Point,
    World,
    course,
    digits_world,
    people_world,
    reached,
    stream,
    two_processes,
)
from benchmarks.report import Goal, report
from fedmq.algorithms import FedDyn, FedNova, FedProx, Plain, Scaffold
from fedmq.rules import Adam, ByExamples, Finite, Momentum, Replace, Rule, Uniform
from fedmq.rules.guards import StalenessDiscount

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fedmq.algorithms import Algorithm

BUFFER: Final = Buffer(5, 0.5)
"""Devices' training times are exp(0.5 * normal): one in forty is 2.7 times slower than the middle one."""


@dataclass(frozen=True, slots=True)
class Method:
    """A rule, an algorithm, and whether it runs without rounds."""

    rule: Rule
    algorithm: Algorithm = field(default_factory=Plain)
    streams: bool = False


METHODS: Final[Mapping[str, Method]] = {
    "fedavg": Method(Rule(weigh=ByExamples())),
    "fedavgm": Method(Rule(weigh=ByExamples(), step=Momentum(beta=0.9))),
    "fedprox": Method(Rule(weigh=ByExamples()), FedProx(mu=0.1)),
    "scaffold": Method(Rule(weigh=ByExamples()), Scaffold()),
    "fednova": Method(Rule(weigh=ByExamples()), FedNova()),
    "feddyn": Method(Rule(weigh=Uniform()), FedDyn(alpha=0.01)),
    "fedadam": Method(Rule(weigh=ByExamples(), step=Adam(rate=0.01))),
    "fedbuff": Method(
        Rule(guards=(Finite(), StalenessDiscount()), weigh=ByExamples(), step=Replace(rate=0.5)), streams=True
    ),
}
COLOURS: Final = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#000000")
"""Okabe and Ito's palette, which colour-blind readers can tell apart."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One world, for how many rounds, and the accuracy to reach."""

    name: str
    rounds: int
    target: float

    def world(self, seed: int) -> World:
        """Build it."""
        if self.name == "by person":
            return people_world(seed)
        return digits_world(20, f"dirichlet({self.name.split()[-1]})", seed)

    @property
    def training(self) -> dict[str, int]:
        """Local work of a round."""
        return (
            {"epochs": 2, "batch_size": 32} if self.name == "by person" else {"epochs": 1, "batch_size": 16}
        )


SETTINGS: Final = (
    Setting("dirichlet 0.1", 60, 0.88),
    Setting("dirichlet 0.5", 60, 0.91),
    Setting("by person", 40, 0.90),
)


def points_of(setting: Setting, name: str, seed: int) -> list[Point]:
    """Run one method in one world; FedBuff's steps are thinned out and numbered as rounds."""
    method, world = METHODS[name], setting.world(seed)
    plan = Plan(method.rule, method.algorithm, training=setting.training)
    if not method.streams:
        return list(course(world, plan, setting.rounds, seed))
    each = len(world.trainers) // BUFFER.size
    steps = list(stream(world, plan, setting.rounds * each, seed, BUFFER))
    return [
        Point(p.round // each, p.time, p.accuracy, p.loss, p.bytes_up, p.refused)
        for p in steps[each - 1 :: each]
    ]


def main() -> None:
    """Run, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object last")
    parser.add_argument("--quick", action="store_true", help="two worlds, one seed, fifteen rounds")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--plot", help="write the curves to this PNG")
    given = parser.parse_args()
    seeds = range(1 if given.quick else given.seeds)
    settings = [Setting(s.name, 15, s.target - 0.08) for s in SETTINGS[:2]] if given.quick else SETTINGS
    found = run(settings, seeds)
    print_tables(settings, found)
    if given.plot:
        draw(given.plot, settings, found)
    figures = figures_of(settings, found)
    goals = [
        Goal(f"{s.name}: best method, rounds to target of FedAvg's", best_share(s, found), "<=", 0.7)
        for s in settings
    ]
    report(figures, goals, given.json)


Found = dict[tuple[str, str], list[list[Point]]]
"""For each world and method, the curves of all seeds."""


def run(settings: Sequence[Setting], seeds: range) -> Found:
    """Run everything, on two processes."""
    jobs = [(setting, name, seed) for setting in settings for name in METHODS for seed in seeds]
    found: Found = {}
    with two_processes() as pool:
        running = [pool.submit(points_of, *job) for job in jobs]
        for (setting, name, _), done in zip(jobs, running, strict=True):
            found.setdefault((setting.name, name), []).append(done.result())
    return found


def to_target(setting: Setting, curves: Sequence[Sequence[Point]]) -> tuple[float, float] | None:
    """Return mean rounds and bytes for each device, up, to the target; None where a seed did not reach it."""
    points = [reached(curve, setting.target) for curve in curves]
    devices = 10 if setting.name == "by person" else 20
    known = [point for point in points if point is not None]
    if len(known) < len(points):
        return None
    return fmean(p.round for p in known), fmean(p.bytes_up for p in known) / devices


def best_share(setting: Setting, found: Found) -> float:
    """Return the fewest rounds of any method as a share of FedAvg's, which count as all where it never gets there."""
    counts = {name: to_target(setting, found[setting.name, name]) for name in METHODS}
    rounds = [count[0] for count in counts.values() if count is not None]
    fedavg = counts["fedavg"]
    return min(rounds, default=setting.rounds) / (fedavg[0] if fedavg else setting.rounds)


def figures_of(settings: Sequence[Setting], found: Found) -> dict[str, float]:
    """Name every figure."""
    figures = {}
    for setting in settings:
        for name in METHODS:
            curves = found[setting.name, name]
            key = f"{setting.name}, {name}"
            figures[f"{key}: last accuracy"] = fmean(curve[-1].accuracy for curve in curves)
            if (there := to_target(setting, curves)) is not None:
                figures[f"{key}: rounds"], figures[f"{key}: bytes up a device"] = there
    return figures


def print_tables(settings: Sequence[Setting], found: Found) -> None:
    """Print one table for each world."""
    for setting in settings:
        print(f"\n{setting.name}: {setting.rounds} rounds, target {setting.target:.0%}")
        print(f"{'method':10} {'rounds':>7} {'kB up':>8} {'last':>7} {'worst seed':>11} {'loss':>7}")
        for name in METHODS:
            curves = found[setting.name, name]
            there = to_target(setting, curves)
            rounds, sent = (f"{there[0]:.1f}", f"{there[1] / 1000:.0f}") if there else ("-", "-")
            last = [curve[-1] for curve in curves]
            mean, worst = fmean(p.accuracy for p in last), min(p.accuracy for p in last)
            loss = fmean(p.loss for p in last)
            print(f"{name:10} {rounds:>7} {sent:>8} {mean:>7.1%} {worst:>11.1%} {loss:>7.3f}")


def draw(path: str, settings: Sequence[Setting], found: Found) -> None:
    """Draw accuracy by round, one panel for each world, means over the seeds."""
    figure, panels = plt.subplots(1, len(settings), figsize=(5 * len(settings), 4), layout="constrained")
    for panel, setting in zip(panels, settings, strict=True):
        for name, colour in zip(METHODS, COLOURS, strict=True):
            curves = found[setting.name, name]
            means = [fmean(p.accuracy for p in at) for at in zip(*curves, strict=True)]
            panel.plot(range(1, len(means) + 1), means, color=colour, label=name)
        panel.axhline(setting.target, color="#666666", linewidth=0.8, linestyle=":")
        panel.set(title=setting.name, xlabel="round", ylim=(0.4, 1.0))
        panel.yaxis.set_major_formatter(PercentFormatter(1.0))
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("accuracy on held-out data")
    panels[-1].legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
