"""What the courses of `benchmarks.compression` say together: means over seeds, tables, figures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Final

from benchmarks import _air
from benchmarks._compression import DEVICES, LIARS, Trial

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from benchmarks._compression import Cache, Row

REFERENCE: Final = "float32"
TARGETS: Final = {
    ("mlp", "0.5"): 0.91,
    ("mlp", "0.1"): 0.88,
    ("cnn", "0.5"): 0.93,
    ("cnn", "0.1"): 0.9,
    ("watch", ""): 0.9,
}
"""Accuracies to reach, by task and partition."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A task, how it is dealt out, how many devices a round asks, for how many rounds."""

    task: str
    partition: str
    asked: int
    rounds: int

    def __str__(self) -> str:
        dealt = f"dirichlet {self.partition}" if self.partition else "by person"
        return f"{self.task}, {dealt}, {self.asked} a round, {self.rounds} rounds"

    @property
    def target(self) -> float:
        """The accuracy to reach."""
        return TARGETS[self.task, self.partition]

    @property
    def devices(self) -> int:
        """How many devices there are."""
        return 10 if self.task == "watch" else DEVICES

    def trial(self, way: Way, seed: int) -> Trial:
        """Return one course in it."""
        world = (self.task, self.partition, self.asked, self.rounds)
        return Trial(*world, way.codec, seed, way.down, way.rule, way.attack)


@dataclass(frozen=True, slots=True)
class Way:
    """How updates and models travel, and what is made of them; see `Trial`."""

    codec: str = REFERENCE
    down: str = ""
    rule: str = "fedavg"
    attack: str = ""

    @property
    def reference(self) -> Way:
        """The same rule under the same attack with float32 both ways."""
        return Way(rule=self.rule, attack=self.attack)


@dataclass(frozen=True, slots=True)
class Compared:
    """One way in one setting, and float32 with the same seeds."""

    setting: Setting
    rows: Sequence[Row]
    references: Sequence[Row]
    wanted: int

    @property
    def complete(self) -> bool:
        """True where no seed is missing."""
        return len(self.rows) == self.wanted

    @property
    def up(self) -> float:
        """Bytes of an update."""
        return fmean(row.per_update for row in self.rows)

    @property
    def down(self) -> float:
        """Bytes downloaded for each round that a device takes part in."""
        return fmean(row.per_task for row in self.rows)

    @property
    def fewer_up(self) -> float:
        """How many times fewer bytes go up."""
        return 4 * self.rows[0].parameters / self.up

    @property
    def fewer_down(self) -> float:
        """How many times fewer bytes come down."""
        return 4 * self.rows[0].parameters / self.down

    @property
    def fewer(self) -> float:
        """How many times fewer bytes travel, both ways together."""
        return 8 * self.rows[0].parameters / (self.up + self.down)

    @property
    def air_up(self) -> int:
        """Bytes that a device puts on the air in a round."""
        return _air.up(round(self.up))

    @property
    def air_down(self) -> int:
        """Bytes that it takes from there."""
        trial = self.rows[0].trial
        return _air.down(round(self.down), trial.codec, trial.down.split(" ; ")[-1] or REFERENCE)

    @property
    def fewer_air(self) -> float:
        """How many times fewer bytes are on the air, both ways together, than with float32 both ways."""
        whole = 4 * self.rows[0].parameters
        theirs = _air.up(whole) + _air.down(whole, REFERENCE, REFERENCE)
        return theirs / (self.air_up + self.air_down)

    @property
    def accuracy(self) -> float:
        """Mean accuracy at the end."""
        return fmean(row.final for row in self.rows)

    @property
    def gains(self) -> list[float]:
        """By seed, how many points better than float32; negative where worse."""
        return [
            100 * (row.final - reference.final)
            for row, reference in zip(self.rows, self.references, strict=True)
        ]

    @property
    def points(self) -> float:
        """Mean of `gains`."""
        return fmean(self.gains)

    @property
    def spread(self) -> float:
        """Standard error of `points`."""
        return stdev(self.gains) / math.sqrt(len(self.rows)) if len(self.rows) > 1 else math.nan

    @property
    def up_to_target(self) -> float | None:
        """Bytes that a device sends until the target is reached; None where a seed does not reach it."""
        return _mean_or_none(row.to(self.setting.target) for row in self.rows)

    @property
    def fewer_to_target(self) -> float | None:
        """How many times fewer bytes go up until the target is reached."""
        ours, theirs = self.up_to_target, _mean_or_none(r.to(self.setting.target) for r in self.references)
        return theirs / ours if ours and theirs else None


def _mean_or_none(found: Iterable[tuple[int, int] | None]) -> float | None:
    ups = [None if there is None else there[0] for there in found]
    known = [up for up in ups if up is not None]
    return fmean(known) if len(known) == len(ups) else None


@dataclass(frozen=True, slots=True)
class Results:
    """All rows."""

    cache: Cache
    seeds: range

    def compared(self, setting: Setting, way: Way) -> Compared | None:
        """Return the comparison over the seeds that both have rows of, None where there are none."""
        pairs = [
            tuple(self.cache.find(setting.trial(each, seed)) for each in (way, way.reference))
            for seed in self.seeds
        ]
        known = [(row, reference) for row, reference in pairs if row is not None and reference is not None]
        if not known:
            return None
        rows, references = zip(*known, strict=True)
        return Compared(setting, rows, references, len(self.seeds))


