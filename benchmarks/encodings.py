"""Which encoding each preset of rules can do with: accuracy with nothing lost, and with what encodings lose.

MNIST's 5,000 images on 20 devices (Dirichlet 0.5), a perceptron of 50,890 numbers, one local epoch a round, all devices
in each round. Every update is encoded and decoded; models go down as they are. Rules and codecs that fedmq would refuse
to pair are run here all the same, to see why: their cells have a star. With attackers, the first of them flip signs,
four times as long; they send what they like, in no codec.

    python -m benchmarks.encodings --json
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Final

from benchmarks.courses import Plan, course, digits_world, two_processes
from benchmarks.report import Goal, report
from fedmq.aggregator.encodings import DEFAULT, ENCODINGS
from fedmq.rules import PRESETS
from fedmq.simulate.attacks import SignFlip

if TYPE_CHECKING:
    from collections.abc import Sequence

DEVICES: Final = 20
EXACT: Final = "float32"
NAMES: Final = (EXACT, *(name for name in ENCODINGS if name != "exact"))
LAST: Final = 3
"""Rounds at the end whose mean counts."""
ATTACK: Final = SignFlip(scale=4.0)


@dataclass(frozen=True, slots=True)
class Trial:
    """One preset of rules with one encoding, for one seed."""

    rule: str
    encoding: str
    bad: int
    seed: int
    rounds: int

    def run(self) -> tuple[float, float]:
        """Return the accuracy in the end, and the bytes of one update."""
        world = digits_world(DEVICES, "dirichlet(0.5)", self.seed, self.bad)
        codec = EXACT if self.encoding == EXACT else str(ENCODINGS[self.encoding].up)
        plan = Plan(PRESETS[self.rule], codec=codec, attack=ATTACK if self.bad else None)
        points = list(course(world, plan, self.rounds, self.seed))
        sent = (DEVICES - self.bad) * self.rounds
        return fmean(point.accuracy for point in points[-LAST:]), points[-1].bytes_up / sent


Found = dict[tuple[str, str], tuple[float, float]]
"""Accuracy and bytes by rule and encoding, the means over seeds."""


def main() -> None:
    """Run all pairs and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object last")
    parser.add_argument("--quick", action="store_true", help="three rules, five rounds, one seed")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--attackers", type=int, default=0, help="how many of the 20 devices flip signs")
    parser.add_argument("--rules", nargs="+", choices=PRESETS, default=list(PRESETS))
    given = parser.parse_args()
    rules = ["fedavg", "median", "clipped"] if given.quick else given.rules
    rounds, seeds = (5, 1) if given.quick else (given.rounds, given.seeds)
    found = run(rules, given.attackers, seeds, rounds)
    print_table(found, rules)
    lost = [found[rule, EXACT][0] - found[rule, DEFAULT][0] for rule in rules]
    goals = [Goal(f"points that {DEFAULT} loses, the mean over rules", 100 * fmean(lost), "<=", 0.5)]
    report(figures_of(found), goals, given.json)


def run(rules: Sequence[str], bad: int, seeds: int, rounds: int) -> Found:
    """Run everything, on two processes."""
    cells = [
        Trial(rule, name, bad, seed, rounds) for rule in rules for name in NAMES for seed in range(seeds)
    ]
    ends: dict[tuple[str, str], list[tuple[float, float]]] = {}
    with two_processes() as pool:
        for cell, end in zip(cells, pool.map(Trial.run, cells), strict=True):
            ends.setdefault((cell.rule, cell.encoding), []).append(end)
    return {pair: (fmean(a for a, _ in each), fmean(b for _, b in each)) for pair, each in ends.items()}


def print_table(found: Found, rules: Sequence[str]) -> None:
    """Print accuracies in percent, a star where fedmq refuses the pair, and bytes below."""
    print(f"{'rule':12}" + "".join(f"{name:>12}" for name in NAMES))
    for rule in rules:
        cells = (f"{100 * found[rule, name][0]:.1f}{_star(rule, name)}" for name in NAMES)
        print(f"{rule:12}" + "".join(f"{cell:>12}" for cell in cells))
    sizes = (fmean(found[rule, name][1] for rule in rules) for name in NAMES)
    print(f"{'bytes':12}" + "".join(f"{size:>11,.0f} " for size in sizes))


def _star(rule: str, name: str) -> str:
    if name == EXACT or PRESETS[rule].needs.allow(ENCODINGS[name].up.per_update_error):
        return " "
    return "*"


def figures_of(found: Found) -> dict[str, float]:
    """Name every cell."""
    return {f"{rule} | {name}": accuracy for (rule, name), (accuracy, _) in found.items()}


if __name__ == "__main__":
    main()
