"""Weighers made of weighers."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedmq.rules.needs import Needs, strictest
from fedmq.rules.settings import require
from fedmq.rules.weighers.counts import ByExamples, Uniform
from fedmq.rules.weighers.interface import Weighed, Weigher
from fedmq.rules.weighers.metric import ByMetric

if TYPE_CHECKING:
    from fedmq.rules.claim import Claim


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

    Example:
        >>> from fedmq.rules import Claim
        >>> blend = Blend((Uniform(), ByExamples()), (0.25, 0.75))
        >>> blend.lanes, blend.weigh(Claim(examples=40))
        ((0.25, 0.75), (1.0, 40.0))
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

    @property
    def needs(self) -> Needs:
        """What the most demanding part does."""
        return strictest(part.needs for part in self.parts)

    def weigh(self, claim: Claim) -> tuple[float, ...]:
        """Return the parts' weights in order; raise Refused where one part does."""
        return tuple(weight for part in self.parts for weight in part.weigh(claim))

    def weighed(self, claim: Claim, norm: float) -> tuple[Weighed, ...]:
        """Return the parts' weights and scales in order; raise Refused where one part does."""
        return tuple(weighed for part in self.parts for weighed in part.weighed(claim, norm))

    def __str__(self) -> str:
        pairs = zip(self.parts, self.shares, strict=True)
        return " + ".join(f"{share:g} {part}" for part, share in pairs).join("()")


@dataclass(frozen=True, slots=True)
class Product(Weigher):
    """An update counts by several weighers at once, multiplied.

    Formula: `w = w_1 * w_2 * …`, and so with scales where a part gives any. Of parts that have lanes, such as `blend`,
    each lane of the one goes with each of the other, their shares multiplied.

    Source: the weight of independent pieces of evidence; `n_k * F_k^q` of Li et al. 2020 and `n_k * worth(staleness)`
    of Chen et al. 2019 are of this kind.

    Cost: that of its parts; a fold for each combination of lanes.

    Use it when one reason to count less ought to hold against every reason to count more: examples times quality (a
    large data set of bad labels counts little), examples times freshness. Where a device's word on one figure ought to
    have a bounded say, `blend` instead: a product follows whichever part is stretched furthest.

    Configuration: `kind = "product"`, `parts` (a list of weighers).

    Example:
        >>> from fedmq.rules import ByMetric, Claim
        >>> Product((ByExamples(), ByMetric())).weigh(Claim(examples=40, metrics={"accuracy": 0.5}))
        (20.0,)
    """

    parts: tuple[Weigher, ...] = (ByExamples(), ByMetric())

    def __post_init__(self) -> None:
        require(len(self.parts) > 0, "product has no parts, wants at least one weigher")

    @property
    def lanes(self) -> tuple[float, ...]:
        """Every combination of the parts' lanes, their shares multiplied."""
        return tuple(map(math.prod, itertools.product(*(part.lanes for part in self.parts))))

    @property
    def uniform(self) -> bool:
        """Whether every part is."""
        return all(part.uniform for part in self.parts)

    @property
    def needs(self) -> Needs:
        """What the most demanding part does."""
        return strictest(part.needs for part in self.parts)

    def weigh(self, claim: Claim) -> tuple[float, ...]:
        """Return the product of each combination; raise Refused where one part does."""
        return tuple(map(math.prod, itertools.product(*(part.weigh(claim) for part in self.parts))))

    def weighed(self, claim: Claim, norm: float) -> tuple[Weighed, ...]:
        """Return the products of weights and of scales for each combination; raise Refused where one part does."""
        pairs = itertools.product(*(part.weighed(claim, norm) for part in self.parts))
        return tuple(Weighed(*map(math.prod, zip(*pair, strict=True))) for pair in pairs)

    def __str__(self) -> str:
        return " * ".join(map(str, self.parts)).join("()")
