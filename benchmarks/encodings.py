"""Which encoding each preset of rules can do with: accuracy with nothing lost, and with what encodings lose.

MNIST's 5,000 images on 20 devices (Dirichlet 0.5), a perceptron of 50,890 numbers, one local epoch a round; models go
down as they are. Every update is encoded and decoded, and each encoding is compared with float32 on the same seeds.
Rules and codecs that fedmq would refuse to pair are run here all the same, to see why: their cells have a star. With
attackers, the first of them flip signs, four times as long; they send what they like, in no codec. `--asked 5` takes 5
devices a round, `--partition 0.1` makes their shares very uneven; `--cache` keeps what has been run.

    python -m benchmarks.encodings --json
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import astuple, dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any, Final

from benchmarks._compression_tables import MOST_LOST, print_table
from benchmarks.courses import Plan, course, digits_world, processes
from benchmarks.report import Goal, report
from fedmq.aggregator.encodings import DEFAULT, ENCODINGS
from fedmq.rules import PRESETS
from fedmq.worlds.attacks import SignFlip

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

DEVICES: Final = 20
EXACT: Final = "float32"
NAMES: Final = (EXACT, *(name for name in ENCODINGS if name != "exact"))
HELD_BACK: Final = 5
"""One in so many images a device keeps to judge by: some rules go by what devices report."""
LAST: Final = 5
"""Rounds at the end whose mean counts."""
ATTACK: Final = SignFlip(scale=4.0)


@dataclass(frozen=True, slots=True)
class Trial:
    """One preset of rules with one encoding, for one seed."""

    rule: str
    encoding: str
    bad: int
    asked: int
    seed: int
    rounds: int
    partition: str = "0.5"

    def run(self) -> tuple[float, float]:
        """Return the accuracy in the end, and the bytes of one update."""
        world = digits_world(
            DEVICES, f"dirichlet({self.partition})", self.seed, self.bad, held_back=HELD_BACK
        )
        codec = EXACT if self.encoding == EXACT else str(ENCODINGS[self.encoding].up)
        attack = ATTACK if self.bad else None
        plan = Plan(PRESETS[self.rule], codec=codec, attack=attack, fraction=self.asked / DEVICES)
        points = list(course(world, plan, self.rounds, self.seed))
        sent = self.asked * (1 - self.bad / DEVICES) * self.rounds
        return fmean(point.accuracy for point in points[-LAST:]), points[-1].bytes_up / sent


@dataclass(frozen=True, slots=True)
class Cell:
    """One preset of rules with one encoding, and float32 with the same seeds."""

    rule: str
    encoding: str
    accuracies: Sequence[float]
    references: Sequence[float]
    nbytes: float

    @property
    def points(self) -> float:
        """Percentage points above float32; negative where worse."""
        return 100 * (fmean(self.accuracies) - fmean(self.references))

    @property
    def spread(self) -> float:
        """Standard error of `points`, NaN for one seed."""
        gains = [100 * (a - b) for a, b in zip(self.accuracies, self.references, strict=True)]
        return stdev(gains) / math.sqrt(len(gains)) if len(gains) > 1 else math.nan

    @property
    def refused(self) -> bool:
        """True where fedmq refuses the pair."""
        if self.encoding == EXACT:
            return False
        return not PRESETS[self.rule].needs.allow(ENCODINGS[self.encoding].up.per_update_error)

    def __str__(self) -> str:
        spread = "" if math.isnan(self.spread) else f" ± {self.spread:.1f}"
        return f"{self.points:+.1f}{spread}{' *' if self.refused else ''}"


Found = dict[tuple[str, str], Cell]
"""Cells by rule and encoding."""


def main() -> None:
    """Run all pairs and print a table."""
    given = parsed()
    rules = ["fedavg", "median", "clipped"] if given.quick else given.rules
    rounds, seeds = (5, 1) if given.quick else (given.rounds, given.seeds)
    trials = [
        Trial(rule, name, given.attackers, given.asked, seed, rounds, given.partition)
        for seed in range(seeds)
        for rule in rules
        for name in NAMES
    ]
    found = cells(run(trials, Path(given.cache) if given.cache else None, given.processes))
    show(found, rules)
    lost = [-found[rule, DEFAULT].points for rule in rules]
    goals = [Goal(f"points that {DEFAULT} loses, the mean over rules", fmean(lost), "<=", MOST_LOST)]
    report(figures_of(found), goals, given.json)


def parsed() -> Any:  # noqa: ANN401 # argparse has no types
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object last")
    parser.add_argument("--quick", action="store_true", help="three rules, five rounds, one seed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--asked", type=int, default=DEVICES, help="how many devices take part in a round")
    parser.add_argument("--partition", default="0.5", help="how even devices' shares are: Dirichlet's number")
    parser.add_argument("--attackers", type=int, default=0, help="how many of the 20 devices flip signs")
    parser.add_argument("--rules", nargs="+", choices=PRESETS, default=list(PRESETS))
    parser.add_argument(
        "--cache", metavar="FILE", help="keep what has been run there, and take what is there"
    )
    parser.add_argument("--processes", type=int, default=2, help="how many run side by side")
    return parser.parse_args()


def run(
    trials: Sequence[Trial], kept: Path | None, count: int
) -> Iterator[tuple[Trial, tuple[float, float]]]:
    """Yield each trial with its end, in order; run those that are not in `kept`, and keep theirs there."""
    lines = kept.read_text(encoding="utf-8").splitlines() if kept and kept.exists() else []
    known = {Trial(*trial): (accuracy, nbytes) for trial, accuracy, nbytes in map(json.loads, lines)}
    todo = [trial for trial in trials if trial not in known]
    with processes(count) as pool:
        for trial, end in zip(todo, pool.map(Trial.run, todo), strict=True):
            known[trial] = end
            if kept:
                with kept.open("a", encoding="utf-8") as file:
                    file.write(json.dumps([astuple(trial), *end]) + "\n")
    yield from ((trial, known[trial]) for trial in trials)


def cells(ends: Iterable[tuple[Trial, tuple[float, float]]]) -> Found:
    """Return a cell for each pair, over its seeds in order."""
    by_pair: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for trial, end in ends:
        by_pair.setdefault((trial.rule, trial.encoding), []).append(end)
    return {
        (rule, name): Cell(
            rule,
            name,
            [accuracy for accuracy, _ in each],
            [accuracy for accuracy, _ in by_pair[rule, EXACT]],
            fmean(nbytes for _, nbytes in each),
        )
        for (rule, name), each in by_pair.items()
    }


def fewest(found: Found, rule: str) -> str:
    """Return the encoding of the fewest bytes that the rule allows and that costs it little; else `exact`."""
    fit = [found[rule, name] for name in NAMES[1:]]
    fit = [cell for cell in fit if not cell.refused and cell.points >= -MOST_LOST]
    return min(fit, key=lambda cell: cell.nbytes).encoding if fit else "exact"


def show(found: Found, rules: Sequence[str]) -> None:
    """Print accuracy with float32 and points with the others, a star where fedmq refuses the pair, and bytes below."""
    rows = []
    for rule in rules:
        exact = f"{100 * fmean(found[rule, EXACT].accuracies):.1f}"
        rows.append(
            [f"`{rule}`", exact, *(str(found[rule, name]) for name in NAMES[1:]), f"`{fewest(found, rule)}`"]
        )
    sizes = [f"{fmean(found[rule, name].nbytes for rule in rules):,.0f}" for name in NAMES]
    rows.append(["bytes of an update", *sizes, ""])
    print_table("points", ["rule", EXACT, *(f"`{name}`" for name in NAMES[1:]), "fewest bytes"], rows)


def figures_of(found: Found) -> dict[str, float]:
    """Name every cell."""
    return {f"{rule} | {name}": fmean(cell.accuracies) for (rule, name), cell in found.items()}


if __name__ == "__main__":
    main()
