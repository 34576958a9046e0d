"""Guards that refuse an update for its length."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fedmq.errors import Refused
from fedmq.rules.fold import MOST_COUNT
from fedmq.rules.guards.clip import require_pace
from fedmq.rules.guards.interface import Guard
from fedmq.rules.measure import norm
from fedmq.rules.memory import EMPTY, Memory, as_figure, figure
from fedmq.rules.needs import MEASURES_LENGTH, Needs
from fedmq.rules.settings import require

if TYPE_CHECKING:
    from fedmq.rules.claim import Claim
    from fedmq.vectors import Layout, Vector

_UNIT_BITS: Final = 24
"""The first round's norms are added up in whole units of 2^-24, up to 2^19 each."""


@dataclass(frozen=True, slots=True)
class NormBound(Guard):
    """Refuse an update whose trainable part is longer than `limit`.

    Formula: pass where `norm <= limit`, the norm L2 over the trainable numbers.

    Source: Sun et al. 2019, "Can You Really Backdoor Federated Learning?", section 4, whose threshold ignores what is
    above it in one reading and scales it down in the other; the second is `norm_clip`.

    Cost: 4 ms for 10 MB.

    Use it when an update that long is a fault, not a large step: a diverged training, a wrong unit. The device hears
    why, and its update is not counted. `norm_clip` would keep the direction of what may be garbage.

    Configuration: `kind = "norm_bound"`, `limit` (model units, default 100).

    Example:
        >>> import numpy as np
        >>> from fedmq.rules import Claim
        >>> from fedmq.vectors import Layout, Variable
        >>> layout = Layout((Variable("w", (2,)),))
        >>> NormBound(limit=1.0).check(np.array([3.0, 4.0], np.float32), Claim(examples=1), layout)
        Traceback (most recent call last):
        fedmq.errors.Refused: update has norm 5, at most 1 is taken: did training diverge?
    """

    limit: float = 100.0

    def __post_init__(self) -> None:
        require(
            0.0 < self.limit < math.inf, f"norm_bound has limit {self.limit}, wants a positive finite number"
        )

    @property
    def needs(self) -> Needs:
        """A small error: see the reason."""
        return Needs("small", str(self), MEASURES_LENGTH)

    def check(self, delta: Vector, claim: Claim, layout: Layout, memory: Memory = EMPTY) -> Vector:  # noqa: ARG002 # the slot's signature
        """Return `delta`; raise Refused where it is too long, or has no norm."""
        length = norm(delta, layout)
        if not length <= self.limit:
            raise Refused(
                f"update has norm {length:g}, at most {self.limit:g} is taken: did training diverge?"
            )
        return delta

    def __str__(self) -> str:
        return f"norm(at most {self.limit:g})"


@dataclass(frozen=True, slots=True)
class RelativeNormBound(Guard):
    """Refuse an update that is much longer than updates of earlier rounds were.

    Formula: pass where `norm <= factor * typical`. After the first round `typical` is the mean of its norms; after each
    later one, `typical = typical * exp(-rate * (below - 1/2))`, where `below` is the share of the round's updates with
    `norm <= typical`: it follows the median.

    Source: bounding by a multiple of the median norm is common practice; the median is followed as Andrew et al. 2021
    do at quantile 1/2 (see `adaptive_clip`), because the share is one number that shards can add up, and a minority
    cannot move it far however long its updates are.

    Cost: 8 ms for 10 MB; memory of one number.

    Use it when you want what `norm_bound` does and cannot say at what length. Put it before a guard that clips. The
    first round has no bound: put a `norm_bound` before it that only nonsense exceeds. If what devices are told to train
    changes so much that every update grows by `factor` at once, all are refused, and rounds with none teach it nothing:
    begin again with a larger `factor` then.

    Configuration: `kind = "relative_norm_bound"`, `factor` (default 5), `rate` (default 0.5).

    Example:
        >>> import numpy as np
        >>> from fedmq.rules import Claim
        >>> from fedmq.vectors import Layout, Variable
        >>> layout = Layout((Variable("w", (2,)),))
        >>> delta, seen = np.array([3.0, 4.0], np.float32), {"typical": np.array([1.0])}
        >>> RelativeNormBound(factor=3.0).check(delta, Claim(1), layout, seen)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        fedmq.errors.Refused: update has norm 5, others have about 1 and at most 3 times that is taken: did ...
    """

    factor: float = 5.0
    rate: float = 0.5

    def __post_init__(self) -> None:
        require(
            1.0 < self.factor < math.inf,
            f"relative_norm_bound has factor {self.factor}, wants a finite number above 1",
        )
        require_pace("relative_norm_bound", self.rate)

    @property
    def needs(self) -> Needs:
        """A small error: see the reason."""
        return Needs("small", str(self), MEASURES_LENGTH)

    def check(self, delta: Vector, claim: Claim, layout: Layout, memory: Memory = EMPTY) -> Vector:  # noqa: ARG002 # the slot's signature
        """Return `delta`; raise Refused where it is too long, or has no norm."""
        length, typical = norm(delta, layout), figure(memory, "typical", math.inf)
        if not (length < math.inf and length <= self.factor * typical):
            raise Refused(
                f"update has norm {length:g}, others have about {typical:g} and at most {self.factor:g} times that is "
                "taken: did training diverge?"
            )
        return delta

    def count(self, delta: Vector, layout: Layout, memory: Memory) -> int:
        """Return the norm in whole units while nothing is known; then 1 where it is no more than is typical."""
        length = norm(delta, layout)
        if "typical" in memory:
            return int(length <= figure(memory, "typical", math.inf))
        return int(min(math.ldexp(length, _UNIT_BITS), MOST_COUNT - 1)) if math.isfinite(length) else 0

    def learn(self, delta: Vector, mean_count: float, layout: Layout, memory: Memory) -> Memory:  # noqa: ARG002 # as above
        """Return the ``typical`` norm; nothing after a first round in which no update moved."""
        if "typical" in memory:
            known = figure(memory, "typical", math.inf)
            return {"typical": as_figure(known * math.exp(-self.rate * (mean_count - 0.5)))}
        return {"typical": as_figure(math.ldexp(mean_count, -_UNIT_BITS))} if mean_count > 0.0 else {}

    def __str__(self) -> str:
        return f"norm(at most {self.factor:g} times the median)"
