"""Weighers by number: of devices, or of their examples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedmq.errors import Refused
from fedmq.rules.settings import require
from fedmq.rules.weighers.interface import Weigher

if TYPE_CHECKING:
    from fedmq.rules.claim import Claim


@dataclass(frozen=True, slots=True)
class Uniform(Weigher):
    """Every update counts the same.

    Formula: `w = 1`, so the result is the simple average of the deltas.

    Source: the plain mean; McMahan et al. 2017 with equal `n_k`.

    Cost: none that can be measured.

    Use it when every device should have one voice: few devices with much data would otherwise drown the others, or
    the claimed numbers of examples cannot be trusted.

    Configuration: `kind = "uniform"`.

    Example:
        >>> from fedmq.rules import Claim
        >>> Uniform().weigh(Claim(examples=250))
        (1.0,)
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

    Example:
        >>> from fedmq.rules import Claim
        >>> ByExamples(cap=1000).weigh(Claim(examples=250))
        (250.0,)
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
