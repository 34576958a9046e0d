"""Guards that shorten an update."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fedmq.errors import Refused
from fedmq.rules.guards.interface import Guard
from fedmq.rules.measure import norm
from fedmq.rules.memory import EMPTY, Memory, as_figure, figure
from fedmq.rules.needs import MEASURES_LENGTH, Needs
from fedmq.rules.scaling import scaled
from fedmq.rules.settings import require

if TYPE_CHECKING:
    from fedmq.rules.claim import Claim
    from fedmq.vectors import Layout, Vector

_LEAST_LIMIT: Final = 2.0**-64
_MOST_LIMIT: Final = 2.0**64
_MOST_RATE: Final = 4.0


@dataclass(frozen=True, slots=True)
class NormClip(Guard):
    """Scale an update down so that its trainable part is no longer than `limit`.

    Formula: `delta * min(1, limit / norm)`, where the norm is L2 over the trainable numbers. Statistics (batch norm's
    mean and variance) are neither measured nor scaled: half of a variance is not a smaller step but a wrong one.

    Source: Sun et al. 2019, "Can You Really Backdoor Federated Learning?", section 4 (norm thresholding); McMahan et
    al. 2018, "Learning Differentially Private Recurrent Language Models", section 2 (flat clipping).

    Cost: 4 ms for 10 MB; as much again where it clips. The result's norm is within one part in 10^6 of the limit.

    Use it when a few devices train on odd data or cannot be trusted: it bounds what one device can do to the model in
    one round. Start with about twice the median of the round's `norm_mean`; a limit below most norms slows learning.

    Configuration: `kind = "norm_clip"`, `limit` (model units, default 10).

    Example:
        >>> import numpy as np
        >>> from fedmq.rules import Claim
        >>> from fedmq.vectors import Layout, Variable
        >>> layout = Layout((Variable("w", (2,)),))
        >>> NormClip(limit=1.0).check(np.array([3.0, 4.0], np.float32), Claim(examples=1), layout)
        array([0.6, 0.8], dtype=float32)
    """

    limit: float = 10.0

    def __post_init__(self) -> None:
        require(
            0.0 < self.limit < math.inf, f"norm_clip has limit {self.limit}, wants a positive finite number"
        )

    @property
    def needs(self) -> Needs:
        """A small error: see the reason."""
        return Needs("small", str(self), MEASURES_LENGTH)

    def check(self, delta: Vector, claim: Claim, layout: Layout, memory: Memory = EMPTY) -> Vector:  # noqa: ARG002 # the slot's signature
        """Return `delta`, or a scaled copy; raise Refused where the norm is not finite."""
        return _clipped(delta, self.limit, layout)

    def __str__(self) -> str:
        return f"clip({self.limit:g})"


@dataclass(frozen=True, slots=True)
class AdaptiveClip(Guard):
    """Clip as `norm_clip` does, at a limit that follows a quantile of the updates' norms.

    Formula: `limit = limit * exp(-rate * (below - quantile))` at the end of each round, where `below` is the share of
    its updates whose norm, before clipping, was at most `limit`; then `delta * min(1, limit / norm)`. So the limit
    falls while more than `quantile` of the updates fit below it, and rises while fewer do.

    Source: Andrew et al. 2021, "Differentially Private Learning with Adaptive Clipping", algorithm 1, with their
    constants as defaults. There the count of updates below the limit gets Gaussian noise; here it gets none. The count
    reaches the limit through `learn` alone, which takes a noisy one, below 0 or above 1 as well.

    Cost: 8 ms for 10 MB (the norm is measured to count and to clip), 12 where it clips; memory of one number.

    Use it when you would clip and do not know at what: norms hang on model, learning rate and local epochs, and fall as
    training goes on. Give `first` a guess within a factor of 100; each round moves the limit by a tenth at most. While
    it is far above the norms it protects from little, far below it slows learning.

    Configuration: `kind = "adaptive_clip"`, `quantile` (default 0.5: the median), `rate` (default 0.2), `first` (the
    limit of the first round in model units, default 0.1).

    Example:
        >>> import numpy as np
        >>> from fedmq.vectors import Layout, Variable
        >>> layout = Layout((Variable("w", (1,)),))
        >>> guard = AdaptiveClip(quantile=0.5, rate=0.2, first=1.0)
        >>> all_below = guard.learn(np.zeros(1, np.float32), 1.0, layout, {})
        >>> print(all_below["limit"].round(3))  # exp(-0.1)
        [0.905]
    """

    quantile: float = 0.5
    rate: float = 0.2
    first: float = 0.1

    def __post_init__(self) -> None:
        require(
            0.0 <= self.quantile <= 1.0, f"adaptive_clip has quantile {self.quantile}, wants one from 0 to 1"
        )
        require_pace("adaptive_clip", self.rate)
        require(
            _LEAST_LIMIT <= self.first <= _MOST_LIMIT,
            f"adaptive_clip has first {self.first}, wants a limit from {_LEAST_LIMIT:g} to {_MOST_LIMIT:g}",
        )

    @property
    def needs(self) -> Needs:
        """A small error: see the reason."""
        return Needs("small", str(self), MEASURES_LENGTH)

    def check(self, delta: Vector, claim: Claim, layout: Layout, memory: Memory = EMPTY) -> Vector:  # noqa: ARG002 # the slot's signature
        """Return `delta`, or a scaled copy; raise Refused where the norm is not finite."""
        return _clipped(delta, figure(memory, "limit", self.first), layout)

    def count(self, delta: Vector, layout: Layout, memory: Memory) -> int:
        """Return 1 where the delta is no longer than the limit."""
        return int(norm(delta, layout) <= figure(memory, "limit", self.first))

    def learn(self, delta: Vector, mean_count: float, layout: Layout, memory: Memory) -> Memory:  # noqa: ARG002 # as above
        """Return the next round's ``limit``; `mean_count` is the share below this round's, noisy or not."""
        moved = figure(memory, "limit", self.first) * math.exp(-self.rate * (mean_count - self.quantile))
        return {"limit": as_figure(min(max(moved, _LEAST_LIMIT), _MOST_LIMIT))}

    def __str__(self) -> str:
        return f"clip(quantile {self.quantile:g})"


def require_pace(kind: str, rate: float) -> None:
    """Raise ConfigError unless `rate` is one at which a limit can follow a quantile: half of it is a power of e."""
    require(0.0 < rate <= _MOST_RATE, f"{kind} has rate {rate}, wants more than 0 and at most {_MOST_RATE:g}")


def _clipped(delta: Vector, limit: float, layout: Layout) -> Vector:
    length = norm(delta, layout)
    if not math.isfinite(length):
        raise Refused("update's norm is not finite, so it cannot be clipped: did training diverge?")
    return delta if length <= limit else scaled(delta, limit / length, layout)
