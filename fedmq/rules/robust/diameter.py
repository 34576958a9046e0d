"""A reducer that tries every choice of updates: minimum-diameter averaging."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from fedmq.errors import Refused
from fedmq.rules.robust.attackers import most_bad, outvoted, require_attackers, shown
from fedmq.rules.robust.distances import least, squared_distances
from fedmq.rules.robust.rows import FromRows

if TYPE_CHECKING:
    from fedmq.rules.memory import Memory
    from fedmq.rules.robust.view import View

MOST_CHOICES: Final = 20_000
"""So many ways to leave updates out are tried at most: as many as there are for 3 of 50, 5 of 20, or 2 of 200."""


@dataclass(frozen=True, slots=True)
class MinimumDiameter(FromRows):
    """The mean of those updates that lie closest together (minimum-diameter averaging, MDA).

    Formula: of all ways to leave `f` of `n` updates out, where `f` is the number of attackers, take the one whose two
    updates furthest from each other are the nearest, and then the plain mean. Where several have the same diameter,
    that with the least sum of squared distances is taken, and the mean of those that are equal in this too. Distances
    are L2 over the trainable numbers; statistics are the mean of the same updates'.

    Source: El Mhamdi et al. 2020, "Genuinely Distributed Byzantine Machine Learning", as byzfl's MDA has it, which
    takes the first of several of the same diameter.

    Cost: Krum's, and time `n^2` for each of the `n! / (f! (n - f)!)` ways: at most a second or two. More than 20,000
    are refused: 3 of 50 and 5 of 20 updates can be left out, 3 of 51 and 6 of 20 cannot. Put bucketing before it for
    more.

    Breakdown point: `f` bad updates of `n >= 2f + 1`.

    Use it in small federations, of some twenty devices, of which a few may send anything: what it keeps is never spread
    wider than the honest updates are.

    Configuration: `kind = "minimum_diameter"`, `attackers` (share of the updates, or from 1 on their number; default
    0.2).

    Example:
        >>> from fedmq.vectors import Layout, Variable
        >>> rule = MinimumDiameter(attackers=1)
        >>> rows = rule.zero(Layout((Variable("w", (2,)),)))
        >>> for delta in [[1, 1], [1, 2], [900, -900]]:
        ...     rule.add(rows, np.array(delta, np.float32), weight=1.0)
        >>> rule.result(rows)
        array([1. , 1.5])
    """

    attackers: float = 0.2

    def __post_init__(self) -> None:
        require_attackers("minimum_diameter", self.attackers)

    @property
    def unweighted(self) -> str:
        """The choice is defined without weights."""
        return "it chooses whole updates by their distances to each other, and each has one voice in that"

    def withstands(self, n: int) -> int:
        """Return how many of `n` may hold anything; none where that would be too many ways to try."""
        bad = min(most_bad(self.attackers, n), (n - 1) // 2)
        return bad if math.comb(n, bad) <= MOST_CHOICES else 0

    def combine(self, view: View, memory: Memory) -> NDArray[np.float64]:  # noqa: ARG002 # the slot's signature
        """Return the mean of those chosen; raise Refused where updates are too few, or ways too many."""
        bad = outvoted("minimum_diameter", self.attackers, view.n, each=2, spare=1)
        ways = math.comb(view.n, bad)
        if ways > MOST_CHOICES:
            raise Refused(
                f"there are {ways} ways to leave {bad} of {view.n} updates out, minimum_diameter tries {MOST_CHOICES}: "
                "put bucketing before it, or take multi_krum"
            )
        return view.combined(_closest_together(squared_distances(view), bad))

    def __str__(self) -> str:
        return f"minimum diameter({shown(self.attackers)})"


def _closest_together(squares: NDArray[np.float64], bad: int) -> NDArray[np.float64]:
    """Return each row's share in the mean."""
    everyone = np.ones(len(squares), np.bool_)
    figures, kept = [], []
    for left_out in combinations(range(len(squares)), bad):
        inside = everyone.copy()
        inside[list(left_out)] = False
        among = squares[np.ix_(inside, inside)]
        figures.append((among.max(), among.sum()))
        kept.append(inside)
    diameters, sums = np.array(figures).T
    tightest = least(diameters, 1) > 0.0
    chosen = least(np.where(tightest, sums, np.inf), 1)
    return np.asarray(chosen @ np.array(kept) / (len(squares) - bad))
