"""FedProx: devices are held back by a spring to the model that the round began with."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from fedmq.algorithms.algorithm import Algorithm, Setting
from fedmq.rules.settings import require

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class FedProx(Algorithm):
    """Devices are held back by a spring to the model that the round began with.

    Formula: device k minimises `f_k(w) + mu / 2 * ||w - w_t||^2`; the aggregator does nothing of its own. Devices are
    told of it by the training setting ``proximal``, which every trainer knows.

    Source: Li et al. 2020, "Federated Optimization in Heterogeneous Networks", algorithm 2,
    https://arxiv.org/abs/1812.06127.

    Cost: one vector operation for each local step; no bytes, no memory.

    Use it when devices take many local steps on data that differ, or some take many more steps than others: it keeps
    each one near enough for an average to make sense. It slows learning down where they would agree anyhow. Try mu of
    0.001, 0.01, 0.1 and 1.

    Configuration: `kind = "fedprox"`, `mu` (default 0.01).

    Example:
        >>> FedProx(mu=0.1).telling
        {'proximal': 0.1}
    """

    kind: ClassVar[str] = "fedprox"
    mu: float = 0.01

    def __post_init__(self) -> None:
        require(0.0 < self.mu < math.inf, f"fedprox has mu {self.mu}, wants a positive finite number")

    @property
    def telling(self) -> Mapping[str, Setting]:
        """The spring's strength."""
        return {"proximal": self.mu}

    def __str__(self) -> str:
        return f"fedprox({self.mu:g})"
