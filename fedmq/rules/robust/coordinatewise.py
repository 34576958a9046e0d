"""Robust reducers that look at one number of the model at a time: medians, trimmed means and votes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np

from fedmq.rules.measure import statistic_spans, trainable_spans
from fedmq.rules.reduce import Traits
from fedmq.rules.robust import columns
from fedmq.rules.robust.attackers import most_bad, outvoted, require_attackers, shown
from fedmq.rules.robust.columns import Middle
from fedmq.rules.robust.rows import FromRows
from fedmq.rules.settings import require

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fedmq.rules.memory import Memory
    from fedmq.rules.needs import ErrorSize
    from fedmq.rules.robust.view import View

_HEADS: Final = (
    "it counts devices by heads, so that a claim of many examples gives none of them a second vote"
)


@dataclass(frozen=True, slots=True)
class _Columnwise(FromRows):
    """A reducer whose result for one number hangs on that number's column alone, whatever its order."""

    @property
    def bears(self) -> ErrorSize:
        """Errors that are no larger at some coordinates than at others."""
        return "moderate"

    @property
    def in_any_order(self) -> bool:
        """Yes."""
        return True

    @property
    def unweighted(self) -> str:
        """Heads are counted."""
        return _HEADS


@dataclass(frozen=True, slots=True)
class CoordinateMedian(_Columnwise):
    """The median of each number on its own, weighted where weights are unequal.

    Formula: with a column's numbers in order and `W` the sum of weights, the lower median is the first number at which
    the weights so far reach `W / 2`, the upper one the first at which they exceed it, `mid` the average of both. With
    equal weights that is the middle one of an odd number of updates, the average of the middle two of an even one.

    Source: Yin et al. 2018, "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates", definition 1.
    `mid` with equal weights is what byzfl's Median, Flower's FedMedian and `np.median` give.

    Cost: 4 bytes on disk for each number of each update, and some 20 MB of memory; 0.5 s for 100 updates of 1 M
    numbers on two cores, five times that with unequal weights.

    Breakdown point: one half. While less than half of the weight lies, every number stays within the range of the
    honest ones.

    Use it when up to half of the devices may lie, and their honest data are alike. Where data differ much between
    devices, the median of each number is no device's model and can be far from the mean: put nearest-neighbour mixing
    before it.

    Configuration: `kind = "median"`, `middle` (mid, lower or upper; default mid).

    Example:
        >>> import numpy as np
        >>> from fedmq.vectors import Layout, Variable
        >>> median = CoordinateMedian()
        >>> rows = median.zero(Layout((Variable("w", (2,)),)))
        >>> for numbers in ([1, 9], [2, 5], [900, -7]):
        ...     median.add(rows, np.array(numbers, np.float32), weight=1.0)
        >>> median.result(rows)
        array([2., 5.])
    """

    middle: Middle = "mid"

    def __post_init__(self) -> None:
        require(
            self.middle in {"mid", "lower", "upper"},
            f"median has middle {self.middle!r}, wants mid, lower or upper",
        )

    @property
    def unweighted(self) -> str:
        """Weights have a meaning."""
        return ""

    @property
    def traits(self) -> Traits:
        """All, but that the lower median of negated numbers is minus the upper one."""
        return Traits(mirrors=self.middle == "mid")

    def withstands(self, n: int) -> int:
        """Return how many of `n` updates of equal weight are outvoted by the others, whatever they say."""
        return (n - 1) // 2

    def combine(self, view: View, memory: Memory) -> NDArray[np.float64]:  # noqa: ARG002 # it remembers nothing
        """Return the median of every column."""
        if np.ptp(view.weights) == 0.0:
            return view.by_column(partial(columns.median, middle=self.middle))
        return view.by_column(partial(columns.weighted_median, weights=view.weights, middle=self.middle))

    def __str__(self) -> str:
        return "median" if self.middle == "mid" else f"{self.middle} median"


@dataclass(frozen=True, slots=True)
class TrimmedMean(_Columnwise):
    """The mean of each number on its own, without the greatest and the least.

    Formula: with a column's `n` numbers in order, the mean of those from `f + 1` to `n - f`, where `f` is `attackers`,
    or that share of `n`, rounded down.

    Source: Yin et al. 2018, "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates", definition 2.
    The same as byzfl's TrMean, and as Flower's FedTrimmedAvg and SciPy's `trim_mean` but for one: a share of 0.29 cuts
    29 of 100, where these cut 28, the whole part of 28.999999999999996.

    Cost: 4 bytes on disk for each number of each update, and some 20 MB of memory; 0.6 s for 100 updates of 1 M
    numbers on two cores.

    Breakdown point: `f` of `n`. With that many liars, every number stays within the range of the honest ones.

    Use it when the number of liars is known roughly: it is closer to the mean than the median is, so it learns more
    from honest devices with different data. A round of fewer than `2 f + 1` updates is refused.

    Configuration: `kind = "trimmed_mean"`, `attackers` (a share of the updates below 0.5, or a whole number of them;
    cut off at either end; default 0.2).

    Example:
        >>> import numpy as np
        >>> from fedmq.vectors import Layout, Variable
        >>> trimmed = TrimmedMean(attackers=1)
        >>> rows = trimmed.zero(Layout((Variable("w", (2,)),)))
        >>> for numbers in ([1, 9], [2, 5], [4, 7], [900, -7]):
        ...     trimmed.add(rows, np.array(numbers, np.float32), weight=1.0)
        >>> trimmed.result(rows)
        array([3., 6.])
    """

    attackers: float = 0.2

    def __post_init__(self) -> None:
        require_attackers("trimmed_mean", self.attackers)

    def withstands(self, n: int) -> int:
        """Return how many of `n` are cut off at either end."""
        return most_bad(self.attackers, n)

    def combine(self, view: View, memory: Memory) -> NDArray[np.float64]:  # noqa: ARG002 # as above
        """Return the mean of what is left of every column; raise Refused where that would be nothing."""
        cut = outvoted("trimmed_mean", self.attackers, view.n, each=2, spare=1)
        return view.by_column(partial(columns.trimmed_mean, cut=cut))

    def __str__(self) -> str:
        return f"trimmed mean({shown(self.attackers)})"


