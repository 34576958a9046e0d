"""Weighers: the second slot of a rule. Each says how much one update counts.

A weigher gives one weight for each of its *lanes*. A lane is a fold of its own; when the round ends, every lane is
divided by its own sum of weights, and the lanes' means are added in the proportions of `lanes`. All weighers have one
lane but `Blend`, which has those of its parts: so a blend is exact although no weight can know those that come later.

A weight lies between `LEAST_WEIGHT` and `MOST_WEIGHT`; outside, the update is refused. So zero is no weight: a device
that would not count is told so, and does not fill a quorum.
"""

from fedmq.rules.weighers.combined import Blend, Product
from fedmq.rules.weighers.counts import ByExamples, Uniform
from fedmq.rules.weighers.custom import CustomWeigher
from fedmq.rules.weighers.fair import QFair
from fedmq.rules.weighers.freshness import ByFreshness
from fedmq.rules.weighers.interface import LEAST_WEIGHT, MOST_WEIGHT, Weighed, Weigher
from fedmq.rules.weighers.metric import ByMetric, InverseVariance, Transform

WEIGHERS: dict[str, type[Weigher]] = {
    "uniform": Uniform,
    "by_examples": ByExamples,
    "by_metric": ByMetric,
    "by_freshness": ByFreshness,
    "inverse_variance": InverseVariance,
    "q_fair": QFair,
    "blend": Blend,
    "product": Product,
    "custom_weigher": CustomWeigher,
}
"""Every weigher by the `kind` that configuration names it with."""

__all__ = [
    "LEAST_WEIGHT",
    "MOST_WEIGHT",
    "WEIGHERS",
    "Blend",
    "ByExamples",
    "ByFreshness",
    "ByMetric",
    "CustomWeigher",
    "InverseVariance",
    "Product",
    "QFair",
    "Transform",
    "Uniform",
    "Weighed",
    "Weigher",
]
