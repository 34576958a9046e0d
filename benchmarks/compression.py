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
    Compared,
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
    from collections.abc import Iterator, Mapping, Sequence

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
LONG: Final[Mapping[int, Sequence[str]]] = {
    20: ("float32", "eden, 2 %", "eden, folded 20", "eden, folded 50"),
    5: ("float32", "eden, 10 %", "eden, folded 20", "low rank 12"),
}
"""Those of the perceptron's that are tried for the most rounds, by the devices asked in a round."""
SHORT: Final[Mapping[int, Sequence[str]]] = {
    20: ("int8", "eden, 5 %", "low rank 8", "low rank 12"),
    5: ("int8",),
}
"""Those that are tried for the fewest only."""
MAIN: Final = ("float32", "int8", "eden, 10 %", "eden, 2 %", "low rank 8")
"""Those that the quick run tries."""
FIRST: Final = "deadzone(1.0) | bitmap | lzma"
"""The first model: drawn at random, so that coarse numbers are as good a beginning."""
TOP: Final = f"{FIRST} ; topk(0.04) | ternary | gaps"
RANKS: Final = f"{FIRST} ; lowrank(12) | int4 | huffman"
DOWNS: Final[Mapping[str, Way]] = {
    "eden, 5 %; top 4 %": Way(UPS["eden, 5 %"], TOP),
    "eden, 2 %; top 3 %": Way(UPS["eden, 2 %"], f"{FIRST} ; topk(0.03) | ternary | gaps"),
    "eden, folded 20; low rank 12": Way(UPS["eden, folded 20"], RANKS),
    "eden, 10 %; top 4 %": Way(UPS["eden, 10 %"], TOP),
    "eden, 10 %; low rank 12": Way(UPS["eden, 10 %"], RANKS),
    "low rank 12; low rank 12": Way(UPS["low rank 12"], RANKS),
}
"""Both ways at once."""
BOTH: Final[Mapping[int, Sequence[str]]] = {20: tuple(DOWNS)[:3], 5: tuple(DOWNS)[3:5]}
"""Those of the perceptron's, by the devices asked."""
ATTACK: Final = "sign_flip"
ROBUST: Final[Mapping[str, Sequence[str]]] = {
    "median": ("low rank 8", "low rank 12", "top 4 %"),
    "trimmed": ("low rank 8", "low rank 12", "top 4 %"),
    "krum": ("int8", "low rank 12"),
    "multi_krum": ("low rank 8", "low rank 12"),
    "robust": ("low rank 8", "low rank 12"),
}
"""Rules that look at single updates; how all rules get on with the presets is for `benchmarks.encodings`."""
MOVING: Final = dict.fromkeys(("fedavgm", "fedadam"), ("low rank 8", "low rank 12", "eden, 10 %"))
ATTACKED: Final = dict.fromkeys(("median", "trimmed", "robust"), ("int8", "low rank 12", "eden, 10 %"))

WORLDS: Final = tuple(
    tuple(Setting("mlp", partition, asked, rounds) for rounds in (30, 100))
    for asked in (20, 5)
    for partition in ("0.5", "0.1")
)
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
    def up(cls, settings: Sequence[Setting], long: Sequence[str], short: Sequence[str] = ()) -> Table:
        """Return codecs of the uplink in one world."""
        return cls(settings, {name: Way(UPS[name]) for name in (*long, *short)}, short=frozenset(short))

    @classmethod
    def down(cls, settings: Sequence[Setting], *names: str) -> Table:
        """Return what goes both ways there."""
        return cls(settings, {name: DOWNS[name] for name in names}, both=True)


@dataclass(frozen=True, slots=True)
class Ruled:
    """Rules, each with codecs of `UPS`; where there is an `attack`, some devices lie."""

    setting: Setting
    rules: Mapping[str, Sequence[str]]
    attack: str = ""

    def show(self, results: Results) -> None:
        """Print it."""
        codecs = dict.fromkeys(name for names in self.rules.values() for name in names)
        lines = {name: UPS[name] for name in codecs}
        print_rules(results, self.setting, list(self.rules), lines, self.attack)

    def ways(self) -> dict[str, Way]:
        """Return everything in it by name."""
        pairs = [(rule, name) for rule, names in self.rules.items() for name in ("float32", *names)]
        return {f"{rule}, {name}": Way(UPS[name], rule=rule, attack=self.attack) for rule, name in pairs}

    def courses(self) -> Iterator[tuple[Setting, Way]]:
        """Yield each way with its setting."""
        yield from ((self.setting, way) for way in self.ways().values())