def print_ups(results: Results, settings: Sequence[Setting], ways: Mapping[str, Way]) -> None:
    """Print what goes up in one world; `settings` differ in their rounds, the last has the most."""
    longest = settings[-1]
    head = ["codec", "bytes an update", "fewer", "on the air", *_points_of(settings), "worst seed"]
    lines = []
    for name, way in ways.items():
        found = [results.compared(setting, way) for setting in settings]
        for last in [each for each in found if each is not None][-1:]:
            there = last.up_to_target
            cost = f"{there / longest.devices / 1000:,.1f}" if there else "not reached"
            points = [*map(shown, found), f"{min(last.gains):+.2f}"]
            lines.append(
                [
                    name,
                    f"{last.up:,.0f}",
                    times(last.fewer_up),
                    f"{last.air_up:,}",
                    *points,
                    cost,
                    times(last.fewer_to_target),
                ]
            )
    print_table(f"{longest}", [*head, f"kB a device to {longest.target:.0%}", "fewer"], lines)


def print_downs(results: Results, settings: Sequence[Setting], ways: Mapping[str, Way]) -> None:
    """Print what goes both ways in one world, as `print_ups` does."""
    head = [
        "up; down",
        "bytes up",
        "bytes down",
        "fewer up",
        "fewer down",
        "fewer in all",
        "on the air",
        "fewer",
    ]
    lines = []
    for name, way in ways.items():
        found = [results.compared(setting, way) for setting in settings]
        for last in [each for each in found if each is not None][-1:]:
            sizes = [f"{last.up:,.0f}", f"{last.down:,.0f}"]
            fewer = [*map(times, (last.fewer_up, last.fewer_down, last.fewer))]
            fewer += [f"{last.air_up + last.air_down:,}", times(last.fewer_air)]
            lines.append([name, *sizes, *fewer, *map(shown, found), f"{min(last.gains):+.2f}"])
    print_table(f"{settings[-1]}", [*head, *_points_of(settings), "worst seed"], lines)


def print_rules(
    results: Results, setting: Setting, rules: Sequence[str], codecs: Mapping[str, str], attack: str = ""
) -> None:
    """Print a row for each rule, a column for each codec: points lost against float32 under the same rule."""
    lines = []
    for rule in rules:
        base = results.compared(setting, Way(rule=rule, attack=attack))
        found = [results.compared(setting, Way(line, rule=rule, attack=attack)) for line in codecs.values()]
        if base is not None:
            lines.append([rule, f"{base.accuracy:.1%}", *map(shown, found)])
    title = f"{setting}, {LIARS} of {setting.devices} under {attack}" if attack else f"{setting}"
    print_table(title, ["rule", "float32", *codecs], lines)


def print_table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print Markdown."""
    print(f"\n**{title}**\n\n| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")


def shown(compared: Compared | None) -> str:
    """Return points, and where there are several seeds, their standard error."""
    if compared is None:
        return "-"
    count = "" if compared.complete else f" ({len(compared.rows)} of {compared.wanted} seeds)"
    spread = f" ± {compared.spread:.2f}" if len(compared.rows) > 1 else ""
    return f"{compared.points:+.2f}{spread}{count}"


def times(number: float | None) -> str:
    """Return how many times fewer, as Markdown."""
    if number is None:
        return "-"
    return f"{number:,.0f}x" if number >= 20 else f"{number:.1f}x"


def _points_of(settings: Sequence[Setting]) -> list[str]:
    return [f"points, {setting.rounds} rounds" for setting in settings]


def figures_of(results: Results, settings: Sequence[Setting], ways: Mapping[str, Way]) -> dict[str, float]:
    """Name every figure of these ways in these settings."""
    figures: dict[str, float] = {}
    for setting in settings:
        for name, way in ways.items():
            found = results.compared(setting, way)
            if found is None:
                continue
            key = f"{setting} | {' '.join(filter(None, (way.rule, way.attack)))} | {name}"
            figures |= {
                f"{key}: bytes up": found.up,
                f"{key}: bytes down": found.down,
                f"{key}: bytes on the air": found.air_up + found.air_down,
                f"{key}: accuracy": found.accuracy,
                f"{key}: points": found.points,
                f"{key}: worst seed": min(found.gains),
            }
            if found.up_to_target is not None:
                figures[f"{key}: bytes up a device to target"] = found.up_to_target / setting.devices
    return figures


MOST_LOST: Final = 0.5
"""Points that a codec may cost, in the mean over the seeds."""


def most(results: Results, settings: Sequence[Setting], ways: Iterable[Way], what: str) -> float:
    """Return the most of a property `what`, over ways that cost little in all settings, of the least over these.

    0 where there is no such way.
    """
    best = 0.0
    for way in ways:
        found = [results.compared(setting, way) for setting in settings]
        good = [each for each in found if each and each.complete and each.points >= -MOST_LOST]
        if len(good) == len(settings):
            best = max(best, min(getattr(each, what) or 0.0 for each in good))
    return best
