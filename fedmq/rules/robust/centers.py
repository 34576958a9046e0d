"""Reducers that look for the centre of whole updates: geometric median, centred clipping, norm-filtered mean."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from fedmq.errors import MisuseError
from fedmq.rules.measure import statistic_spans
from fedmq.rules.reduce import Traits
from fedmq.rules.robust.attackers import most_bad, outvoted, require_attackers, shown
from fedmq.rules.robust.columns import median
from fedmq.rules.robust.distances import distances_to, least, lengths, squared_distances
from fedmq.rules.robust.rows import FromRows
from fedmq.rules.settings import require

if TYPE_CHECKING:
    from fedmq.rules.memory import Memory
    from fedmq.rules.needs import ErrorSize
    from fedmq.rules.robust.view import View

_SETTLED: Final = 1e-13
"""Weiszfeld's steps end when no share changes by more than this."""


@dataclass(frozen=True, slots=True)
class GeometricMedian(FromRows):
    """The point with the least sum of distances to all updates (also called RFA, the robust federated average).

    Formula: `argmin_z sum_i w_i * |x_i - z|`, found by smoothed Weiszfeld steps `z <- sum_i b_i * x_i / sum_i b_i` with
    `b_i = w_i / max(v, |x_i - z|)`, from the weighted mean on, until they settle. Distances are L2 over the trainable
    numbers. `v` is `smoothing` times the median of the distances from the update in the middle (the one with the least
    sum of distances to the others). Statistics are averaged with the same `b_i`.

    Source: Pillutla, Kakade and Harchaoui 2022, "Robust Aggregation for Federated Learning", algorithm 2. There the
    steps are few, since each is a message to all devices, and `v` is absolute, 10^-6; here they are taken on the
    distances alone and cost next to nothing, and a relative `v` serves models of any scale.

    Cost: Krum's, and one reading more, whatever the number of steps: 1.1 s of one core and 20 MB for 100 updates of 1 M
    numbers.

    Breakdown point: bad updates of less than half of the weight.

    Use it when a few devices send nonsense, or odd data, and no number of attackers is known: there is nothing to set,
    weights keep their meaning, and where all is well it stays near the mean. Attackers that agree with each other pull
    it further than they do Krum.

    Configuration: `kind = "geometric_median"`, `smoothing` (share of the spread, default 10^-6), `steps` (at most,
    default 1000).

    Example:
        >>> from fedmq.vectors import Layout, Variable
        >>> rule = GeometricMedian()
        >>> rows = rule.zero(Layout((Variable("w", (2,)),)))
        >>> for delta in [[1, 2], [1, 2], [1, 2], [-7, 3], [900, 900]]:
        ...     rule.add(rows, np.array(delta, np.float32), weight=1.0)
        >>> rule.result(rows).round(3)
        array([1., 2.])
    """

    smoothing: float = 1e-6
    steps: int = 1000

    @property
    def bears(self) -> ErrorSize:
        """Errors below the updates themselves."""
        return "moderate"

    def __post_init__(self) -> None:
        require(
            0.0 < self.smoothing < 1.0,
            f"geometric_median has smoothing {self.smoothing}, wants a share between 0 and 1",
        )
        require(self.steps >= 1, f"geometric_median has steps {self.steps}, wants at least 1")

    def withstands(self, n: int) -> int:
        """Return how many of `n` updates of equal weight may hold anything."""
        return (n - 1) // 2

    def combine(self, view: View, memory: Memory) -> NDArray[np.float64]:  # noqa: ARG002 # the slot's signature
        """Return the weighted geometric median."""
        weights = view.weights / view.weights.sum()
        return view.combined(weiszfeld(squared_distances(view), weights, self.smoothing, self.steps))

    def __str__(self) -> str:
        return "geometric median"


def weiszfeld(
    squares: NDArray[np.float64], weights: NDArray[np.float64], smoothing: float, steps: int
) -> NDArray[np.float64]:
    """Return each row's share in the weighted geometric median, from the rows' squared distances; they add up to one.

    A step needs the distances of all rows to a mix of them. With inner products taken from the row in the middle, which
    no row far away can move, these are ``g_jj - 2 (G c)_j + c G c``: nothing but the (n, n) matrix is read again.
    """
    spread = np.sqrt(squares)
    middle = int(np.argmin(spread @ weights))
    floor = max(smoothing * float(np.median(spread[middle])), math.ulp(0.0) ** 0.5)
    from_middle = squares[middle]
    products = (from_middle[:, None] + from_middle[None, :] - squares) / 2.0
    shares = weights
    for _ in range(steps):
        pulled = products @ shares
        away = from_middle - 2.0 * pulled + shares @ pulled
        pulls = weights / np.maximum(np.sqrt(np.maximum(away, 0.0)), floor)
        before, shares = shares, pulls / pulls.sum()
        if np.abs(shares - before).max() <= _SETTLED:
            break
    return shares


