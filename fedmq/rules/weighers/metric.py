"""Weighers by what a device reports of its model or its data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from fedmq.errors import Refused
from fedmq.rules.settings import require
from fedmq.rules.weighers.interface import LEAST_WEIGHT, MOST_WEIGHT, Weigher

if TYPE_CHECKING:
    from fedmq.rules.claim import Claim

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

    Example:
        >>> from fedmq.rules import Claim
        >>> ByMetric("loss", transform="inverse", high=10.0).weigh(Claim(examples=1, metrics={"loss": 4.0}))
        (0.25,)
    """

    name: str = "accuracy"
    transform: Transform = "value"
    temperature: float = 0.1
    low: float = 0.01
    high: float = 1.0

    def __post_init__(self) -> None:
        require_bounds("by_metric", self.low, self.high)
        require(
            self.temperature > 0.0, f"by_metric has temperature {self.temperature}, wants a positive number"
        )
        require(
            self.transform in {"value", "inverse", "softmax"},
            f"by_metric has transform {self.transform!r}, wants value, inverse or softmax",
        )
        require_weights("by_metric", self._weight(self.low), self._weight(self.high))

    def weigh(self, claim: Claim) -> tuple[float, ...]:
        """Return the transformed metric; raise Refused where it is missing, not finite, negative or above `high`."""
        return (self._weight(reported(claim, self.name, self.low, self.high)),)

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
class InverseVariance(Weigher):
    """An update counts by how surely its device knows: by one over the variance it reports.

    Formula: `w = 1 / v`, where `v` is the reported variance, raised to `low` if it is less. An update that reports more
    than `high` is refused.

    Source: Aitken 1936, "On Least Squares and Linear Combination of Observations": of all weighted means of independent
    unbiased estimates, this one has the least variance. As fixed-effect pooling it is how trials are combined
    (Cochran 1954, "The Combination of Estimates from Different Experiments").

    Cost: none that can be measured.

    Use it when trainers report how noisy their update is (the variance of their gradients, of an ensemble, of repeated
    trainings) and devices differ in noise, not in what they see: estimates of different truths have no pooled one.
    Where the variance goes down as 1 / examples, `by_examples` is the same and needs no metric. Not with devices that
    may lie.

    Configuration: `kind = "inverse_variance"`, `name` (of the metric, default variance), `low` (default 0.0001), `high`
    (default 10,000).

    Example:
        >>> from fedmq.rules import Claim
        >>> InverseVariance().weigh(Claim(examples=1, metrics={"variance": 0.25}))
        (4.0,)
    """

    name: str = "variance"
    low: float = 1e-4
    high: float = 1e4

    def __post_init__(self) -> None:
        require_bounds("inverse_variance", self.low, self.high)
        require_weights("inverse_variance", 1.0 / self.low, 1.0 / self.high)

    def weigh(self, claim: Claim) -> tuple[float, ...]:
        """Return one over the variance; raise Refused where it is missing, not finite, negative or above `high`."""
        return (1.0 / reported(claim, self.name, self.low, self.high),)

    def __str__(self) -> str:
        return f"by inverse {self.name}"


def reported(claim: Claim, name: str, low: float, high: float) -> float:
    """Return a metric, raised to `low` if it is less; raise Refused where it is missing, negative or above `high`."""
    value = claim.metrics.get(name)
    if value is None:
        has = ", ".join(sorted(claim.metrics)) or "none"
        raise Refused(f"update reports no {name} (it has {has}): have its trainer hold data back")
    if not 0.0 <= value <= high:
        raise Refused(f"update reports {name} {value}, between 0 and {high:g} is believed")
    return max(value, low)


def require_bounds(kind: str, low: float, high: float) -> None:
    """Raise ConfigError unless a metric from `low` to `high` is a positive finite number."""
    require(0.0 < low < high < math.inf, f"{kind} wants 0 < low < high, has {low}, {high}")


def require_weights(kind: str, *ends: float) -> None:
    """Raise ConfigError unless both ends of what a metric becomes are weights that a fold takes."""
    lightest, heaviest = min(ends), max(ends)
    require(
        LEAST_WEIGHT <= lightest <= heaviest <= MOST_WEIGHT,
        f"{kind} would give weights from {lightest:g} to {heaviest:g}, wants {LEAST_WEIGHT:g} to {MOST_WEIGHT:g}: "
        "bring low and high closer, or flatten the curve between them",
    )
