"""Reducers that choose among whole updates by the distances between them: Krum, multi-Krum, Bulyan."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from fedmq.rules.robust.attackers import most_bad, outvoted, require_attackers, shown
from fedmq.rules.robust.columns import mean_around_median
from fedmq.rules.robust.distances import AGREE, least, squared_distances
from fedmq.rules.robust.rows import FromRows
from fedmq.rules.settings import require

if TYPE_CHECKING:
    from fedmq.rules.memory import Memory
    from fedmq.rules.needs import ErrorSize
    from fedmq.rules.robust.view import View

_ONE_VOICE: Final = (
    "it chooses whole updates by their distances to each other, and each has one voice in that"
)


@dataclass(frozen=True, slots=True)
class Krum(FromRows):
    """The one update with the nearest neighbours.

    Formula: `argmin_i sum_{j near i} |x_i - x_j|^2`, where `near i` are the `n - f - margin` other updates with the
    least distance to `i`, `f` is the number of attackers, and distances are L2 over the trainable numbers. Updates
    whose sums are equal, as those of the two nearest of three are, are averaged. Statistics are the chosen update's.

    Source: Blanchard et al. 2017, "Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent", section 4
    (`margin = 2`, as in Flower). byzfl counts one neighbour more, `margin = 1`.

    Cost: time `n^2 * size`, as much again where some updates are nearly equal; memory for one block of rows, and for a
    few numbers for each pair. 0.9 s of one core and 20 MB for 100 updates of 1 M numbers.

    Breakdown point: `f` bad updates of `n >= 2f + 3`; the round is refused where they are fewer. Nothing is refused,
    or promised, where the share of attackers in so few updates is none: 0.2 of four.

    Use it when devices hold data of one kind and some may send anything at all. The model then follows one device a
    round: on unevenly spread data it forgets the others, and multi-Krum or NNM before it serve better.

    Configuration: `kind = "krum"`, `attackers` (share of the updates, or from 1 on their number; default 0.2), `margin`
    (default 2).

    Example:
        >>> from fedmq.vectors import Layout, Variable
        >>> krum = Krum(attackers=1)
        >>> rows = krum.zero(Layout((Variable("w", (2,)),)))
        >>> for delta in [[1, 1], [1, 1.5], [1.5, 1], [0.5, 1], [900, -900]]:
        ...     krum.add(rows, np.array(delta, np.float32), weight=1.0)
        >>> krum.result(rows)
        array([1., 1.])
    """

    attackers: float = 0.2
    margin: int = 2

    def __post_init__(self) -> None:
        require_attackers("krum", self.attackers)
        _require_margin("krum", self.margin)

    @property
    def unweighted(self) -> str:
        """Krum is defined without weights."""
        return _ONE_VOICE

    def withstands(self, n: int) -> int:
        """Return how many of `n` may hold anything."""
        return min(most_bad(self.attackers, n), max(0, n - 1 - self.margin) // 2)

    def combine(self, view: View, memory: Memory) -> NDArray[np.float64]:  # noqa: ARG002 # the slot's signature
        """Return the chosen update; raise Refused where there are too few for the number of attackers."""
        bad = outvoted("krum", self.attackers, view.n, each=2, spare=1 + self.margin)
        return view.combined(least(_scores(squared_distances(view), bad + self.margin), keep=1))

    def __str__(self) -> str:
        return f"krum({shown(self.attackers)})"


@dataclass(frozen=True, slots=True)
class MultiKrum(FromRows):
    """The mean of the updates with the nearest neighbours.

    Formula: the plain mean of the `keep` updates with the least sums, where the sum of an update is Krum's. Updates
    whose sums are equal, at the edge, share the places that are left. Statistics are the mean of the same updates'.

    Source: Blanchard et al. 2017, section 4 and supplement (any `keep` between Krum's 1 and the mean's `n`); by default
    `n - f`, as in byzfl, which counts one neighbour more (`margin = 1`). Flower's MultiKrum weighs the chosen ones by
    examples, ours does not.

    Cost: Krum's, and one reading more; 1 s of one core and 20 MB for 100 updates of 1 M numbers.

    Breakdown point: `f` bad updates of `n >= 2f + 3`, as Krum; a `keep` of more than `n - f` lets bad ones in.

    Use it when some devices may send anything and the others hold similar data: it loses less of what they learned than
    Krum does. Not against attackers that stay as near to the others as these are to each other ("a little is enough").

    Configuration: `kind = "multi_krum"`, `attackers` (share of the updates, or from 1 on their number; default 0.2),
    `keep` (how many to average; default all but the attackers), `margin` (default 2).

    Example:
        >>> from fedmq.vectors import Layout, Variable
        >>> rule = MultiKrum(attackers=1)
        >>> rows = rule.zero(Layout((Variable("w", (2,)),)))
        >>> for delta in [[1, 1], [1, 2], [2, 1], [2, 2], [900, -900]]:
        ...     rule.add(rows, np.array(delta, np.float32), weight=1.0)
        >>> rule.result(rows)
        array([1.5, 1.5])
    """

    attackers: float = 0.2
    keep: int | None = None
    margin: int = 2

    @property
    def bears(self) -> ErrorSize:
        """Errors below the updates themselves: it takes a mean of those that it selects."""
        return "moderate"

    def __post_init__(self) -> None:
        require_attackers("multi_krum", self.attackers)
        _require_margin("multi_krum", self.margin)
        require(
            self.keep is None or self.keep >= 1,
            f"multi_krum has keep {self.keep}, wants 1 or more, or none for all but the attackers",
        )

    @property
    def unweighted(self) -> str:
        """Multi-Krum is defined without weights."""
        return _ONE_VOICE

    def withstands(self, n: int) -> int:
        """Return how many of `n` may hold anything."""
        return min(most_bad(self.attackers, n), max(0, n - 1 - self.margin) // 2)

    def combine(self, view: View, memory: Memory) -> NDArray[np.float64]:  # noqa: ARG002 # the slot's signature
        """Return the mean of those chosen; raise Refused where there are too few for the number of attackers."""
        bad = outvoted("multi_krum", self.attackers, view.n, each=2, spare=1 + self.margin)
        keep = view.n - bad if self.keep is None else min(self.keep, view.n)
        return view.combined(least(_scores(squared_distances(view), bad + self.margin), keep))

    def __str__(self) -> str:
        keep = "" if self.keep is None else f", keep {self.keep}"
        return f"multi-krum({shown(self.attackers)}{keep})"


@dataclass(frozen=True, slots=True)
class Bulyan(FromRows):
    """Krum again and again for a choice of updates, then each number's mean near the median of the chosen.

    Formula: take Krum's choice out of the updates `n - 2f` times, each time from those that are left (with at least
    one neighbour); then, for each number of the model, the mean of the `n - 4f` of the chosen that are nearest to their
    median. Statistics pass through both as the other numbers do.

    Source: El Mhamdi, Guerraoui and Rouault 2018, "The Hidden Vulnerability of Distributed Learning in Byzantium",
    section 4. Flower's strategy of this name scores once and takes the best `n - 2f`; its earlier `aggregate_bulyan`
    chooses again each time, as the paper and we do.

    Cost: Krum's, that of a mean around the median, and `n^2` for each update that is chosen: 1.8 s of one core and 20
    MB for 100 updates of 1 M numbers; for 1000 updates the choice alone takes 4 s.

    Breakdown point: `f` bad updates of `n >= 4f + 3`; the round is refused where they are fewer. Nothing is refused, or
    promised, where the share of attackers in so few updates is none.

    Use it when attackers may hide one large number in an update that is near the others in all the rest, which
    distances hardly see, and there are updates enough: it throws most of them away.

    Configuration: `kind = "bulyan"`, `attackers` (share of the updates, or from 1 on their number; default 0.1).

    Example:
        >>> from fedmq.vectors import Layout, Variable
        >>> bulyan = Bulyan(attackers=1)
        >>> rows = bulyan.zero(Layout((Variable("w", (2,)),)))
        >>> for delta in [[1, 1], [1, 2], [2, 1], [2, 2], [1.1, 1.5], [1.6, 1.2], [2, 900]]:
        ...     bulyan.add(rows, np.array(delta, np.float32), weight=1.0)
        >>> bulyan.result(rows).round(1)
        array([1.9, 1.4])
    """

    attackers: float = 0.1

    @property
    def bears(self) -> ErrorSize:
        """Errors below the updates themselves: it takes a mean of those that it selects."""
        return "moderate"

    def __post_init__(self) -> None:
        require_attackers("bulyan", self.attackers)

    @property
    def unweighted(self) -> str:
        """Bulyan is defined without weights."""
        return _ONE_VOICE

    def withstands(self, n: int) -> int:
        """Return how many of `n` may hold anything."""
        return min(most_bad(self.attackers, n), max(0, n - 3) // 4)

    def combine(self, view: View, memory: Memory) -> NDArray[np.float64]:  # noqa: ARG002 # the slot's signature
        """Return the mean near the median of those chosen; raise Refused where there are too few updates."""
        bad = outvoted("bulyan", self.attackers, view.n, each=4, spare=3)
        chosen = _one_by_one(squared_distances(view), bad) if bad else np.arange(view.n)
        return _rows_of(view, chosen).by_column(partial(mean_around_median, kept=view.n - 4 * bad))

    def __str__(self) -> str:
        return f"bulyan({shown(self.attackers)})"


def _require_margin(kind: str, margin: int) -> None:
    require(margin in {1, 2}, f"{kind} has margin {margin}, wants 2 (the paper's) or 1 (one neighbour more)")


def _scores(squares: NDArray[np.float64], apart: int) -> NDArray[np.float64]:
    """Return each row's sum of squared distances to the nearest of the others, all rows but `apart` in number.

    None are left of one or two rows: their sums are equal then.
    """
    return np.asarray(np.sort(squares, axis=1)[:, 1 : 1 + len(squares) - apart].sum(axis=1))


def _one_by_one(squares: NDArray[np.float64], bad: int) -> NDArray[np.intp]:
    """Return, in the view's order, the ``n - 2 * bad`` rows that Krum takes one after another from those left.

    Every row's neighbours are sorted once; a row that has been taken is passed over in them, not taken out. Where sums
    agree, the row nearer to all others goes first.
    """
    count = len(squares)
    own_first = squares - np.eye(count)
    order = np.argsort(own_first, axis=1, kind="stable")
    ranked = np.take_along_axis(squares, order, axis=1)
    far = squares.sum(axis=1)
    left = np.ones(count, np.bool_)
    for taken in range(count - 2 * bad):
        neighbours = max(1, count - taken - bad - 2)
        here = np.take(left, order)
        here[:, 0] = False
        near = here & (here.cumsum(axis=1, dtype=np.int16) <= neighbours)
        scores = np.where(left, np.einsum("ij,ij->i", ranked, near), np.inf)
        level = scores <= scores.min() * (1.0 + AGREE)
        left[np.argmin(np.where(level, far, np.inf))] = False
    return np.flatnonzero(~left)


def _rows_of(view: View, chosen: NDArray[np.intp]) -> View:
    """Return the view that has the chosen rows only, and reads no others where it need not."""
    weights = view.weights[chosen]
    if view.mixing is None:
        return replace(view, weights=weights, sources=[view.sources[index] for index in chosen.tolist()])
    return replace(view, weights=weights, mixing=view.mixing[chosen])