@dataclass(frozen=True, slots=True)
class CentredClipping(FromRows):
    """The last round's result, moved by what each update differs from it, no further than a radius.

    Formula: `v <- v + sum_i w_i * (x_i - v) * min(1, radius / |x_i - v|) / sum_i w_i`, as many times as `steps` says;
    `v` begins as the last round's result, and as zero in the first. Norms are L2 over the trainable numbers. Statistics
    are the coordinate median's: a clipped variance belongs to no data.

    Source: Karimireddy, He and Jaggi 2021, "Learning from History for Byzantine Robust Optimization", algorithm 2 and
    section 4; weights as in the mean that it replaces.

    Cost: time `2 * n * size` for each step, memory for one block of rows and three models in float64; the last result
    is kept from round to round, 4 bytes for each number. 0.8 s of one core and 40 MB for 100 updates of 1 M numbers.

    Breakdown point: bad updates of less than half of the weight, in the paper's sense: the error stays in proportion to
    their share and the radius. It takes several rounds to be robust, for it learns where the updates are.

    Use it when attackers send a little wrong in every round, which methods without memory cannot tell from the spread
    of honest data; devices' updates should be smooth (momentum on the device, or several local epochs). Set `radius` to
    about the distance of honest updates from each other: a round's `norm_mean` is a start. One that is too small only
    slows learning; one that is too large makes it a mean.

    Configuration: `kind = "centred_clipping"`, `radius` (model units, default 10), `steps` (default 1).

    Example:
        >>> from fedmq.vectors import Layout, Variable
        >>> rule = CentredClipping(radius=2.0)
        >>> rows = rule.zero(Layout((Variable("w", (2,)),)))
        >>> for delta in [[1, 1], [1, 0], [0, 1], [0, 2], [0, -900]]:
        ...     rule.add(rows, np.array(delta, np.float32), weight=1.0)
        >>> rule.result(rows)
        array([0.4, 0.4])
    """

    radius: float = 10.0
    steps: int = 1

    def __post_init__(self) -> None:
        require(
            0.0 < self.radius < math.inf,
            f"centred_clipping has radius {self.radius}, wants a positive finite number",
        )
        require(self.steps >= 1, f"centred_clipping has steps {self.steps}, wants at least 1")

    @property
    def traits(self) -> Traits:
        """Only the sign: where it starts, and how far it goes, do not hang on the updates."""
        return Traits(between=False, shifts=False, scales=False)

    def combine(self, view: View, memory: Memory) -> NDArray[np.float64]:
        """Return the moved centre; raise MisuseError where the one remembered is another model's."""
        centre = _remembered(memory, view.size)
        weights = view.weights / view.weights.sum()
        for _ in range(self.steps):
            away = distances_to(view, centre)
            shares = weights * (self.radius / np.maximum(away, self.radius))
            centre = view.combined(shares) + (1.0 - shares.sum()) * centre
        return _with_median_statistics(view, centre)

    def learn(self, result: NDArray[np.floating[Any]]) -> Memory:
        """Remember the result as the next round's centre."""
        return {"centre": result.astype(np.float32)}

    def __str__(self) -> str:
        return f"centred clipping({self.radius:g})"


def _remembered(memory: Memory, size: int) -> NDArray[np.float64]:
    if "centre" not in memory:
        return np.zeros(size)
    centre = memory["centre"].astype(np.float64)
    if centre.shape != (size,):
        raise MisuseError(
            f"memory has a centre of shape {centre.shape}, the model wants ({size},): was it another model's?"
        )
    return centre


def _with_median_statistics(view: View, vector: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return `vector` with the coordinate median, each update one voice, for its statistics."""
    spans = statistic_spans(view.layout)
    medians = view.by_column(median, spans) if spans else 0.0
    return np.where(view.layout.trainable, vector, medians)


@dataclass(frozen=True, slots=True)
class NormFiltered(FromRows):
    """The mean of all updates but the longest (comparative gradient elimination).

    Formula: the plain mean of the `n - f` updates with the least L2 norm over the trainable numbers, where `f` is the
    number of attackers. Updates of equal norm, at the edge, share the places that are left. Statistics are the mean of
    the same updates'.

    Source: Gupta, Liu and Vaidya 2020, "Byzantine Fault-Tolerant Distributed Machine Learning Using Stochastic Gradient
    Descent (SGD) and Norm-Based Comparative Gradient Elimination (CGE)", equation 5, divided by `n - f`.

    Cost: time `2 * n * size`, memory for one block of rows; 0.7 s of one core and 20 MB for 100 updates of 1 M numbers.

    Breakdown point: `f` bad updates of `n >= 2f + 1`, against those that are long; short ones in a wrong direction
    pass, as many as there are.

    Use it when devices fail rather than lie (diverged training, broken sensors): no other robust reducer but those by
    coordinate is as cheap, and it knows no limit in model units, as a norm clip does. It also loses the devices with
    the most to say: watch unevenly spread data.

    Configuration: `kind = "norm_filtered"`, `attackers` (share of the updates, or from 1 on their number; default 0.2).

    Example:
        >>> from fedmq.vectors import Layout, Variable
        >>> rule = NormFiltered(attackers=1)
        >>> rows = rule.zero(Layout((Variable("w", (2,)),)))
        >>> for delta in [[1, 1], [1, 2], [900, -900]]:
        ...     rule.add(rows, np.array(delta, np.float32), weight=1.0)
        >>> rule.result(rows)
        array([1. , 1.5])
    """

    attackers: float = 0.2

    def __post_init__(self) -> None:
        require_attackers("norm_filtered", self.attackers)

    @property
    def unweighted(self) -> str:
        """The filter is defined without weights."""
        return "it drops a number of updates, whatever they weigh, and bounds what each of the others can do alone"

    @property
    def traits(self) -> Traits:
        """All but shifts, which change lengths."""
        return Traits(shifts=False)

    def withstands(self, n: int) -> int:
        """Return how many of `n` may hold anything: what is not the longest is no longer than the others."""
        return min(most_bad(self.attackers, n), (n - 1) // 2)

    def combine(self, view: View, memory: Memory) -> NDArray[np.float64]:  # noqa: ARG002 # the slot's signature
        """Return the mean of the shortest; raise Refused where there are too few for the number of attackers."""
        bad = outvoted("norm_filtered", self.attackers, view.n, each=2, spare=1)
        return view.combined(least(lengths(view), view.n - bad))

    def __str__(self) -> str:
        return f"norm-filtered mean({shown(self.attackers)})"
