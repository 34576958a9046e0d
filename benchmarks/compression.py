"""Bytes against accuracy: what codecs cost, up, down and together, beside float32 FedAvg, which is what Flower sends.

Real data and real training (5,000 MNIST images on 20 devices, a perceptron and a convolutional network; ten persons
with smart watches). Every update is really encoded and decoded, and where a codec of the downlink is named, devices
train from the replica that its frames lead to. Accuracy is compared with float32 on the same seed: the same shares,
first weights, devices asked and mini-batches.

All of it takes over an hour of one core. Rows are kept in the folder that `--cache` names, so that a run that was cut
goes on; `--only TEXT` runs those alone whose description contains the text, `--redo` runs even those that are kept.

    python -m benchmarks.compression --json --cache /tmp/rows
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt

from benchmarks._codec_cost import BOARDS, Cost, costs_of
from benchmarks._compression import Cache, Trial
from benchmarks._compression_tables import (
    MOST_LOST,
    Results,
    Setting,
    Way,
    figures_of,
    most,
    print_downs,
    print_rules,
    print_table,
    print_ups,
)
from benchmarks.convergence import COLOURS
from benchmarks.courses import processes
from benchmarks.report import Goal, report
from fedmq.codecs import PRESETS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

UPS: Final[Mapping[str, str]] = {
    "float32": "float32",
    "int8": "int8 | huffman",
    "eden, 10 %": "rotate | sample(0.1) | eden",
    "eden, 5 %": "rotate | sample(0.05) | eden",
    "eden, 2 %": "rotate | sample(0.02) | eden",
    "eden, folded 20": "fold | rotate | eden",
    "eden, folded 50": "fold(50) | rotate | eden",
    "top 4 %": "feedback | topk(0.04) | ternary | gaps",
    "low rank 8": "feedback | lowrank(8) | int4 | huffman",
    "low rank 12": "feedback | lowrank(12) | int4 | huffman",
}
"""Codecs of the uplink, by their names in the tables."""
WINNER: Final = "eden, folded 50"
"""The one of which the goals of time are strictest."""
LONG: Final[Mapping[int, Sequence[str]]] = {20: ("float32", "eden, 2 %"), 5: ("float32", "eden, 10 %")}
"""Those that are tried for the most rounds, by the devices asked in a round; others only for the fewest."""
MAIN: Final = ("float32", "int8", "eden, 10 %", "eden, 2 %", "low rank 8")
"""Those that the larger tasks are tried with."""
FIRST: Final = "deadzone(1.0) | bitmap | lzma"
"""The first model: drawn at random, so that coarse numbers are as good a beginning."""
DOWNS: Final[Mapping[str, Way]] = {
    "eden, 5 %; top 4 %": Way(UPS["eden, 5 %"], f"{FIRST} ; topk(0.04) | ternary | gaps"),
    "eden, 2 %; top 3 %": Way(UPS["eden, 2 %"], f"{FIRST} ; topk(0.03) | ternary | gaps"),
    "eden, 5 %; low rank 16": Way(UPS["eden, 5 %"], f"{FIRST} ; lowrank(16) | int4 | huffman"),
    "eden, 10 %; top 4 %": Way(UPS["eden, 10 %"], f"{FIRST} ; topk(0.04) | ternary | gaps"),
}
"""Both ways at once; the last is for few devices a round."""
CAREFUL: Final = ("int8", "low rank 8", "low rank 12", "top 4 %", "eden, 10 %")
"""Codecs of `UPS` that rules are tried with."""
ATTACK: Final = "sign_flip"
ATTACKED: Final = ("median", "trimmed", "robust")
ROBUST: Final = ("median", "trimmed", "krum", "multi_krum", "robust")
MOVING: Final = ("fedavgm", "fedadam")
"""Rules that average, and whose step goes by more than the last round."""

WORLDS: Final = tuple(
    tuple(Setting("mlp", partition, asked, rounds) for rounds in (30, 100))
    for asked in (20, 5)
    for partition in ("0.5", "0.1")
)
LARGER: Final = ((Setting("cnn", "0.5", 20, 30),), (Setting("watch", "", 10, 30),))
RULED: Final = Setting("mlp", "0.5", 20, 30)


ASKED: Final[Sequence[tuple[str, str, int, bool, str, float]]] = (
    ("perceptron, 20 a round: times fewer bytes an update", "mlp", 20, False, "fewer_up", 1000),
    ("perceptron, 20 a round: times fewer bytes to the target", "mlp", 20, False, "fewer_to_target", 500),
    ("perceptron, 5 a round: times fewer bytes an update", "mlp", 5, False, "fewer_up", 300),
    ("convolutions, 20 a round: times fewer bytes an update", "cnn", 20, False, "fewer_up", 1000),
    ("convolutions, 20 a round: times fewer bytes to the target", "cnn", 20, False, "fewer_to_target", 500),
    ("10 smart watches: times fewer bytes an update", "watch", 10, False, "fewer_up", 1000),
    (
        "perceptron, 20 a round: times fewer bytes down, first model included",
        "mlp",
        20,
        True,
        "fewer_down",
        80,
    ),
    ("perceptron, 20 a round: times fewer bytes up and down", "mlp", 20, True, "fewer", 150),
)
"""Name, task, devices asked, whether the downlink is coded, a property of `Compared`, and what it is to reach."""


@dataclass(frozen=True, slots=True)
class Table:
    """Ways to travel in one world; `settings` differ in their rounds, and the last has the most.

    Ways in `short` are tried in the first alone.
    """

    settings: Sequence[Setting]
    ways: Mapping[str, Way]
    both: bool = False
    short: frozenset[str] = frozenset()

    def show(self, results: Results) -> None:
        """Print it."""
        (print_downs if self.both else print_ups)(results, self.settings, self.ways)

    def courses(self) -> Iterator[tuple[Setting, Way]]:
        """Yield each way with its longest setting."""
        for name, way in self.ways.items():
            yield self.settings[0 if name in self.short else -1], way

    @classmethod
    def up(cls, settings: Sequence[Setting]) -> Table:
        """Return all codecs of the uplink in one world."""
        long = LONG[settings[-1].asked]
        return cls(settings, _ways(UPS), short=frozenset(name for name in UPS if name not in long))

    @classmethod
    def down(cls, settings: Sequence[Setting]) -> Table:
        """Return what goes both ways there, for few rounds; with few devices in each, updates of more numbers."""
        *many, few = DOWNS
        names = [few] if settings[-1].asked == 5 else many
        return cls(settings[:1], {name: DOWNS[name] for name in names}, both=True)


def _ways(names: Iterable[str]) -> dict[str, Way]:
    return {name: Way(UPS[name]) for name in names}


@dataclass(frozen=True, slots=True)
class Scope:
    """What is measured."""

    tables: Sequence[Table]
    rules: Sequence[str]
    ruled: Setting
    seeds: range

    @classmethod
    def whole(cls, seeds: int) -> Scope:
        """Return everything."""
        larger = [Table(world, _ways(MAIN)) for world in LARGER]
        return cls(
            [*map(Table.up, WORLDS), *larger, *map(Table.down, WORLDS)],
            (*ROBUST, *MOVING),
            RULED,
            range(seeds),
        )

    @classmethod
    def quick(cls) -> Scope:
        """Return one seed, ten rounds, a few ways, one rule."""
        short = Setting("mlp", "0.5", 20, 10)
        ups = [Table([Setting("mlp", "0.5", asked, 10)], _ways(MAIN)) for asked in (20, 5)]
        return cls([*ups, Table.down([short])], ROBUST[:1], short, range(1))

    def trials(self) -> Iterator[Trial]:
        """Yield every course, world by world for each seed."""
        courses = [course for table in self.tables for course in table.courses()]
        lines = ["float32", *(UPS[name] for name in CAREFUL)]
        courses += [(self.ruled, Way(line, rule=rule)) for rule in self.rules for line in lines]
        attacked = [rule for rule in self.rules if rule in ATTACKED]
        courses += [(self.ruled, Way(line, rule=rule, attack=ATTACK)) for rule in attacked for line in lines]
        for seed in self.seeds:
            for setting, way in sorted(courses, key=lambda course: (course[0].task, course[0].partition)):
                yield setting.trial(way, seed)


def main() -> None:
    """Run what is missing, print, draw."""
    given = parsed()
    scope = Scope.quick() if given.quick else Scope.whole(given.seeds)
    cache = Cache(Path(given.cache) if given.cache else None)
    run(cache, list(scope.trials()), given)
    results = Results(cache, scope.seeds)
    for table in scope.tables:
        table.show(results)
    careful = {name: UPS[name] for name in CAREFUL}
    print_rules(results, scope.ruled, scope.rules, careful)
    print_rules(results, scope.ruled, ATTACKED, careful, ATTACK)
    costs = costs_of([*UPS.values(), *PRESETS], 3 if given.quick else 50, count=given.instructions)
    print_costs({**UPS, **{f"preset {name}": name for name in PRESETS}}, costs)
    if given.plot:
        draw(given.plot, results, scope)
    said = [*goals(results, scope), *goals_of_cost(costs)]
    report({**figures(results, scope), **figures_of_cost(costs)}, said, given.json)


def parsed() -> Any:  # noqa: ANN401 # argparse has no types
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    parser.add_argument("--quick", action="store_true", help="one seed, ten rounds, few codecs")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--cache", metavar="FOLDER", help="keep rows there, and take those that are there")
    parser.add_argument("--only", metavar="TEXT", help="run no courses but those described so")
    parser.add_argument("--redo", action="store_true", help="run courses that are in the cache as well")
    parser.add_argument("--processes", type=int, default=2, help="how many courses run side by side")
    parser.add_argument("--instructions", action="store_true", help="count them, with valgrind")
    parser.add_argument("--plot", metavar="PNG", help="draw bytes against accuracy")
    return parser.parse_args()


def run(cache: Cache, trials: Sequence[Trial], given: Any) -> None:  # noqa: ANN401 # argparse has no types
    """Run the trials that no row is known of, and keep theirs."""
    wanted = [trial for trial in trials if not given.only or given.only in str(trial)]
    todo = cache.missing(wanted, again=given.redo)
    with processes(given.processes) as pool:
        for done, row in enumerate(pool.map(Trial.run, todo), start=1):
            cache.add(row)
            print(f"{done}/{len(todo)} {row.trial}: {row.final:.1%}, {row.cpu_s:.0f} s", file=sys.stderr)


def figures(results: Results, scope: Scope) -> dict[str, float]:
    """Name every figure."""
    found: dict[str, float] = {}
    for table in scope.tables:
        found |= figures_of(results, table.settings, table.ways)
    for rule in scope.rules:
        for attack in ("", ATTACK):
            ways = {name: Way(UPS[name], rule=rule, attack=attack) for name in ("float32", *CAREFUL)}
            found |= figures_of(results, [scope.ruled], ways)
    return found


def goals(results: Results, scope: Scope) -> list[Goal]:
    """Return the goals. A figure is what the best way saves in the setting where it saves least.

    Ways count that were tried in all of the goal's settings and cost little enough in each.
    """
    said = []
    for name, task, asked, both, what, goal in ASKED:
        where = (task, asked, both)
        tables = [t for t in scope.tables if (t.settings[0].task, t.settings[0].asked, t.both) == where]
        first = -1 if what == "fewer_to_target" else 0  # few rounds are too few for some targets
        settings = [setting for table in tables for setting in table.settings[first:]]
        if settings:
            tried = dict.fromkeys(way for table in tables for way in table.ways.values())
            said.append(Goal(name, most(results, settings, tried, what), ">=", goal))
    for rule in scope.rules:
        if rule in ROBUST:
            ways = [Way(UPS[name], rule=rule) for name in CAREFUL]
            saved = most(results, [scope.ruled], ways, "fewer_up")
            said.append(Goal(f"{rule}: times fewer bytes an update", saved, ">=", 100))
    return said


def goals_of_cost(costs: Mapping[str, Cost]) -> list[Goal]:
    """Return the goals of time: for the winner, for every preset, and for presets on small boards, where counted."""
    said = [Goal(f"{WINNER}: encode and decode, ms", costs[UPS[WINNER]].both_ms, "<=", 1)]
    said += [Goal(f"preset {name}: encode and decode, ms", costs[name].both_ms, "<=", 5) for name in PRESETS]
    for board, goal in (("Pi 5", 10), ("Pi Zero 2 W", 100)):
        estimates = [costs[name].on(board) for name in PRESETS]
        known = [estimate for estimate in estimates if estimate is not None]
        if known:
            said.append(Goal(f"slowest preset, {board}, estimated ms", max(known), "<=", goal))
    return said


def figures_of_cost(costs: Mapping[str, Cost]) -> dict[str, float]:
    """Name every figure of time."""
    found: dict[str, float] = {}
    for line, cost in costs.items():
        found |= {f"{line}: encode ms": cost.encode_ms, f"{line}: decode ms": cost.decode_ms}
        for board in BOARDS:
            estimate = cost.on(board)
            found |= {} if estimate is None else {f"{line}: {board}, estimated ms": estimate}
    return found


def print_costs(lines: Mapping[str, str], costs: Mapping[str, Cost]) -> None:
    """Print what each codec takes."""
    rows = []
    for name, line in lines.items():
        cost = costs[line]
        boards = [cost.on(board) for board in BOARDS]
        spent = [f"{cost.encode_ms:.2f}", f"{cost.decode_ms:.2f}", f"{cost.both_ms:.2f}"]
        rows.append([name, *spent, *("-" if ms is None else f"{ms:.1f}" for ms in boards)])
    head = ["codec", "encode, ms", "decode, ms", "both", *(f"{board}, estimated ms" for board in BOARDS)]
    print_table("an update of 101,770 numbers, one core", head, rows)


def draw(path: str, results: Results, scope: Scope) -> None:
    """Draw points lost by bytes of an update, a panel for each world of the perceptron, with standard errors."""
    tables = [table for table in scope.tables if not table.both and table.settings[0].task == "mlp"]
    rows = -(-len(tables) // 2)
    figure, panels = plt.subplots(
        rows, 2, figsize=(10, 0.8 + 3.4 * rows), layout="constrained", sharex=True, sharey=True, squeeze=False
    )
    shapes = {}
    for panel, table in zip(panels.flat, tables, strict=False):
        for (name, way), (marker, colour) in zip(table.ways.items(), product("os", COLOURS), strict=False):
            found = results.compared(table.settings[0], way)
            if found is not None:
                shapes[name] = panel.errorbar(
                    found.up, found.points, found.spread, color=colour, marker=marker, linestyle=""
                )
        for height in (0.0, -MOST_LOST):
            panel.axhline(height, color="#666666", linewidth=0.8, linestyle=":")
        panel.set(title=str(table.settings[0]), xscale="log")
        panel.spines[["top", "right"]].set_visible(False)
    for panel in panels[-1]:
        panel.set_xlabel("bytes of an update")
    figure.supylabel("points of accuracy, against float32 on the same seeds")
    figure.legend(shapes.values(), shapes, frameon=False, loc="outside lower center", ncols=4)
    figure.savefig(path, dpi=100)
    plt.close(figure)


if __name__ == "__main__":
    main()
