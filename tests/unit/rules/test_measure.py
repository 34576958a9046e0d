from __future__ import annotations

import numpy as np
import pytest

from fedmq.rules.measure import BLOCK, dot, norm, trainable_spans
from fedmq.vectors import Layout, Variable

LAYOUT = Layout(
    (
        Variable("kernel", (2,)),
        Variable("variance", (2,), kind="statistic"),
        Variable("mine", (9,), scope="personal"),
        Variable("bias", (1,)),
        Variable("empty", (0,)),
    )
)
LARGEST = float(np.finfo(np.float32).max)


def vector(*numbers: float) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.array(numbers, np.float32)


def test_spans_are_the_runs_of_trainable_numbers() -> None:
    assert trainable_spans(LAYOUT) == (slice(0, 2), slice(4, 5))
    assert trainable_spans(Layout((Variable("a", (2,)), Variable("b", (3,))))) == (slice(0, 5),)
    assert trainable_spans(Layout((Variable("a", (2,), kind="statistic"),))) == ()


def test_the_norm_leaves_statistics_out() -> None:
    assert norm(vector(2, 3, 1e30, np.nan, 6), LAYOUT) == 7.0


def test_the_norm_of_the_largest_numbers_does_not_overflow() -> None:
    assert norm(vector(LARGEST, 0, 0, 0, 0), LAYOUT) == LARGEST


def test_the_norm_over_several_blocks() -> None:
    layout = Layout((Variable("kernel", (40_000,)),))
    assert norm(np.full(40_000, 0.5, np.float32), layout) == 100.0


@pytest.mark.parametrize("size", [1, BLOCK - 1, BLOCK, BLOCK + 1, 8 * BLOCK, 8 * BLOCK + 1, 20 * BLOCK + 7])
def test_products_are_added_up_block_by_block(size: int) -> None:
    """However many blocks are multiplied at once: the order is part of what other machines have to agree with."""
    chance, layout = np.random.default_rng(size), Layout((Variable("kernel", (size,)),))
    left, right = (chance.normal(size=size).astype(np.float32) for _ in range(2))
    products = left.astype(np.float64) * right
    blocks = [float(np.add.reduce(products[start : start + BLOCK])) for start in range(0, size, BLOCK)]
    assert dot(left, right, layout) == sum(blocks)
