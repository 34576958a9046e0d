"""The reading view, on models of several blocks and with statistics between the trainable numbers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from threading import Barrier, get_ident
from typing import Any

import numpy as np
import pytest

from fedmq.errors import StoreError
from fedmq.rules.robust import threads
from fedmq.rules.robust import view as view_module
from fedmq.rules.robust.rows import Rows
from fedmq.rules.robust.view import Numbers, View
from fedmq.vectors import Layout, Variable

LAYOUT = Layout(
    (
        Variable("a", (30,)),
        Variable("moments", (40,), kind="statistic"),
        Variable("b", (2030,)),
    )
)
RNG = np.random.default_rng(5)
ROWS = (RNG.standard_normal((5, LAYOUT.size)) * np.array([[1], [1], [1e4], [1e-4], [1]])).astype(np.float32)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view_module, "_BUDGET", 1)
    monkeypatch.setattr(threads, "_SMALL", 1)


def viewed(rows: np.ndarray[Any, np.dtype[np.float32]] = ROWS, layout: Layout = LAYOUT) -> View:
    state = Rows.empty(layout, None)
    for index, row in enumerate(rows):
        state.append(row, (1 + index) << 43)
    return state.view(in_any_order=True)


def test_blocks_are_the_rows() -> None:
    view = viewed()
    blocks = [(columns, block.copy()) for columns, block in view.blocks()]
    assert len(blocks) == 3
    assert all(block.dtype == np.float32 and block.shape[0] == view.n == 5 for _, block in blocks)
    np.testing.assert_array_equal(np.hstack([block for _, block in blocks]), ROWS)
    np.testing.assert_array_equal(np.hstack([ROWS[:, columns] for columns, _ in blocks]), ROWS)
    np.testing.assert_array_equal(view.weights, [1, 2, 3, 4, 5])


def test_blocks_of_some_columns_are_those() -> None:
    blocks = [(columns, block.copy()) for columns, block in viewed().blocks([slice(3, 5), slice(10, 2000)])]
    assert blocks[0][0] == slice(3, 5)
    assert blocks[-1][0].stop == 2000
    np.testing.assert_array_equal(
        np.hstack([block for _, block in blocks]), np.hstack([ROWS[:, 3:5], ROWS[:, 10:2000]])
    )


def test_rows_in_a_block_do_not_share_the_lines_of_a_cache() -> None:
    _, block = next(iter(viewed().blocks()))
    assert block.flags.c_contiguous
    assert block.strides[0] % 4096


def test_mixed_rows_are_linear_in_the_rows() -> None:
    matrix, again = RNG.random((3, 5)), RNG.random((2, 3))
    mixed = viewed().mixed(matrix, np.ones(3))
    assert (mixed.n, mixed.size) == (3, LAYOUT.size)
    np.testing.assert_allclose(np.hstack([block.copy() for _, block in mixed.blocks()]), matrix @ ROWS)
    twice = mixed.mixed(again, np.ones(2))
    np.testing.assert_allclose(
        np.hstack([block.copy() for _, block in twice.blocks()]), again @ matrix @ ROWS, atol=1e-10
    )


def test_what_is_done_by_column_sees_every_column_once() -> None:
    def work(block: Numbers) -> Numbers:
        return np.asarray(block.sum(axis=0, dtype=np.float64))

    np.testing.assert_array_equal(viewed().by_column(work), ROWS.sum(axis=0, dtype=np.float64))
    matrix = RNG.random((3, 5))
    mixed = viewed().mixed(matrix, np.ones(3)).by_column(work)
    np.testing.assert_allclose(mixed, (matrix @ ROWS).sum(axis=0), atol=1e-10)
    part = viewed().by_column(work, [slice(2, 5)])
    assert np.count_nonzero(part) == 3
    np.testing.assert_array_equal(part[2:5], ROWS[:, 2:5].sum(axis=0, dtype=np.float64))


def test_an_error_in_a_thread_comes_out() -> None:
    def work(block: Numbers) -> Numbers:
        raise StoreError("the disk is gone")

    with pytest.raises(StoreError, match="gone"):
        viewed().by_column(work)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_work_is_shared_out_whole(workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_WORKERS", workers)
    for count, numbers in itertools.product(range(5), (0, 1)):
        seen = list[int]()
        threads.share_out(seen.extend, range(count), numbers)
        assert sorted(seen) == list(range(count))


def test_much_work_is_done_in_two_threads_and_a_little_in_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_WORKERS", 2)
    seen = list[tuple[int, list[int]]]()
    both = Barrier(2, timeout=20)

    def work(items: Sequence[int]) -> None:
        both.wait()
        seen.append((get_ident(), list(items)))

    threads.share_out(work, range(4), 1)
    assert sorted(items for _, items in seen) == [[0, 2], [1, 3]]
    assert len({ident for ident, _ in seen} | {get_ident()}) == 3
    threads.share_out(lambda items: seen.append((get_ident(), list(items))), range(4), 0)
    assert seen[-1] == (get_ident(), [0, 1, 2, 3])


def test_combined_is_the_weighted_sum_and_reads_no_more_than_it_needs() -> None:
    view = viewed()
    coefficients = np.array([0.5, 0.0, -2.0, 0.0, 1.0])
    np.testing.assert_allclose(view.combined(coefficients), coefficients @ ROWS, atol=1e-10)
    view.sources[1][0].count = 0
    state = Rows.empty(LAYOUT, None)
    unread = View(LAYOUT, np.ones(2), [*view.sources[:1], (state.spool, 7)], draw=int)
    np.testing.assert_array_equal(unread.combined(np.array([1.0, 0.0])), ROWS[0])
    with pytest.raises(StoreError):
        unread.combined(np.array([0.0, 1.0]))
    np.testing.assert_array_equal(view.combined(np.zeros(5)), np.zeros(LAYOUT.size))


def test_combined_of_mixed_rows() -> None:
    matrix, coefficients = RNG.random((3, 5)), RNG.random(3)
    found = viewed().mixed(matrix, np.ones(3)).combined(coefficients)
    np.testing.assert_allclose(found, coefficients @ matrix @ ROWS, rtol=1e-10, atol=1e-9)


def test_inner_products_leave_statistics_out() -> None:
    trainable = ROWS[:, LAYOUT.trainable].astype(np.float64)
    gram = viewed().gram()
    np.testing.assert_allclose(gram, trainable @ trainable.T, rtol=1e-12)
    np.testing.assert_array_equal(gram, gram.T)
    matrix = RNG.random((3, 5))
    mixed = viewed().mixed(matrix, np.ones(3)).gram()
    np.testing.assert_allclose(mixed, matrix @ trainable @ trainable.T @ matrix.T, rtol=1e-10)
    np.testing.assert_array_equal(mixed, mixed.T)


def test_a_far_row_does_not_spoil_the_products_of_the_others() -> None:
    far = np.vstack([ROWS, np.full(LAYOUT.size, 2.0**30, np.float32)])
    np.testing.assert_allclose(viewed(far).gram()[:5, :5], viewed().gram(), rtol=1e-12)


def test_a_model_without_numbers_has_no_blocks() -> None:
    view = viewed(np.empty((2, 0), np.float32), Layout(()))
    assert list(view.blocks()) == []
    np.testing.assert_array_equal(view.gram(), np.zeros((2, 2)))
    assert view.combined(np.ones(2)).shape == (0,)
