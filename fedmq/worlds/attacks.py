"""What dishonest devices send: the attacks of the field, for measuring what a rule is worth.

An attack is crafted from what the attackers see of the honest updates. Given all of them it is the omniscient attacker
of the papers; given only the updates that the attackers' own data would have led to, it is what a real gang could do.
Add an attack by one class and one row of `ATTACKS`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedmq.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.random import Generator


Rows: TypeAlias = NDArray[np.float32]
"""One update in each row: shape (devices, numbers)."""


class Attack(Protocol):
    """One way to do harm; frozen, hashable, printable."""

    __slots__ = ()

    @property
    def poisons_labels(self) -> bool:
        """Whether the attackers train honestly on wrong labels instead of crafting what they send; not by default."""
        return False

    def craft(self, seen: Rows, attackers: int, rng: Generator) -> Rows:
        """Return what each of `attackers` devices sends, shape (attackers, numbers).

        `seen` holds the honest updates that they know, shape (devices, numbers), with one device at least.
        """


@dataclass(frozen=True, slots=True)
class SignFlip(Attack):
    """The mean of the honest updates, turned round and `scale` times as long.

    Source: Li et al. 2019, "RSA: Byzantine-Robust Stochastic Aggregation Methods", sign-flipping attack.
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        _require_positive("sign_flip", "scale", self.scale)

    def craft(self, seen: Rows, attackers: int, rng: Generator) -> Rows:  # noqa: ARG002 # the interface
        """Return ``-scale * mean`` for each."""
        return _each(-self.scale * _mean(seen), attackers)

    def __str__(self) -> str:
        return f"sign flip({self.scale:g})"


@dataclass(frozen=True, slots=True)
class InnerProduct(Attack):
    """A short step against the honest mean: too short to be seen, long enough to make a mean point backwards.

    Source: Xie, Koyejo and Gupta 2020, "Fall of Empires: Breaking Byzantine-Tolerant SGD by Inner Product
    Manipulation", with their epsilon.
    """

    epsilon: float = 0.5

    def __post_init__(self) -> None:
        _require_positive("inner_product", "epsilon", self.epsilon)

    def craft(self, seen: Rows, attackers: int, rng: Generator) -> Rows:  # noqa: ARG002 # as above
        """Return ``-epsilon * mean`` for each."""
        return _each(-self.epsilon * _mean(seen), attackers)

    def __str__(self) -> str:
        return f"inner product({self.epsilon:g})"


@dataclass(frozen=True, slots=True)
class LittleIsEnough(Attack):
    """The honest mean, moved in every number by as many standard deviations as still look like one of the crowd.

    `z` is that number of deviations; left out, it is the paper's: the normal quantile of ``(n - s) / n`` where n
    counts all devices and ``s = n // 2 + 1 - attackers`` honest ones must be made to look further out.

    Source: Baruch, Baruch and Goldberg 2019, "A Little Is Enough: Circumventing Defenses For Distributed Learning",
    algorithm 3.
    """

    z: float | None = None

    def __post_init__(self) -> None:
        if self.z is not None:
            _require_positive("little_is_enough", "z", self.z)

    def craft(self, seen: Rows, attackers: int, rng: Generator) -> Rows:  # noqa: ARG002 # as above
        """Return ``mean - z * deviation`` for each."""
        z = self.deviations(len(seen), attackers) if self.z is None else self.z
        return _each(_mean(seen) - z * seen.std(axis=0, dtype=np.float64), attackers)

    @staticmethod
    def deviations(honest: int, attackers: int) -> float:
        """Return the paper's z for `honest` and `attackers` devices, at least zero."""
        everyone = honest + attackers
        convinced = everyone // 2 + 1 - attackers
        share = (honest - convinced) / honest
        return max(0.0, NormalDist().inv_cdf(share)) if 0.0 < share < 1.0 else 0.0

    def __str__(self) -> str:
        return "a little is enough" if self.z is None else f"a little is enough({self.z:g})"


@dataclass(frozen=True, slots=True)
class Mimic(Attack):
    """Every attacker sends a copy of one honest device's update: nothing is wrong with it but how much it counts.

    It hurts where devices' data differ, and rules that look for outliers throw the others out. The device that is
    copied is the one furthest from the mean: the most one-sided voice is made loudest.

    Source: Karimireddy, He and Jaggi 2022, "Byzantine-Robust Learning on Heterogeneous Datasets via Bucketing",
    section 4.2, which picks the device by the direction of most variance.
    """

    def craft(self, seen: Rows, attackers: int, rng: Generator) -> Rows:  # noqa: ARG002 # as above
        """Return the same row of `seen` for each."""
        distances = np.square(seen - _mean(seen)).sum(axis=1)
        return _each(seen[int(distances.argmax())], attackers)

    def __str__(self) -> str:
        return "mimic"


