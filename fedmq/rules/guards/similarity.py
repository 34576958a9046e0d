"""The guard against updates that go another way than the fleet went."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from fedmq.errors import MisuseError, Refused
from fedmq.rules.guards.interface import Guard
from fedmq.rules.measure import dot, norm
from fedmq.rules.memory import EMPTY, Memory
from fedmq.rules.needs import MEASURES_DIRECTION, Needs
from fedmq.rules.scaling import scaled
from fedmq.rules.settings import require

if TYPE_CHECKING:
    from fedmq.rules.claim import Claim
    from fedmq.vectors import Layout, Vector

Response: TypeAlias = Literal["refuse", "scale"]


@dataclass(frozen=True, slots=True)
class Similarity(Guard):
    """Refuse an update that points away from where the fleet went last, or scale it by how well it agrees.

    Formula: `cosine = <delta, reference> / (|delta| |reference|)` over the trainable numbers; refuse where it is below
    `threshold`. With `response = "scale"` an update that passes goes in as `cosine * delta`, and one that is orthogonal
    or worse is refused whatever the threshold. The `reference` is what the rounds before were reduced to:
    `reference = beta * reference + delta of the round`. While there is none, or where a norm is zero, all pass.

    Source: Cao et al. 2021, "FLTrust: Byzantine-robust Federated Learning via Trust Bootstrapping", whose trust score
    is `max(0, cosine)` to an update that the aggregator trains itself on clean data. No aggregator here has data, so
    the fleet's own last direction stands in for it, and norms are left as they are: taken from the reference, as
    theirs are, each round would be shorter than the one before.

    Cost: 8 ms for 10 MB, 12 where it scales; memory of one vector.

    Use it when some devices may push the model backwards (flipped signs or labels) and most do not. The reference is no
    better than the rounds it came from: have a norm guard before it, and trust the first round. Late in training honest
    updates point every way, and after a step too far they all point back; if too few are left for a quorum, lower the
    threshold towards -1.

    Configuration: `kind = "similarity"`, `threshold` (a cosine, default 0), `response` (refuse or scale), `beta`
    (default 0: the last round alone).

    Example:
        >>> import numpy as np
        >>> from fedmq.rules import Claim
        >>> from fedmq.vectors import Layout, Variable
        >>> layout = Layout((Variable("w", (2,)),))
        >>> last = {"reference": np.array([1.0, 0.0], np.float32)}
        >>> Similarity(response="scale").check(np.array([3.0, 4.0], np.float32), Claim(1), layout, last)
        array([1.8, 2.4], dtype=float32)
    """

    threshold: float = 0.0
    response: Response = "refuse"
    beta: float = 0.0

    def __post_init__(self) -> None:
        require(
            -1.0 <= self.threshold < 1.0,
            f"similarity has threshold {self.threshold}, wants a cosine of at least -1 and below 1",
        )
        require(
            self.response in {"refuse", "scale"},
            f"similarity has response {self.response!r}, wants refuse or scale",
        )
        require(0.0 <= self.beta < 1.0, f"similarity has beta {self.beta}, wants at least 0 and less than 1")

    @property
    def needs(self) -> Needs:
        """A small error: see the reason."""
        return Needs("small", str(self), MEASURES_DIRECTION)

    def check(self, delta: Vector, claim: Claim, layout: Layout, memory: Memory = EMPTY) -> Vector:  # noqa: ARG002 # the slot's signature
        """Return `delta`, or a scaled copy; raise Refused where it disagrees."""
        cosine = self._cosine(delta, layout, memory)
        if math.isnan(cosine):
            return delta
        if cosine < self.threshold or (self.response == "scale" and cosine <= 0.0):
            raise Refused(
                f"update has cosine {cosine:.3g} to where the model went last, wants {self._wanted}: "
                "are its labels or signs turned round?"
            )
        return scaled(delta, cosine, layout) if self.response == "scale" else delta

    def learn(self, delta: Vector, mean_count: float, layout: Layout, memory: Memory) -> Memory:  # noqa: ARG002 # the slot's signature
        """Return the next round's ``reference``."""
        known = _reference(memory, layout)
        push = delta if known is None or self.beta == 0.0 else self.beta * known.astype(np.float64) + delta
        return {"reference": push.astype(np.float32)}

    @property
    def _wanted(self) -> str:
        if self.response == "scale" and self.threshold <= 0.0:
            return "a positive one"
        return f"at least {self.threshold:g}"

    def _cosine(self, delta: Vector, layout: Layout, memory: Memory) -> float:
        """Return the cosine, NaN where there is none."""
        reference = _reference(memory, layout)
        if reference is None:
            return math.nan
        lengths = norm(delta, layout) * norm(reference, layout)
        return min(1.0, dot(delta, reference, layout) / lengths) if lengths > 0.0 else math.nan

    def __str__(self) -> str:
        return f"similarity({self._wanted}{', scaled' if self.response == 'scale' else ''})"


def _reference(memory: Memory, layout: Layout) -> Vector | None:
    known = memory.get("reference")
    if known is not None and known.shape != (layout.size,):
        raise MisuseError(
            f"memory 'reference' has shape {known.shape}, the model ({layout.size},): is it from another model?"
        )
    return None if known is None else known.astype(np.float32, copy=False)
