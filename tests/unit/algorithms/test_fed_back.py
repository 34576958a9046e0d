"""What of an update has error feedback, under which algorithm."""

from __future__ import annotations

import pytest

from fedmq.algorithms import ALGORITHMS
from fedmq.vectors import Layout, Variable

LAYOUT = Layout((Variable("w", (2, 3)), Variable("mean", (3,), "statistic")))


@pytest.mark.parametrize("kind", ALGORITHMS)
def test_a_mask_is_as_long_as_what_travels_and_differences_have_no_feedback(kind: str) -> None:
    algorithm = ALGORITHMS[kind]()
    mask = algorithm.fed_back(LAYOUT)
    assert mask is None or mask.shape == (algorithm.extend(LAYOUT).size,)
    assert (mask is not None and not mask.any()) == (kind == "differences")