@dataclass(frozen=True, slots=True)
class LabelFlip(Attack):
    """Honest training on labels counted from the other end: class c is called ``classes - 1 - c``.

    Source: Fang et al. 2020, "Local Model Poisoning Attacks to Byzantine-Robust Federated Learning", section 5.1.
    """

    @property
    def poisons_labels(self) -> bool:
        """Yes."""
        return True

    def craft(self, seen: Rows, attackers: int, rng: Generator) -> Rows:  # noqa: ARG002 # as above
        """Raise ConfigError: what this attack sends comes out of training."""
        raise ConfigError("label_flip crafts no updates: have the attackers train on flipped labels")

    @staticmethod
    def labels(y: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
        """Return the flipped labels."""
        return classes - 1 - y

    def __str__(self) -> str:
        return "label flip"


@dataclass(frozen=True, slots=True)
class Gaussian(Attack):
    """Noise as long as `scale` honest updates, different for each attacker.

    Source: Blanchard et al. 2017, "Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent", section 5,
    there with a fixed deviation of 200 in each number.
    """

    scale: float = 10.0

    def __post_init__(self) -> None:
        _require_positive("gaussian", "scale", self.scale)

    def craft(self, seen: Rows, attackers: int, rng: Generator) -> Rows:
        """Return normal noise, its expected length `scale` times the honest updates' mean length."""
        length = float(np.linalg.norm(seen, axis=1).mean())
        deviation = self.scale * length / math.sqrt(seen.shape[1])
        return (deviation * rng.standard_normal((attackers, seen.shape[1]))).astype(np.float32)

    def __str__(self) -> str:
        return f"gaussian({self.scale:g})"


@dataclass(frozen=True, slots=True)
class MinMax(Attack):
    """As far from the honest mean, against their deviations, as can be without standing out.

    That is: no further from any honest update than the two most different honest ones are from each other.

    The paper finds the length by halving; it is the least positive root of one quadratic equation for each device.

    Source: Shejwalkar and Houmansadr 2021, "Manipulating the Byzantine: Optimizing Model Poisoning Attacks and
    Defenses for Federated Learning", section IV-C, aggregation-agnostic Min-Max with the inverse standard deviation.
    """

    def craft(self, seen: Rows, attackers: int, rng: Generator) -> Rows:  # noqa: ARG002 # as above
        """Return ``mean + length * direction`` for each."""
        mean, direction = _mean(seen), -seen.std(axis=0, dtype=np.float64)
        return _each(mean + _farthest(seen, mean, direction) * direction, attackers)

    def __str__(self) -> str:
        return "min-max"


def _farthest(seen: Rows, mean: NDArray[np.float64], direction: NDArray[np.float64]) -> float:
    """Return the greatest length at which ``mean + length * direction`` stays within the honest devices' diameter."""
    square = float(direction @ direction)
    if square == 0.0:
        return 0.0
    widest = max(float(np.square(seen - row, dtype=np.float64).sum(axis=1).max()) for row in seen)
    away = mean - seen
    half, rest = away @ direction, np.square(away).sum(axis=1) - widest
    return float(((-half + np.sqrt(np.maximum(half * half - square * rest, 0.0))) / square).min())


def _mean(seen: Rows) -> NDArray[np.float64]:
    mean: NDArray[np.float64] = seen.mean(axis=0, dtype=np.float64)
    return mean


def _each(vector: NDArray[np.float64] | Rows, attackers: int) -> Rows:
    return np.tile(vector.astype(np.float32), (attackers, 1))


def _require_positive(kind: str, name: str, value: float) -> None:
    if not 0.0 < value < math.inf:
        raise ConfigError(f"{kind} has {name} {value}, wants a positive finite number")


ATTACKS: Mapping[str, type[Attack]] = {
    "sign_flip": SignFlip,
    "inner_product": InnerProduct,
    "little_is_enough": LittleIsEnough,
    "mimic": Mimic,
    "label_flip": LabelFlip,
    "gaussian": Gaussian,
    "min_max": MinMax,
}
"""Every attack by its kind."""
