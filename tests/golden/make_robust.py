"""Write robust.npz: what byzfl and Flower make of a thousand generated rounds, for our reducers to be held against.

Norm filtering and the vote of signs are in neither (nor in FedLab 1.3 or blades 0.1): they are worked out here from the
papers' formulas, number by number, with nothing of ours.

Run it with a Python that has ``byzfl==0.0.11``, ``flwr==1.42.0``, NumPy and SciPy; the tests read the file and need
none of it. byzfl also imports PyTorch, of which its NumPy mode uses nothing: where that is not installed, an empty
module stands in.

The rounds are the same for every reducer: 4 to 12 updates of 1 to 6 numbers, drawn from a seed and kept in the file, in
every third of them some updates are far from the rest. To add a reducer, write its row into `ROWS`, and one into the
table of tests/unit/rules/robust/test_golden.py.

In the file: ``made_with``; ``shapes``, updates and numbers of each round; ``numbers``, all of them, one round after the
other; for each reducer ``KIND.bad``, the attackers assumed in each round, and ``KIND.expected``, its results.
"""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Callable
from importlib.metadata import version
from itertools import combinations
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
from flwr.server.strategy.aggregate import (  # type: ignore[import-not-found]
    aggregate_bulyan,
    aggregate_krum,
)
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

ROUNDS = 1000
SEED = 20_261_122


class Row(NamedTuple):
    """One reducer: how many attackers of `n` it may assume, and its result for a round with that many."""

    most: Callable[[int], int]
    result: Callable[[Numbers, int], Numbers]


def byzfl(*modules: str) -> list[Any]:
    """Return modules of byzfl, without its package's other half, which trains models and draws figures."""
    if importlib.util.find_spec("torch") is None:
        stand_in: Any = ModuleType("torch")
        stand_in.Tensor, stand_in.linalg = type("Tensor", (), {}), ModuleType("torch.linalg")
        sys.modules |= {"torch": stand_in, "torch.linalg": stand_in.linalg}
    spec = importlib.util.find_spec("byzfl")
    assert spec is not None, "byzfl is not installed"
    package = ModuleType("byzfl")
    package.__path__ = list(spec.submodule_search_locations or ())
    sys.modules["byzfl"] = package
    return [importlib.import_module(f"byzfl.aggregators.{module}") for module in modules]


AGGREGATORS, PREAGGREGATORS = byzfl("aggregators", "preaggregators")

RADIUS, STEPS = 2.0, 5
"""Settings of centred clipping and of the geometric median."""


def minority(n: int) -> int:
    return (n - 1) // 2


def geometric_median(rows: Numbers) -> Numbers:
    """Weiszfeld's steps from the mean: byzfl takes them from zero, so the mean is put there first."""
    mean = rows.mean(axis=0)
    return np.asarray(AGGREGATORS.GeometricMedian(nu=1e-12, T=STEPS)(rows - mean) + mean)


def flowers(rows: Numbers) -> list[tuple[list[Numbers], int]]:
    """Return what Flower's functions take: arrays and a number of examples for each device.

    The row nearest to all others comes first: of two equal sums Flower takes the first, and we that row.
    """
    far = ((rows[:, None] - rows) ** 2).sum(axis=(1, 2))
    return [([row], 1) for row in rows[np.argsort(far)]]


def minimum_diameter(rows: Numbers, bad: int) -> Numbers:
    """Return byzfl's choice of rows in an order of which it meets ours first: of equal diameters it takes the first.

    Ours has the least sum of squares among these. Were its diameter not the least, byzfl would go on to another.
    """
    squares = ((rows[:, None] - rows) ** 2).sum(axis=2).tolist()

    def spread(chosen: tuple[int, ...]) -> tuple[float, float]:
        pairs = [squares[one][other] for one, other in combinations(chosen, 2)]
        return max(pairs), math.fsum(pairs)

    kept = min(combinations(range(len(rows)), len(rows) - bad), key=spread)
    others = [index for index in range(len(rows)) if index not in kept]
    return np.asarray(AGGREGATORS.MDA(f=bad)(rows[[*kept, *others]]))


