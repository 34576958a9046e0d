"""Courses of `benchmarks.compression`: what one is, how it is run, and where its figures are kept."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from statistics import fmean
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from benchmarks._downlink import Down
from benchmarks._networks import BareTrainer, Convolutional, Perceptron
from benchmarks.attacks import CRUDE
from benchmarks.courses import Plan, World, course, people_world
from fedmq.datasets import deal, mnist
from fedmq.rules import preset

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks._networks import Network

DEVICES: Final = 20
LIARS: Final = 4
LAST: Final = 5
"""How many of the last rounds make a final accuracy: one round alone strays by half a point."""

NETWORKS: Final[dict[str, Network]] = {"mlp": Perceptron(), "cnn": Convolutional()}


@dataclass(frozen=True, slots=True)
class Trial:
    """One course: the task and how it is dealt out, who is asked, what travels how, and the seed of all chance.

    `down` is two codecs joined by `` ; ``, those of the first frame and of the frames after it; empty, each device is
    sent the whole model as float32. Where there is an `attack`, `LIARS` of the devices lie.
    """

    task: str
    partition: str
    asked: int
    rounds: int
    codec: str
    seed: int
    down: str = ""
    rule: str = "fedavg"
    attack: str = ""

    @property
    def key(self) -> str:
        """What tells it apart from others that are not the beginning of it."""
        return json.dumps({**asdict(self), "rounds": 0}, sort_keys=True)

    def run(self) -> Row:
        """Run it."""
        world = _world(self.task, self.partition, self.seed)
        if self.attack:
            world = _with_liars(world, self.seed)
        before = time.process_time()
        devices = len(world.trainers)
        plan = Plan(
            preset(self.rule),
            codec=self.codec,
            training={"epochs": 2, "batch_size": 32 if self.task == "watch" else 16},
            fraction=self.asked / devices,
            down=_down(self.down),
            attack=CRUDE[self.attack] if self.attack else None,
        )
        points = list(course(world, plan, self.rounds, self.seed))
        return Row(
            self,
            [point.accuracy for point in points],
            [round(point.loss, 5) for point in points],
            [point.bytes_up for point in points],
            [point.bytes_down for point in points],
            world.layout.size,
            round(time.process_time() - before, 2),
        )


@dataclass(frozen=True, slots=True)
class Row:
    """What a course gave, round by round; bytes are sums over all devices since the beginning."""

    trial: Trial
    accuracy: list[float]
    loss: list[float]
    up: list[int]
    down: list[int]
    parameters: int
    cpu_s: float

    def cut(self, rounds: int) -> Row:
        """Return its beginning."""
        lists = {name: getattr(self, name)[:rounds] for name in ("accuracy", "loss", "up", "down")}
        return replace(self, trial=replace(self.trial, rounds=rounds), **lists)

    @property
    def final(self) -> float:
        """Accuracy, the mean of the last rounds'."""
        return fmean(self.accuracy[-LAST:])

    @property
    def per_update(self) -> float:
        """Mean bytes of an update."""
        return self.up[-1] / (self.trial.asked * len(self.up))

    @property
    def per_task(self) -> float:
        """Mean bytes downloaded by a device for each round in which it takes part, first frame included."""
        return self.down[-1] / (self.trial.asked * len(self.down))

    def to(self, target: float) -> tuple[int, int] | None:
        """Return the bytes up and down of all devices until the model first has the target's accuracy."""
        there = next((at for at, accuracy in enumerate(self.accuracy) if accuracy >= target), None)
        return None if there is None else (self.up[there], self.down[there])


@dataclass(slots=True)
class Cache:
    """Rows of earlier runs, one JSON object a line in a file of `folder`; without one, of this run only."""

    folder: Path | None = None
    rows: dict[str, Row] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Read what is there; of two rows for one trial, the later one counts."""
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            if self._path.exists():
                for line in self._path.read_text(encoding="utf-8").splitlines():
                    self._keep(_row(json.loads(line)))

    @property
    def _path(self) -> Path:
        assert self.folder is not None
        return self.folder / "compression.jsonl"

    def find(self, trial: Trial) -> Row | None:
        """Return the row, cut from a longer one where there is one."""
        row = self.rows.get(trial.key)
        return row.cut(trial.rounds) if row and row.trial.rounds >= trial.rounds else None

    def add(self, row: Row) -> None:
        """Keep a row; other processes may write to the same file."""
        self._keep(row)
        if self.folder is not None:
            line = json.dumps(asdict(row)) + "\n"
            file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                os.write(file, line.encode())
            finally:
                os.close(file)

    def _keep(self, row: Row) -> None:
        self.rows[row.trial.key] = row

    def missing(self, trials: Sequence[Trial], *, again: bool = False) -> list[Trial]:
        """Return those without a row (with `again` all), each once, only the longest of those that begin alike."""
        longest: dict[str, Trial] = {}
        for trial in trials:
            known = longest.setdefault(trial.key, trial)
            if trial.rounds > known.rounds:
                longest[trial.key] = trial
        return [trial for trial in longest.values() if again or self.find(trial) is None]


def _with_liars(world: World, seed: int) -> World:
    """Return the same world where some of the devices, drawn at random, lie about what they learned."""
    drawn = np.random.default_rng(seed).permutation(len(world.trainers))[:LIARS]
    return World(world.trainers, world.judge, {number: world.trainers[number] for number in drawn.tolist()})


def _down(line: str) -> Down | None:
    if not line:
        return None
    first, delta = line.split(" ; ")
    return Down(first, delta)


def _row(found: dict[str, Any]) -> Row:
    return Row(**{**found, "trial": Trial(**found["trial"])})


@lru_cache(maxsize=1)
def _world(task: str, partition: str, seed: int) -> World:
    """Return who takes part, the same for all codecs. Trials come world by world, and a world has up to 100 MB."""
    if task == "watch":
        return people_world(seed)
    network, data = NETWORKS[task], mnist()
    trainers = [
        BareTrainer(network, network.take(data.x[rows], data.y[rows]), seed=seed)
        for rows in deal(f"dirichlet({partition})", data, devices=DEVICES, seed=seed)
    ]
    few, held_out = network.take(data.x[:1], data.y[:1]), network.take(data.x_test, data.y_test)
    return World(trainers, BareTrainer(network, few, held_out, seed=seed))
