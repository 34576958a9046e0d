"""Guards: the first slot of a rule. Each looks at one update, and passes it, changes it or refuses it.

There is no guard for the shape: before any guard sees an update, `Rule.prepare` has refused it unless it is one
dimension of float32 of the model's length. That cannot be left out of a rule by mistake, because NumPy would stretch a
single number to a whole model without a word.

Guards stand in a list and work in its order, each on what the one before it passed. Those that refuse belong before
those that change: a bound behind a clip has nothing left to refuse.
"""

from fedmq.rules.guards.bound import NormBound, RelativeNormBound
from fedmq.rules.guards.clip import AdaptiveClip, NormClip
from fedmq.rules.guards.custom import CustomGuard
from fedmq.rules.guards.examples import ExamplesBound
from fedmq.rules.guards.finite import Finite
from fedmq.rules.guards.interface import Guard
from fedmq.rules.guards.similarity import Response, Similarity
from fedmq.rules.guards.staleness import StalenessBound, StalenessDiscount

GUARDS: dict[str, type[Guard]] = {
    "finite": Finite,
    "examples": ExamplesBound,
    "norm_clip": NormClip,
    "adaptive_clip": AdaptiveClip,
    "norm_bound": NormBound,
    "relative_norm_bound": RelativeNormBound,
    "similarity": Similarity,
    "staleness_discount": StalenessDiscount,
    "staleness_bound": StalenessBound,
    "custom_guard": CustomGuard,
}
"""Every guard by the `kind` that configuration names it with."""

__all__ = [
    "GUARDS",
    "AdaptiveClip",
    "CustomGuard",
    "ExamplesBound",
    "Finite",
    "Guard",
    "NormBound",
    "NormClip",
    "RelativeNormBound",
    "Response",
    "Similarity",
    "StalenessBound",
    "StalenessDiscount",
]