def bucketed(rows: Numbers, size: int) -> Numbers:
    """Return byzfl's trimmed mean of buckets, into which rows are dealt in the order of their first numbers.

    No median: ours counts a bucket by how many are in it, byzfl's does not.
    """
    order = np.argsort(rows[:, 0], kind="stable")
    with patch.object(np.random, "permutation", lambda vectors: vectors[order]):
        buckets = PREAGGREGATORS.Bucketing(s=size)(rows)
    return np.asarray(AGGREGATORS.TrMean(f=len(buckets) // 4)(buckets))


def norm_filtered(rows: Numbers, bad: int) -> Numbers:
    """Return the mean of the `n - bad` shortest: Gupta, Liu and Vaidya 2020, equation 5, divided by their number."""
    shortest = sorted(rows.tolist(), key=lambda row: math.hypot(*row))[: len(rows) - bad]
    return np.array([math.fsum(column) / len(shortest) for column in zip(*shortest, strict=True)])


def sign_majority(rows: Numbers) -> Numbers:
    """Return each column's vote: Bernstein et al. 2019, algorithm 1."""
    ups = [sum(number > 0 for number in column) for column in rows.T.tolist()]
    downs = [sum(number < 0 for number in column) for column in rows.T.tolist()]
    return np.array([float(up > down) - float(up < down) for up, down in zip(ups, downs, strict=True)])


ROWS = {
    "median": Row(lambda n: 0, lambda rows, bad: AGGREGATORS.Median()(rows)),
    "trimmed_mean": Row(minority, lambda rows, bad: AGGREGATORS.TrMean(f=bad)(rows)),
    "mean_around_median": Row(minority, lambda rows, bad: AGGREGATORS.Meamed(f=bad)(rows)),
    "krum": Row(lambda n: (n - 3) // 2, lambda rows, bad: aggregate_krum(flowers(rows), bad, 0)[0]),
    "krum_byzfl": Row(lambda n: (n - 2) // 2, lambda rows, bad: AGGREGATORS.Krum(f=bad)(rows)),
    "multi_krum": Row(
        lambda n: (n - 3) // 2, lambda rows, bad: aggregate_krum(flowers(rows), bad, len(rows) - bad)[0]
    ),
    "multi_krum_byzfl": Row(lambda n: (n - 2) // 2, lambda rows, bad: AGGREGATORS.MultiKrum(f=bad)(rows)),
    "bulyan": Row(
        lambda n: (n - 3) // 4,
        lambda rows, bad: aggregate_bulyan(flowers(rows), bad, aggregate_krum, to_keep=0)[0],
    ),
    "geometric_median": Row(lambda n: 0, lambda rows, bad: geometric_median(rows)),
    "centred_clipping": Row(
        lambda n: 0, lambda rows, bad: AGGREGATORS.CenteredClipping(L=STEPS, tau=RADIUS)(rows)
    ),
    "nnm_trimmed_mean": Row(
        minority, lambda rows, bad: AGGREGATORS.TrMean(f=bad)(PREAGGREGATORS.NNM(f=bad)(rows))
    ),
    "nnm_geometric_median": Row(
        minority, lambda rows, bad: geometric_median(PREAGGREGATORS.NNM(f=bad)(rows))
    ),
    "minimum_diameter": Row(minority, minimum_diameter),
    "bucketing_trimmed_mean": Row(minority, lambda rows, bad: bucketed(rows, bad + 1)),
    "norm_filtered": Row(minority, norm_filtered),
    "sign_majority": Row(lambda n: 0, lambda rows, bad: sign_majority(rows)),
}


def drawn(rng: np.random.Generator, number: int) -> NDArray[np.float32]:
    n, size = int(rng.integers(4, 13)), int(rng.integers(1, 7))
    rows = rng.standard_normal((n, size)) * 10.0 ** rng.integers(-3, 4) + rng.standard_normal(size)
    if number % 3 == 0:
        rows[: minority(n)] *= 1000.0
    return rng.permuted(rows, axis=0).astype(np.float32) if number % 2 else rows.astype(np.float32)


def main() -> None:
    rng = np.random.default_rng(SEED)
    rounds = [drawn(rng, number) for number in range(ROUNDS)]
    chances = rng.integers(0, 2**16, ROUNDS)
    kept: dict[str, NDArray[Any]] = {
        "made_with": np.array(f"byzfl {version('byzfl')}, flwr {version('flwr')}, numpy {np.__version__}"),
        "shapes": np.array([rows.shape for rows in rounds], np.int8),
        "numbers": np.concatenate([rows.ravel() for rows in rounds]),
    }
    for kind, row in ROWS.items():
        bad = [int(chance) % (row.most(len(rows)) + 1) for rows, chance in zip(rounds, chances, strict=True)]
        pairs = zip(rounds, bad, strict=True)
        results = [row.result(rows.astype(np.float64), count) for rows, count in pairs]
        kept |= {f"{kind}.bad": np.array(bad, np.int8), f"{kind}.expected": np.concatenate(results)}
    np.savez_compressed(Path(__file__).with_name("robust.npz"), allow_pickle=False, **kept)


if __name__ == "__main__":
    main()
