"""Which examples a device has: how many, of which labels, and how both change with time.

Devices draw from one set, each for itself, so that a set of five thousand examples serves a hundred thousand devices:
two devices may have an example in common.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from fedmq.worlds.availability import DAY_S
from fedmq.worlds.chance import Chance, Integers, Reals
from fedmq.worlds.checks import want, want_at_least_zero, want_positive

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_EXAMPLES: Final = 100_000
"""Examples that one device may have."""


@dataclass(frozen=True, slots=True)
class Data:
    """``[world.data]``: what devices have to learn from, where `[fleet]` names a set that comes with fedmq.

    examples: how many a device has, as many devices more as less. spread: standard deviation of the logarithm of that.
    labels: how alike devices' mixtures of labels are, as the parameter of a Dirichlet distribution: 100 is alike, 0.1
    leaves most with one or two labels.
    turnover_days: days after which all of a device's examples have been replaced, one by one; 0 for never.
    season_days: days after which a device's mixture of labels is another one, to which it moves steadily; 0 for never.
    """

    examples: float = 50.0
    spread: float = 0.0
    labels: float = 1.0
    turnover_days: float = 0.0
    season_days: float = 0.0

    def __post_init__(self) -> None:
        """Raise ConfigError for what cannot be."""
        want(
            1 <= self.examples <= MOST_EXAMPLES,
            f"examples is {self.examples}; it must be from 1 to {MOST_EXAMPLES}",
        )
        want_positive("labels", self.labels)
        for name in ("spread", "turnover_days", "season_days"):
            want_at_least_zero(name, getattr(self, name))
        want(
            self.turnover_days > 0 or self.season_days == 0,
            "season_days is given of examples that are never replaced: say turnover_days too",
        )


class Shares:
    """The devices' shares of one set of examples."""

    def __init__(self, data: Data, labels: Sequence[int] | Integers, seed: int) -> None:
        """Draw under `seed` from examples with these labels (class numbers)."""
        self._data = data
        self._order = np.argsort(np.asarray(labels), kind="stable").astype(np.int64)
        self._counts = np.unique(labels, return_counts=True)[1].astype(np.int64)
        self._starts = np.cumsum(self._counts) - self._counts
        self._sizes, self._ages = Chance(seed, "examples"), Chance(seed, "age of an example")
        self._mixtures = Chance(seed, "mixture of labels")
        self._seed = seed

    def count(self, device: int) -> int:
        """Return how many examples the device has."""
        count = self._data.examples * math.exp(self._data.spread * self._sizes.normal(device))
        return min(max(1, round(count)), MOST_EXAMPLES)

    def rows(self, device: int, time: float) -> Integers:
        """Return which examples of the set the device has at `time`, in seconds."""
        places = np.arange(self.count(device))
        ages = self._ages.many(places, device)
        generations, born = self._generations(ages, time)
        chance = Chance(self._seed, f"label {device}").many(places, generations)
        which = Chance(self._seed, f"row {device}").many(places, generations)
        picks = self._labels(device, chance, born)
        within = (which * self._counts[picks]).astype(np.int64)
        return np.asarray(self._order[self._starts[picks] + within], np.int64)

    def _generations(self, ages: Reals, time: float) -> tuple[Integers, Reals]:
        """Return for each place the how-manieth example stands there, and since when."""
        if not self._data.turnover_days:
            return np.zeros(len(ages), np.int64), np.zeros(len(ages))
        turnover = self._data.turnover_days * DAY_S
        generations = np.floor(time / turnover + ages)
        return generations.astype(np.int64), np.maximum(0.0, (generations - ages) * turnover)

    def _labels(self, device: int, chance: Reals, born: Reals) -> Integers:
        """Return the label of each example, drawn from the mixture that the device had when the example came."""
        if not self._data.season_days:
            return _drawn(self._mixture(device, 0)[None], chance)
        seasons, part = np.divmod(born / (self._data.season_days * DAY_S), 1.0)
        known = {int(each): self._mixture(device, int(each)) for each in {*seasons, *(seasons + 1)}}
        now, then = (np.stack([known[int(each)] for each in when]) for when in (seasons, seasons + 1))
        return _drawn(now + part[:, None] * (then - now), chance)

    def _mixture(self, device: int, season: int) -> Reals:
        alpha = np.full(len(self._counts), self._data.labels)
        return np.asarray(self._mixtures.generator(device, season).dirichlet(alpha), np.float64)


def _drawn(mixtures: Reals, chance: Reals) -> Integers:
    """Return for each number from 0 to 1 the label that it stands for in its mixture, or in the only one."""
    above = chance[:, None] >= np.cumsum(mixtures, axis=1)
    return np.asarray(np.minimum(above.sum(axis=1), mixtures.shape[1] - 1), np.int64)
