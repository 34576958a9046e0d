"""Which rule brings ten persons with smart watches closest to training on everyone's data in one place?

For each seed one person takes no part (seed 0 leaves out the first, and so on). The other nine train the demo's Keras
model, one device each, two epochs a round. Judged are the nine on what they held back, and the tenth, whom no device
has ever seen. "pooled" trains one model on the nine's data for as many epochs.

    python -m benchmarks.people --json
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING, Final

from benchmarks.courses import Plan, course, people_world, reached, two_processes
from benchmarks.report import Goal, report
from fedmq.algorithms import FedDyn, FedProx, Plain, Scaffold
from fedmq.rules import AnyRule, ByExamples, Momentum, NormClip, Rule, preset

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fedmq.algorithms import Algorithm
    from fedmq.vectors import Vector

TRAINING: Final = {"epochs": 2, "batch_size": 32}
TARGET: Final = 0.9


@dataclass(frozen=True, slots=True)
class Method:
    """A rule and an algorithm."""

    rule: AnyRule
    algorithm: Algorithm = field(default_factory=Plain)


METHODS: Final[Mapping[str, Method]] = {
    "fedavg": Method(preset("fedavg")),
    "momentum 0.9": Method(preset("fedavgm")),
    "momentum 0.9, nesterov": Method(Rule(weigh=ByExamples(), step=Momentum(nesterov=True))),
    "momentum 0.9, clipped": Method(Rule(guards=(NormClip(3.0),), weigh=ByExamples(), step=Momentum())),
    "fedprox": Method(preset("fedavgm"), FedProx(mu=0.01)),
    "scaffold": Method(preset("fedavg"), Scaffold()),
    "scaffold, momentum": Method(preset("fedavgm"), Scaffold()),
    "feddyn": Method(preset("average"), FedDyn(alpha=0.01)),
    "fedadam": Method(preset("fedadam")),
    "median, momentum": Method(Rule(reduce=preset("median").reduce, step=Momentum())),
}


@dataclass(frozen=True, slots=True)
class Trial:
    """One method with one person left out; "pooled" is a method too."""

    method: str
    seed: int
    rounds: int

    def run(self) -> dict[str, float]:
        """Return the figures of the run."""
        return self._pooled() if self.method == "pooled" else self._federated()

    def _federated(self) -> dict[str, float]:
        method = METHODS[self.method]
        world = people_world(self.seed, self.seed % 10)
        models: list[Vector] = []
        plan = Plan(method.rule, method.algorithm, training=TRAINING)
        points = list(course(world, plan, self.rounds, self.seed, keep=models))
        first = reached(points, TARGET)
        return {
            "known": points[-1].accuracy,
            "unseen": float(world.stranger.evaluate(models[-1])["accuracy"]) if world.stranger else 0.0,
            "kB up": points[-1].bytes_up / len(world.trainers) / 1000,
            "rounds to 90 %": float(first.round) if first else float("nan"),
        }

    def _pooled(self) -> dict[str, float]:
        world = people_world(self.seed, self.seed % 10)
        training = {**TRAINING, "epochs": TRAINING["epochs"] * self.rounds}
        vector = world.judge.train(world.judge.initial(), training, seed=self.seed).vector
        return {
            "known": float(world.judge.evaluate(vector)["accuracy"]),
            "unseen": float(world.stranger.evaluate(vector)["accuracy"]) if world.stranger else 0.0,
        }


def main() -> None:
    """Run and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object last")
    parser.add_argument("--quick", action="store_true", help="one seed, five rounds, three methods")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=30)
    given = parser.parse_args()
    names = ["fedavg", "momentum 0.9", "pooled"] if given.quick else [*METHODS, "pooled"]
    seeds, rounds = (1, 5) if given.quick else (given.seeds, given.rounds)
    trials = [Trial(name, seed, rounds) for name in names for seed in range(seeds)]
    with two_processes() as pool:
        found = list(pool.map(Trial.run, trials))
    table = {
        name: [figures for trial, figures in zip(trials, found, strict=True) if trial.method == name]
        for name in names
    }
    print_table(table, rounds)
    figures = {
        f"{name}: {what}": fmean(run[what] for run in runs)
        for name, runs in table.items()
        for what in runs[0]
    }
    best = max(figures[f"{name}: known"] for name in names if name != "pooled")
    report(
        figures,
        [Goal("best rule, known persons, below pooled", figures["pooled: known"] - best, "<=", 0.03)],
        given.json,
    )


def print_table(table: Mapping[str, list[dict[str, float]]], rounds: int) -> None:
    """Print a row for each method: means over the seeds, and the worst seed."""
    print(f"{rounds} rounds of two epochs")
    print(
        f"{'method':24} {'nine known':>10} {'worst':>7} {'unseen':>7} {'worst':>7} {'to 90 %':>8} {'kB up':>7}"
    )
    for name, runs in table.items():
        known, unseen = [run["known"] for run in runs], [run["unseen"] for run in runs]
        rest = ""
        if "kB up" in runs[0]:
            rest = f"{fmean(r['rounds to 90 %'] for r in runs):>8.1f} {fmean(r['kB up'] for r in runs):>7.0f}"
        print(
            f"{name:24} {fmean(known):>10.1%} {min(known):>7.1%} {fmean(unseen):>7.1%} {min(unseen):>7.1%} {rest}"
        )


if __name__ == "__main__":
    main()