def _larger() -> Iterator[Table]:
    """Yield the other models' tables, up and both ways."""
    for asked, partition in product((20, 5), ("0.5", "0.1")):
        world = [Setting("cnn", partition, asked, rounds) for rounds in (30, 100)]
        yield Table.up(world, ("float32", "eden, 2 %" if asked == 20 else "eden, 10 %"))
    watches = [Setting("watch", "", 10, 30)]
    yield Table.up(watches, ("float32", "int8", "eden, 10 %", "low rank 8", "low rank 12"))
    yield Table.down([Setting("cnn", "0.5", 20, 30)], "eden, 5 %; top 4 %")
    yield Table.down(watches, "low rank 12; low rank 12")


@dataclass(frozen=True, slots=True)
class Scope:
    """What is measured."""

    tables: Sequence[Table]
    ruled: Sequence[Ruled]
    seeds: range

    @classmethod
    def whole(cls, seeds: int) -> Scope:
        """Return everything."""
        ups = [Table.up(world, LONG[world[0].asked], SHORT[world[0].asked]) for world in WORLDS]
        downs = [Table.down(world, *BOTH[world[0].asked]) for world in WORLDS]
        ruled = [Ruled(RULED, ROBUST), Ruled(RULED, MOVING), Ruled(RULED, ATTACKED, ATTACK)]
        return cls([*ups, *downs, *_larger()], ruled, range(seeds))

    @classmethod
    def quick(cls) -> Scope:
        """Return one seed, ten rounds, a few ways, one rule."""
        ups = [Table.up([Setting("mlp", "0.5", asked, 10)], MAIN) for asked in (20, 5)]
        short = Setting("mlp", "0.5", 20, 10)
        downs = Table.down([short], *BOTH[20])
        return cls([*ups, downs], [Ruled(short, {"median": ("low rank 12",)})], range(1))

    @property
    def everything(self) -> Sequence[Table | Ruled]:
        """All tables."""
        return [*self.tables, *self.ruled]

    def trials(self) -> Iterator[Trial]:
        """Yield every course, world by world for each seed."""
        courses = [course for table in self.everything for course in table.courses()]
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
    for table in scope.everything:
        table.show(results)
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
    for ruled in scope.ruled:
        found |= figures_of(results, [ruled.setting], ruled.ways())
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
    robust = scope.ruled[0]
    for rule in robust.rules:
        ways = [way for way in robust.ways().values() if way.rule == rule]
        saved = most(results, [robust.setting], ways, "fewer_up")
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
    """Draw points lost by bytes of an update, with standard errors: a panel for each world, after its fewest rounds."""
    found = [(table, _compared(table, results)) for table in scope.tables if not table.both]
    panels = [(table, ways) for table, ways in found if len(ways) > 1]
    rows = -(-len(panels) // 2)
    figure, axes = plt.subplots(
        rows, 2, figsize=(10, 0.8 + 2.8 * rows), layout="constrained", sharex=True, sharey=True, squeeze=False
    )
    styles, shapes = dict(zip(UPS, product("os", COLOURS), strict=False)), {}
    for panel, (table, ways) in zip(axes.flat, panels, strict=False):
        for name, each in ways.items():
            marker, colour = styles[name]
            shapes[name] = panel.errorbar(
                each.up, each.points, each.spread, color=colour, marker=marker, linestyle=""
            )
        for height in (0.0, -MOST_LOST):
            panel.axhline(height, color="#666666", linewidth=0.8, linestyle=":")
        panel.set(title=str(table.settings[0]), xscale="log")
        panel.spines[["top", "right"]].set_visible(False)
    for panel in axes.flat[len(panels) :]:
        panel.set_axis_off()
    for panel in axes[-1]:
        panel.set_xlabel("bytes of an update")
    figure.supylabel("points of accuracy, against float32 on the same seeds")
    figure.legend(shapes.values(), shapes, frameon=False, loc="outside lower center", ncols=4)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _compared(table: Table, results: Results) -> dict[str, Compared]:
    """Return what there is of the table's ways in its first setting."""
    ways = {name: results.compared(table.settings[0], way) for name, way in table.ways.items()}
    return {name: each for name, each in ways.items() if each is not None}


if __name__ == "__main__":
    main()
