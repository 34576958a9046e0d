"""The residual's arithmetic: what rides along, what stays behind, what ages."""

from __future__ import annotations

import numpy as np
import pytest

from fedmq.device.residual import LARGEST, Piece, Whole
from fedmq.vectors import Vector


def vector(*numbers: float) -> Vector:
    return np.array(numbers, np.float32)


DELTA = vector(1, 2, 3)


def test_without_a_residual_the_delta_goes_out_as_it_is() -> None:
    delta = vector(1, -0.0, 3)
    whole = Whole.of(delta, [], 7, 1.0, None)
    assert whole.vector.tobytes() == delta.tobytes()
    residual = whole.after(vector(1, 0, 2.5))
    assert residual.left.tolist() == [0, 0, 0.5]
    assert residual.back.tolist() == [1, 0, 2.5]
    assert residual.taken == ()


def test_all_that_is_owed_rides_along() -> None:
    pieces = [Piece(6, vector(10, 0, 0)), Piece(5, vector(0, 100, 0), b"update-5")]
    whole = Whole.of(DELTA, pieces, 7, 1.0, None)
    assert whole.vector.tolist() == [11, 102, 3]
    assert whole.taken == (b"update-5",)
    residual = whole.after(vector(11, 100, 0))
    assert residual.left.tolist() == [0, 2, 3]
    assert residual.taken == (b"update-5",)


def test_what_is_owed_ages_once_for_each_round_since() -> None:
    pieces = [Piece(4, vector(8, 0, 0)), Piece(6, vector(0, 8, 0), b"update-6")]
    assert Whole.of(DELTA, pieces, 7, 0.5, None).vector.tolist() == [2, 6, 3]


def test_pieces_of_a_later_round_do_not_grow() -> None:
    assert Piece(9, DELTA).aged(7, 0.5).tolist() == DELTA.tolist()


def test_the_share_is_the_same_product_everywhere() -> None:
    share = 1.0
    for _ in range(1000):
        share *= 0.99
    assert Piece(0, vector(1)).aged(1000, 0.99).tobytes() == vector(share).tobytes()


def test_the_order_in_which_pieces_came_back_does_not_matter() -> None:
    chance = np.random.default_rng(1)
    pieces = [Piece(round_, chance.normal(size=3).astype(np.float32), bytes([round_])) for round_ in range(6)]
    first = Whole.of(DELTA, pieces, 7, 0.9, None).vector
    assert Whole.of(DELTA, pieces[::-1], 7, 0.9, None).vector.tobytes() == first.tobytes()


def test_a_round_that_is_trained_again_is_not_added_again() -> None:
    pieces = [Piece(7, vector(0.5, 0, 0)), Piece(7, vector(1, 2, 3), b"update-7")]
    assert Whole.of(DELTA, pieces, 7, 0.5, None).vector.tolist() == [1.5, 2, 3]


def test_where_feedback_does_not_apply_delta_and_residual_stay_as_they_are() -> None:
    mask = np.array([True, False, False])
    whole = Whole.of(DELTA, [Piece(6, vector(10, 20, 0))], 7, 0.5, mask)
    assert whole.vector.tolist() == [6, 2, 3]
    residual = whole.after(vector(5, 1, 1))
    assert residual.left.tolist() == [1, 10, 0]
    assert residual.back.tolist() == [5, 0, 0]
    assert Whole.of(DELTA, [], 7, 0.5, mask).after(vector(1, 1, 1)).left.tolist() == [0, 0, 0]


def test_a_piece_of_another_model_is_left_out() -> None:
    whole = Whole.of(DELTA, [Piece(6, vector(1, 2)), Piece(6, vector(1), b"update-6")], 7, 1.0, None)
    assert whole.vector.tolist() == DELTA.tolist()
    assert whole.taken == ()


@pytest.mark.parametrize("poison", [np.nan, np.inf, -2 * LARGEST])
def test_a_residual_that_no_update_can_carry_is_forgotten(
    poison: float, caplog: pytest.LogCaptureFixture
) -> None:
    pieces = [Piece(6, vector(0, poison, 0)), Piece(6, vector(1, 1, 1), b"update-6")]
    whole = Whole.of(DELTA, pieces, 7, 1.0, None)
    assert whole.vector.tolist() == DELTA.tolist()
    assert "it is forgotten" in caplog.text
    residual = whole.after(vector(1, 2, 2))
    assert residual.left.tolist() == [0, 0, 1]
    assert residual.taken == (b"update-6",)
