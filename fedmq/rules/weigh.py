"""Weighers: the second slot of a rule. Each says how much one update counts.

A weigher gives one weight for each of its *lanes*. A lane is a fold of its own; when the round ends, every lane is
divided by its own sum of weights, and the lanes' means are added in the proportions of `lanes`. All weighers have one
lane but `Blend`, which has those of its parts: so a blend is exact although no weight can know those that come later.

A weight lies between `LEAST_WEIGHT` and `MOST_WEIGHT`; outside, the update is refused. So zero is no weight: a device
that would not count is told so, and does not fill a quorum.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from fedmq.errors import Refused
from fedmq.rules.settings import require

if TYPE_CHECKING:
    from fedmq.rules.claim import Claim

LEAST_WEIGHT = 2.0**-20
"""Least weight of one update, about one millionth."""

MOST_WEIGHT = 2.0**28
"""Most weight of one update, 268 million; the fold's range (see `fedmq.rules.reduce`) has room for 4,095 of these."""


class Weigher(Protocol):
    """Turns a claim into weights."""

    __slots__ = ()

    @property
    def lanes(self) -> tuple[float, ...]:
        """The share of each lane in the result; positive, and one in sum. One lane by default."""
        return (1.0,)

    @property
    def uniform(self) -> bool:
        """Whether every update gets the same weight; not by default."""
        return False

    def weigh(self, claim: Claim) -> tuple[float, ...]:
        """Return one weight for each lane; raise Refused where the claim gives none."""


@dataclass(frozen=True, slots=True)
class Uniform(Weigher):
    """Every update counts the same.

    Formula: `w = 1`, so the result is the simple average of the deltas.

    Source: the plain mean; McMahan et al. 2017 with equal `n_k`.

    Cost: none that can be measured.

    Use it when every device should have one voice: few devices with much data would otherwise drown the others, or
    the claimed numbers of examples cannot be trusted.

    Configuration: `kind = "uniform"`.
    """

    @property
    def uniform(self) -> bool:
        """Yes."""
        return True

    def weigh(self, claim: Claim) -> tuple[float, ...]:  # noqa: ARG002 # the slot's signature
        """Return one."""
        return (1.0,)

    def __str__(self) -> str:
        return "uniform"


@dataclass(frozen=True, slots=True)
class ByExamples(Weigher):
    """An update counts as much as the number of examples it was trained on.

    Formula: `w = min(examples, cap)`.

    Source: McMahan et al. 2017, "Communication-Efficient Learning of Deep Networks from Decentralized Data",
    algorithm 1 (`n_k / n`).

    Cost: none that can be measured.

    Use it when examples are alike in worth: it gives each example, not each device, one voice, and is what most papers
    mean by federated averaging. `cap` bounds what one rich or lying device can weigh.

    Configuration: `kind = "by_examples"`, `cap` (default none).
    """

    cap: int | None = None

    def __post_init__(self) -> None:
        require(
            self.cap is None or self.cap >= 1, f"by_examples has cap {self.cap}, wants at least 1, or none"
        )

    def weigh(self, claim: Claim) -> tuple[float, ...]:
        """Return the claimed number, at most `cap`; raise Refused where it is not positive."""
        if claim.examples < 1:
            raise Refused(f"update claims {claim.examples} examples, at least 1 is needed to weigh it")
        return (float(claim.examples if self.cap is None else min(claim.examples, self.cap)),)

    def __str__(self) -> str:
        return "by examples" if self.cap is None else f"by examples({self.cap} at most)"


Transform: TypeAlias = Literal["value", "inverse", "softmax"]


