"""Ways to deal the examples of a dataset out to devices.

Each is a small frozen dataclass with one method, `split`; `PARTITIONS` is the table of all, by the name that a
configuration or a command line uses. Whatever the way, every example goes to exactly one device and no device goes
away empty; the tests hold every row of the table to that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedmq.datasets.dataset import Integers
from fedmq.errors import MisuseError

if TYPE_CHECKING:
    from collections.abc import Iterable

Parts: TypeAlias = tuple[Integers, ...]
"""The row numbers of each device, in rising order."""


class Partition(Protocol):
    """A way to deal examples out."""

    def split(self, y: Integers, owner: Integers | None, devices: int, rng: np.random.Generator, /) -> Parts:
        """Return the row numbers of each of `devices` devices: disjoint, together all rows, none empty.

        `y` has one label per example, of shape (examples,); `owner` is of the same shape, or None where nobody is
        known to own the examples. All chance comes from `rng`.

        Raises `MisuseError` when there are too few examples to go round, or when the way needs owners and there are
        none.
        """


@dataclass(frozen=True, slots=True)
class Iid:
    """Shuffle, then cut into parts of equal size (give or take one)."""

    def split(self, y: Integers, _owner: Integers | None, devices: int, rng: np.random.Generator, /) -> Parts:
        """See `Partition.split`."""
        _enough(len(y), devices)
        return _rising(np.array_split(rng.permutation(len(y)), devices))


@dataclass(frozen=True, slots=True)
class ByOwner:
    """Give each owner's examples to a device of theirs.

    With fewer devices than owners, neighbouring owners share a device. With more, an owner has several devices: each
    label's examples are cut, in the order in which they stand (that is, in time), into one stretch per device, so that
    all of an owner's devices know all of the labels. There is no chance in it.
    """

    def split(self, y: Integers, owner: Integers | None, devices: int, _rng: np.random.Generator, /) -> Parts:
        """See `Partition.split`."""
        if owner is None:
            raise MisuseError(
                "by_owner needs a dataset that says who owns each example: take another partition"
            )
        _enough(len(y), devices)
        rows = [np.flatnonzero(owner == one) for one in np.unique(owner)]
        if devices <= len(rows):
            return _rising(
                np.concatenate(rows[group[0] : group[-1] + 1]) for group in _runs(len(rows), devices)
            )
        shares = [len(run) for run in _runs(devices, len(rows))]
        return _rising(
            part for own, share in zip(rows, shares, strict=True) for part in _stretches(own, y[own], share)
        )


@dataclass(frozen=True, slots=True)
class Dirichlet:
    """Skew the labels: each label's examples are shared in proportions drawn from a symmetric Dirichlet(`alpha`).

    A small `alpha` (0.1) leaves most devices with one or two labels, a large one (100) with nearly equal parts. A
    device with fewer than `minimum` examples is then topped up, one random example at a time, from whichever device
    has most; drawing again until the poorest has enough, as others do, may never end for a small `alpha`.

    After M. Yurochkin et al., "Bayesian Nonparametric Federated Learning of Neural Networks", 2019,
    https://arxiv.org/abs/1905.12022, section 4.
    """

    alpha: float
    minimum: int = 1

    def __post_init__(self) -> None:
        """Hold the settings to their ranges."""
        _positive("alpha", self.alpha)
        _positive("minimum", self.minimum)

    def split(self, y: Integers, _owner: Integers | None, devices: int, rng: np.random.Generator, /) -> Parts:
        """See `Partition.split`."""
        _enough(len(y), devices, each=self.minimum)
        holder = np.empty(len(y), np.int64)
        for label in np.unique(y):
            rows = rng.permutation(np.flatnonzero(y == label))
            share = rng.dirichlet(np.full(devices, self.alpha))
            holder[rows] = np.repeat(np.arange(devices), _whole(share, len(rows)))
        _top_up(holder, devices, self.minimum, rng)
        return tuple(np.flatnonzero(holder == device) for device in range(devices))


@dataclass(frozen=True, slots=True)
class Shards:
    """Sort by label, cut into `per_device` equal shards for each device, and deal the shards at random.

    Most devices so see about `per_device` labels only.

    After H. B. McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", 2017,
    https://arxiv.org/abs/1602.05629, section 3.
    """

    per_device: int

    def __post_init__(self) -> None:
        """Hold the setting to its range."""
        _positive("per_device", self.per_device)

    def split(self, y: Integers, _owner: Integers | None, devices: int, rng: np.random.Generator, /) -> Parts:
        """See `Partition.split`."""
        _enough(len(y), devices, each=self.per_device)
        shards = np.array_split(np.argsort(y, kind="stable"), devices * self.per_device)
        hands = rng.permutation(len(shards)).reshape(devices, self.per_device)
        return _rising(np.concatenate([shards[shard] for shard in hand]) for hand in hands)


@dataclass(frozen=True, slots=True)
class QuantitySkew:
    """Skew the amounts: the k-th richest device gets a share in proportion to k to the power of -`exponent`.

    Every device gets one example first; labels are mixed evenly, and which device is rich is chance. An `exponent`
    of 0 gives equal parts. Amounts that follow a power law are used in T. Li et al., "Federated Optimization in
    Heterogeneous Networks", 2020, https://arxiv.org/abs/1812.06127, section 5.
    """

    exponent: float

    def __post_init__(self) -> None:
        """Hold the setting to its range."""
        if not 0 <= self.exponent < math.inf:
            raise MisuseError(f"exponent is {self.exponent}: give 0 for equal amounts, or more")

    def split(self, y: Integers, _owner: Integers | None, devices: int, rng: np.random.Generator, /) -> Parts:
        """See `Partition.split`."""
        _enough(len(y), devices)
        weight = np.arange(1, devices + 1) ** -float(self.exponent)
        sizes = 1 + _whole(weight / weight.sum(), len(y) - devices)
        cuts = np.cumsum(rng.permutation(sizes))[:-1]
        return _rising(np.split(rng.permutation(len(y)), cuts))


PARTITIONS: dict[str, type[Iid | ByOwner | Dirichlet | Shards | QuantitySkew]] = {
    "iid": Iid,
    "by_owner": ByOwner,
    "dirichlet": Dirichlet,
    "shards": Shards,
    "quantity": QuantitySkew,
}
"""Every way, by the name it is spelled with."""


def _enough(total: int, devices: int, *, each: int = 1) -> None:
    if devices < 1:
        raise MisuseError(f"devices is {devices}: there is one device at least")
    if total < devices * each:
        raise MisuseError(f"{total} examples cannot give {devices} devices {each} each: take fewer devices")


def _positive(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise MisuseError(f"{name} is {value}: give a finite number above 0")


def _rising(parts: Iterable[Integers]) -> Parts:
    return tuple(np.sort(part) for part in parts)


def _whole(share: NDArray[np.float64], total: int) -> Integers:
    """Whole numbers in the proportions of `share` (which sums to 1), with the sum `total`."""
    ends = np.rint(np.cumsum(share) * total).astype(np.int64)
    ends[-1] = total
    return np.diff(np.minimum(ends, total), prepend=0)


def _runs(total: int, parts: int) -> list[Integers]:
    """0 .. total - 1 in `parts` neighbouring runs of nearly equal length."""
    return np.array_split(np.arange(total), parts)


def _stretches(rows: Integers, labels: Integers, devices: int) -> Iterable[Integers]:
    """Cut the rows of each label into one stretch per device; the devices' totals differ by one at most."""
    _enough(len(rows), devices)
    hands: list[list[Integers]] = [[] for _ in range(devices)]
    turn = 0  # whose turn it is to get one more than the others
    for label in np.unique(labels):
        mine = rows[labels == label]
        extra = (np.arange(devices) - turn) % devices < len(mine) % devices
        cuts = np.cumsum(len(mine) // devices + extra)[:-1]
        for hand, stretch in zip(hands, np.split(mine, cuts), strict=True):
            hand.append(stretch)
        turn = (turn + len(mine)) % devices
    return (np.concatenate(hand) for hand in hands)


def _top_up(holder: Integers, devices: int, minimum: int, rng: np.random.Generator) -> None:
    """Hand examples over, in place, until nobody holds fewer than `minimum`."""
    held = np.bincount(holder, minlength=devices)
    while held.min() < minimum:
        poorest, richest = held.argmin(), held.argmax()
        holder[rng.choice(np.flatnonzero(holder == richest))] = poorest
        held[poorest] += 1
        held[richest] -= 1