@dataclass(frozen=True, slots=True)
class MeanAroundMedian(_Columnwise):
    """The mean of each number's `n - f` values nearest to their median.

    Formula: with `m` the median of a column's `n` numbers, the mean of the `n - f` with least `|x - m|`, where `f` is
    `attackers`, or that share of `n`, rounded down. Of two numbers as far from the median on either side, where there
    is room for one, both count half.

    Source: Xie et al. 2018, "Generalized Byzantine-tolerant SGD", section 4 (mean around median). byzfl's Meamed takes
    any one of two numbers that are equally far; without such ties it is the same.

    Cost: 4 bytes on disk for each number of each update, and some 40 MB of memory; 0.7 s for 100 updates of 1 M
    numbers on two cores.

    Breakdown point: `f` of `n`. With that many liars, no number leaves the honest ones' range by more than its width.

    Use it in place of the trimmed mean where liars all pull to one side: it then cuts them off, and no honest device
    at the other end. A round of fewer than `2 f + 1` updates is refused.

    Configuration: `kind = "mean_around_median"`, `attackers` (a share of the updates below 0.5, or a whole number of
    them; default 0.2).

    Example:
        >>> import numpy as np
        >>> from fedmq.vectors import Layout, Variable
        >>> around = MeanAroundMedian(attackers=1)
        >>> rows = around.zero(Layout((Variable("w", (2,)),)))
        >>> for numbers in ([1, 9], [2, 5], [3, 7], [900, -7]):
        ...     around.add(rows, np.array(numbers, np.float32), weight=1.0)
        >>> around.result(rows)
        array([2., 7.])
    """

    attackers: float = 0.2

    def __post_init__(self) -> None:
        require_attackers("mean_around_median", self.attackers)

    def withstands(self, n: int) -> int:
        """Return how many of `n` are left out."""
        return most_bad(self.attackers, n)

    def combine(self, view: View, memory: Memory) -> NDArray[np.float64]:  # noqa: ARG002 # as above
        """Return the mean of the nearest of every column; raise Refused where the median itself may be bad."""
        out = outvoted("mean_around_median", self.attackers, view.n, each=2, spare=1)
        return view.by_column(partial(columns.mean_around_median, kept=view.n - out))

    def __str__(self) -> str:
        return f"mean around median({shown(self.attackers)})"


@dataclass(frozen=True, slots=True)
class SignMajority(_Columnwise):
    """A vote on each number: up or down, by a fixed step.

    Formula: `step * sign(sum_i sign(delta_i))` over the trainable numbers; a zero is no vote, a tie moves nothing.
    Statistics (batch norm) have no direction, and take the coordinate median.

    Source: Bernstein et al. 2019, "signSGD with Majority Vote is Communication Efficient and Fault Tolerant",
    algorithm 1, with the sign of the update in place of the negative gradient's.

    Cost: 4 bytes on disk for each number of each update, and some 40 MB of memory; 0.3 s for 100 updates of 1 M
    numbers on two cores.

    Breakdown point: one half of those that vote. Beyond it the liars choose the way, but never more than `step` of it.

    Use it when lies may have any size, or with a codec that sends signs. It forgets how large updates are, so training
    takes many rounds, and wants a `step` that shrinks; begin with about the mean magnitude of the delta's numbers.

    Configuration: `kind = "sign_majority"`, `step` (model units, default 0.001).

    Example:
        >>> import numpy as np
        >>> from fedmq.vectors import Layout, Variable
        >>> vote = SignMajority(step=0.5)
        >>> rows = vote.zero(Layout((Variable("w", (2,)),)))
        >>> for numbers in ([1, -9], [2, 5], [900, -7]):
        ...     vote.add(rows, np.array(numbers, np.float32), weight=1.0)
        >>> vote.result(rows)
        array([ 0.5, -0.5])
    """

    step: float = 0.001

    def __post_init__(self) -> None:
        require(
            0.0 < self.step < np.inf, f"sign_majority has step {self.step}, wants a positive finite number"
        )

    @property
    def traits(self) -> Traits:
        """Signs alone are kept, so neither where numbers lie nor how large they are."""
        return Traits(between=False, shifts=False, scales=False)

    def withstands(self, n: int) -> int:
        """Return how many of `n` voters the others outvote."""
        return (n - 1) // 2

    def combine(self, view: View, memory: Memory) -> NDArray[np.float64]:  # noqa: ARG002 # as above
        """Return the votes' steps, and the statistics' medians."""
        ways = view.by_column(columns.votes, trainable_spans(view.layout))
        return self.step * np.sign(ways) + view.by_column(columns.median, statistic_spans(view.layout))

    def __str__(self) -> str:
        return f"sign majority({self.step:g})"
