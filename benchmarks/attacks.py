"""What each rule is worth when devices lie: attacks against rules, on real training.

MNIST's 5,000 images on 20 devices (Dirichlet 0.5 by default, or any partition), a perceptron, one local epoch a round.
Attackers know every honest update of the round (label flippers excepted, who train). Rules are told how many attackers
to expect. A cell is the accuracy on held-out images after the last round; the first column, without attackers, is what
a rule's caution costs.

    python -m benchmarks.attacks --json
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Final

from benchmarks.courses import Plan, Point, course, digits_world, two_processes
from benchmarks.report import Goal, report
from fedmq.rules import Finite, NormClip, Rule
from fedmq.rules.guards import AdaptiveClip
from fedmq.rules.robust.centers import CentredClipping, GeometricMedian, NormFiltered
from fedmq.rules.robust.coordinatewise import CoordinateMedian, MeanAroundMedian, SignMajority, TrimmedMean
from fedmq.rules.robust.mixing import Bucketing, NearestMixing
from fedmq.rules.robust.selection import Bulyan, Krum, MultiKrum
from fedmq.worlds.attacks import ATTACKS, Gaussian, SignFlip

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fedmq.worlds.attacks import Attack

DEVICES: Final = 20
SHARES: Final = (0.1, 0.2, 0.3)

RULES: Final[Mapping[str, Callable[[int], Rule]]] = {
    "mean": lambda _: Rule(),
    "mean, clipped": lambda _: Rule(guards=(Finite(), NormClip(1.0))),
    "mean, adaptively clipped": lambda _: Rule(guards=(Finite(), AdaptiveClip(first=1.0))),
    "norm-filtered mean": lambda bad: Rule(reduce=NormFiltered(bad)),
    "median": lambda _: Rule(reduce=CoordinateMedian()),
    "trimmed mean": lambda bad: Rule(reduce=TrimmedMean(bad)),
    "mean around median": lambda bad: Rule(reduce=MeanAroundMedian(bad)),
    "geometric median": lambda _: Rule(reduce=GeometricMedian()),
    "krum": lambda bad: Rule(reduce=Krum(bad)),
    "multi-krum": lambda bad: Rule(reduce=MultiKrum(bad)),
    "bulyan": lambda bad: Rule(reduce=Bulyan(bad)),
    "centred clipping": lambda _: Rule(reduce=CentredClipping(radius=1.0)),
    "sign majority": lambda _: Rule(reduce=SignMajority(step=0.002)),
    "bucketing > geometric median": lambda _: Rule(reduce=Bucketing(2, GeometricMedian())),
    "nnm > trimmed mean": lambda bad: Rule(reduce=NearestMixing(bad, TrimmedMean(bad))),
    "nnm > krum": lambda bad: Rule(reduce=NearestMixing(bad, Krum(bad))),
}
"""Every rule that is tried, given how many of the devices it is to expect to be bad."""


CRUDE: Final[Mapping[str, Attack]] = {"sign_flip": SignFlip(scale=4.0), "gaussian": Gaussian(scale=100.0)}
"""Attacks that hide from nobody, strong enough to show what they do to a plain mean."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One cell of the table, for one seed. Without attack, the rule still expects `bad` devices."""

    rule: str
    attack: str
    bad: int
    seed: int
    partition: str
    rounds: int

    def run(self) -> Point:
        """Return where the model ends."""
        attackers = self.bad if self.attack else 0
        world = digits_world(DEVICES, self.partition, self.seed, attackers)
        attack = CRUDE.get(self.attack, ATTACKS[self.attack]()) if self.attack else None
        plan = Plan(RULES[self.rule](self.bad), codec="float32", attack=attack)
        return list(course(world, plan, self.rounds, self.seed, judge_every=self.rounds))[-1]


def main() -> None:
    """Run the matrix and print it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object last")
    parser.add_argument("--quick", action="store_true", help="one share, three attacks, ten rounds")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--partition", default="dirichlet(0.5)")
    given = parser.parse_args()
    attacks = ("sign_flip", "little_is_enough", "gaussian") if given.quick else tuple(ATTACKS)
    shares = (0.2,) if given.quick else SHARES
    rounds, seeds = (10, 1) if given.quick else (given.rounds, given.seeds)
    found = run(trials(attacks, shares, seeds, given.partition, rounds))
    print_tables(found, attacks, shares)
    worst = {rule: worst_case(found, rule, attacks, 0.2) for rule in RULES}
    best = max(worst, key=lambda rule: worst[rule])
    print(f"\nbest worst case at 20 %: {best}")
    goals = [Goal("best rule's worst case at 20 %, of the mean without attackers", worst[best], ">=", 0.8)]
    report(figures_of(found), goals, given.json)


Found = dict[tuple[str, str, int], list[Point]]
"""By rule, attack and number of attackers: the seeds' ends."""


def trials(
    attacks: Sequence[str], shares: Sequence[float], seeds: int, partition: str, rounds: int
) -> list[Trial]:
    """Return all cells."""
    return [
        Trial(rule, attack, round(share * DEVICES), seed, partition, rounds)
        for rule in RULES
        for attack in ("", *attacks)
        for share in shares
        for seed in range(seeds)
    ]


def run(cells: Sequence[Trial]) -> Found:
    """Run everything, on two processes."""
    found: Found = {}
    with two_processes() as pool:
        for cell, end in zip(cells, pool.map(Trial.run, cells), strict=True):
            found.setdefault((cell.rule, cell.attack, cell.bad), []).append(end)
    return found


def accuracy(found: Found, rule: str, attack: str, share: float) -> float:
    """Return a cell's mean accuracy."""
    return fmean(end.accuracy for end in found[rule, attack, round(share * DEVICES)])


def worst_case(found: Found, rule: str, attacks: Sequence[str], share: float) -> float:
    """Return the rule's accuracy under the attack that hurts it most, as a share of the undisturbed mean's."""
    return min(accuracy(found, rule, attack, share) for attack in attacks) / accuracy(
        found, "mean", "", share
    )


def print_tables(found: Found, attacks: Sequence[str], shares: Sequence[float]) -> None:
    """Print one table of accuracies and one of losses for each share; a star marks rounds that a rule refused."""
    for share in shares:
        for what in ("accuracy", "loss"):
            unit = " in %" if what == "accuracy" else ""
            print(f"\n{round(share * DEVICES)} of {DEVICES} devices lie: {what}{unit}")
            print(f"{'rule':30}" + "".join(f"{name[:12]:>14}" for name in ("none", *attacks)))
            for rule in RULES:
                ends = [found[rule, attack, round(share * DEVICES)] for attack in ("", *attacks)]
                print(f"{rule:30}" + "".join(f"{_shown(end, what):>14}" for end in ends))


def _shown(ends: Sequence[Point], what: str) -> str:
    value = fmean(getattr(end, what) for end in ends)
    star = "*" if any(end.refused for end in ends) else " "
    return f"{100 * value:.1f}{star}" if what == "accuracy" else f"{value:.2f}{star}"


def figures_of(found: Found) -> dict[str, float]:
    """Name every cell."""
    return {
        f"{rule} | {attack or 'none'} | {bad}": fmean(end.accuracy for end in ends)
        for (rule, attack, bad), ends in found.items()
    }


if __name__ == "__main__":
    main()
