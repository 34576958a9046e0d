"""Robust reducers against byzfl, Flower and papers' formulas, as tests/golden/make_robust.py recorded their results."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from numpy.typing import NDArray

from fedmq.rules import (
    Bucketing,
    Bulyan,
    CentredClipping,
    CoordinateMedian,
    GeometricMedian,
    Krum,
    MeanAroundMedian,
    MinimumDiameter,
    MultiKrum,
    NearestMixing,
    NormFiltered,
    Reducer,
    SignMajority,
    TrimmedMean,
)
from fedmq.rules.memory import Memory
from fedmq.rules.robust.view import View
from fedmq.vectors import Layout, Variable

with np.load(Path(__file__).parents[3] / "golden" / "robust.npz", allow_pickle=False) as file:
    GOLDEN = dict(file)


@dataclass(frozen=True, slots=True)
class Dealt(Bucketing):
    """Bucketing without its draw: updates are dealt in the order of their first numbers."""

    def combine(self, view: View, memory: Memory) -> NDArray[np.float64]:
        first = np.concatenate([block[:, 0] for _, block in view.blocks([slice(0, 1)])])
        places = np.argsort(np.argsort(first, kind="stable"))
        drawn = SimpleNamespace(permutation=lambda n: places)
        with patch.object(np.random, "default_rng", lambda seed: drawn):
            return Bucketing.combine(self, view, memory)


STEPS = GeometricMedian(smoothing=1e-12, steps=5)
"""Not settled yet: every step is compared."""

MADE: dict[str, Callable[[int], Reducer[Any]]] = {
    "median": lambda bad: CoordinateMedian(),
    "trimmed_mean": lambda bad: TrimmedMean(attackers=bad),
    "mean_around_median": lambda bad: MeanAroundMedian(attackers=bad),
    "krum": lambda bad: Krum(attackers=bad),
    "krum_byzfl": lambda bad: Krum(attackers=bad, margin=1),
    "multi_krum": lambda bad: MultiKrum(attackers=bad),
    "multi_krum_byzfl": lambda bad: MultiKrum(attackers=bad, margin=1),
    "bulyan": lambda bad: Bulyan(attackers=bad),
    "geometric_median": lambda bad: STEPS,
    "centred_clipping": lambda bad: CentredClipping(radius=2.0, steps=5),
    "nnm_trimmed_mean": lambda bad: NearestMixing(bad, TrimmedMean(attackers=bad)),
    "nnm_geometric_median": lambda bad: NearestMixing(bad, STEPS),
    "minimum_diameter": lambda bad: MinimumDiameter(attackers=bad),
    "bucketing_trimmed_mean": lambda bad: Dealt(bad + 1, TrimmedMean(0.25)),
    "norm_filtered": lambda bad: NormFiltered(attackers=bad),
    "sign_majority": lambda bad: SignMajority(step=1.0),
}
"""How each reducer of the file is made here, given how many attackers it is to assume; of buckets, one less each."""


def split(numbers: NDArray[Any], sizes: NDArray[np.int64]) -> Iterator[NDArray[Any]]:
    return (numbers[start:stop] for start, stop in pairwise([0, *np.cumsum(sizes)]))


def reduced(reducer: Reducer[Any], rows: NDArray[np.float32]) -> NDArray[np.float64]:
    state = reducer.zero(Layout((Variable("w", (rows.shape[1],)),)))
    for row in rows:
        reducer.add(state, row, 1.0)
    return reducer.result(state)


def test_every_reducer_of_the_file_is_tried_on_a_thousand_rounds() -> None:
    assert {name.removesuffix(".bad") for name in GOLDEN if name.endswith(".bad")} == set(MADE)
    assert len(GOLDEN["shapes"]) == 1000


@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", MADE)
def test_every_round_is_theirs(kind: str, count: int) -> None:
    shapes = GOLDEN["shapes"].astype(np.int64)
    rounds = split(GOLDEN["numbers"], shapes.prod(axis=1))
    results = split(GOLDEN[f"{kind}.expected"], shapes[:, 1])
    cases = zip(shapes, rounds, GOLDEN[f"{kind}.bad"], results, strict=True)
    for shape, numbers, bad, expected in islice(cases, count):
        rows = numbers.reshape(shape)
        found = reduced(MADE[kind](int(bad)), rows)
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-13 * np.abs(rows).max())