@dataclass(frozen=True, slots=True)
class ByMetric(Weigher):
    """An update counts by the quality its device reports.

    Formula: `w = q` (transform `value`), `w = 1 / q` (`inverse`) or `w = exp((q - high) / temperature)` (`softmax`:
    divided by the sum, it is the softmax of `q / temperature`), where `q` is the reported metric, raised to `low` if
    it is less. An update that reports more than `high` is refused.

    Source: common practice with validation accuracy or inverse loss; Chen et al. 2020, "Focus: Dealing with Label
    Quality Disparity in Federated Learning", weigh by a score of the same kind, computed from two losses.

    Cost: none that can be measured.

    Use it when devices differ in the quality of their data (noise, wrong labels, bad sensors) and hold some of it out.
    Not when they differ in *what* they see: then the metric favours those with easy data, softmax most of all. Not with
    devices that may lie: the metric is their own word, and its bounds are all that stands against it. For a loss take
    `transform = "inverse"`, and set `high` to the most that a healthy device reports.

    Configuration: `kind = "by_metric"`, `name` (default accuracy), `transform` (value, inverse, softmax), `temperature`
    (softmax only, default 0.1: metric units that make a factor of e), `low` (default 0.01), `high` (default 1).
    """

    name: str = "accuracy"
    transform: Transform = "value"
    temperature: float = 0.1
    low: float = 0.01
    high: float = 1.0

    def __post_init__(self) -> None:
        require(
            0.0 < self.low < self.high < math.inf,
            f"by_metric wants 0 < low < high, has {self.low}, {self.high}",
        )
        require(
            self.temperature > 0.0, f"by_metric has temperature {self.temperature}, wants a positive number"
        )
        require(
            self.transform in {"value", "inverse", "softmax"},
            f"by_metric has transform {self.transform!r}, wants value, inverse or softmax",
        )
        lightest, heaviest = sorted((self._weight(self.low), self._weight(self.high)))
        require(
            LEAST_WEIGHT <= lightest <= heaviest <= MOST_WEIGHT,
            f"by_metric would give weights from {lightest:g} to {heaviest:g}, wants {LEAST_WEIGHT:g} to "
            f"{MOST_WEIGHT:g}: bring low and high closer, or raise the temperature",
        )

    def weigh(self, claim: Claim) -> tuple[float, ...]:
        """Return the transformed metric; raise Refused where it is missing, not finite, negative or above `high`."""
        value = claim.metrics.get(self.name)
        if value is None:
            has = ", ".join(sorted(claim.metrics)) or "none"
            raise Refused(f"update reports no {self.name} (it has {has}): have its trainer hold data back")
        if not 0.0 <= value <= self.high:
            raise Refused(f"update reports {self.name} {value}, between 0 and {self.high:g} is believed")
        return (self._weight(max(value, self.low)),)

    def _weight(self, quality: float) -> float:
        if self.transform == "inverse":
            return 1.0 / quality
        if self.transform == "softmax":
            return math.exp((quality - self.high) / self.temperature)
        return quality

    def __str__(self) -> str:
        if self.transform == "softmax":
            return f"by {self.name} softmax({self.temperature:g})"
        return f"by {self.name}" if self.transform == "value" else f"by {self.transform} {self.name}"


@dataclass(frozen=True, slots=True)
class Blend(Weigher):
    """Several ways of weighing at once, each with a fixed share of the result.

    Formula: `sum_k share_k * (sum_i w_ki * delta_i / sum_i w_ki)`: a convex combination of the parts' own means, each
    divided by its own sum of weights when the round ends. This needs one fold lane for each part, and is exact in any
    order, which adding up normalised weights is not: the first device's share would hang on those that come after.
    Blends of blends are flattened.

    Source: the convex combination of two estimators; see the reference page for how it differs from weighing by a
    product or a sum of raw weights, where the part with the larger unit wins.

    Cost: time and memory of the fold times the number of lanes.

    Use it when one voice for each device is too little and one for each example too much, or to let quality count
    without letting it rule: half of the result then does not hang on a metric that a device could make up.

    Configuration: `kind = "blend"`, `parts` (a list of weighers), `shares` (their shares, one in sum).
    """

    parts: tuple[Weigher, ...] = (Uniform(), ByExamples())
    shares: tuple[float, ...] = (0.5, 0.5)

    def __post_init__(self) -> None:
        require(
            len(self.parts) == len(self.shares) > 0,
            f"blend has {len(self.parts)} parts and {len(self.shares)} shares, wants one share for each part",
        )
        require(
            all(share > 0.0 for share in self.shares), f"blend has shares {self.shares}, wants positive ones"
        )
        total = math.fsum(self.shares)
        require(math.isclose(total, 1.0, abs_tol=1e-9), f"blend's shares add up to {total:g}, wants 1")

    @property
    def lanes(self) -> tuple[float, ...]:
        """The parts' lanes in order, each share times its part's."""
        pairs = zip(self.parts, self.shares, strict=True)
        return tuple(share * inner for part, share in pairs for inner in part.lanes)

    def weigh(self, claim: Claim) -> tuple[float, ...]:
        """Return the parts' weights in order; raise Refused where one part does."""
        return tuple(weight for part in self.parts for weight in part.weigh(claim))

    def __str__(self) -> str:
        pairs = zip(self.parts, self.shares, strict=True)
        return " + ".join(f"{share:g} {part}" for part, share in pairs).join("()")


WEIGHERS: dict[str, type[Weigher]] = {
    "uniform": Uniform,
    "by_examples": ByExamples,
    "by_metric": ByMetric,
    "blend": Blend,
}
"""Every weigher by the `kind` that configuration names it with."""
