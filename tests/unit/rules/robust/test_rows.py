"""The fold that keeps rows: bounds, bytes, files; laws over all reducers are in tests/laws."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fedmq.errors import DecodeError, MisuseError, Refused
from fedmq.rules.memory import Memory
from fedmq.rules.robust import rows as rows_module
from fedmq.rules.robust.rows import FromRows, Rows
from fedmq.rules.robust.spool import Spool
from fedmq.rules.robust.view import View
from fedmq.vectors import Layout, Variable

LAYOUT = Layout((Variable("w", (3,)),))


@dataclass(frozen=True, slots=True)
class InOrder(FromRows):
    """Shows what it was given: the first row, in canonical order, and the seed."""

    def combine(self, view: View, memory: Memory) -> NDArray[np.float64]:
        first = view.combined(np.eye(view.n)[0])
        first[-1] = view.seed % 2**50
        return first

    def __str__(self) -> str:
        return "first row"


REDUCER = InOrder()
THREE = [
    (np.array(numbers, np.float32), weight)
    for numbers, weight in (((1, 2, 3), 1.0), ((4, 5, 6), 0.3), ((7, 8, 9), 5.0))
]


def folded(pairs: list[tuple[Any, float]], folder: Path | None = None) -> Rows:
    state = REDUCER.zero(LAYOUT, folder)
    for numbers, weight in pairs:
        REDUCER.add(state, np.asarray(numbers, np.float32), weight)
    return state


def test_rows_are_seen_in_one_order_and_with_one_seed() -> None:
    forwards, backwards = REDUCER.result(folded(THREE)), REDUCER.result(folded(THREE[::-1]))
    np.testing.assert_array_equal(forwards, backwards)
    other = REDUCER.result(folded([*THREE[:2], (THREE[2][0], 5.5)]))
    assert forwards[-1] != other[-1], "the seed hangs on weights as well"


def test_no_digest_is_computed_before_a_seed_is_drawn() -> None:
    state = folded(THREE)
    view = state.view(in_any_order=True)
    np.testing.assert_array_equal(view.weights, np.array([1.0, 0.3, 5.0], np.float32))
    arranged = state.view()
    assert sorted(arranged.weights) == sorted(view.weights)
    assert not any(row.digest for row in state.rows)
    assert view.seed == arranged.seed == folded(THREE[::-1]).seed()
    assert all(len(row.digest) == 32 for row in state.rows)


def test_rows_that_look_the_same_are_told_apart_by_all_their_numbers() -> None:
    """They differ in one number between those which are looked at."""
    layout = Layout((Variable("w", (2000,)),))
    rows = np.zeros((4, 2000), np.float32)
    rows[[0, 1, 2], 100] = 1, 2, 1
    rows[3, 250] = 1
    forwards, backwards = InOrder().zero(layout), InOrder().zero(layout)
    for row, other in zip(rows, rows[::-1], strict=True):
        InOrder().add(forwards, row, 1.0)
        InOrder().add(backwards, other, 1.0)
    seen = [
        np.hstack([block.copy() for _, block in state.view().blocks()]) for state in (forwards, backwards)
    ]
    assert seen[0].tobytes() == seen[1].tobytes()
    assert [bool(row.digest) for row in forwards.rows] == [True, True, True, False]


def test_the_digest_of_a_row_of_several_chunks_is_that_of_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = REDUCER.dump(folded(THREE))
    monkeypatch.setattr(rows_module, "_CHUNK", 2)
    assert REDUCER.dump(folded(THREE)) == whole


def test_a_digest_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    state = folded(THREE)
    first = [row.place for row in state.ordered()]
    monkeypatch.delattr(Spool, "read")
    assert [row.place for row in state.ordered()] == first


def test_a_view_does_not_change_with_its_fold() -> None:
    state = folded(THREE)
    view = state.view(in_any_order=True)
    REDUCER.add(state, *THREE[0])
    assert view.n == len(view.sources) == 3


def test_weights_are_rounded_to_24_bits_and_added_exactly() -> None:
    assert REDUCER.total(folded([(np.zeros(3), 0.1)] * 3)) == 3 * float(np.float32(0.1))
    assert REDUCER.total(REDUCER.zero(LAYOUT)) == 0.0


@pytest.mark.parametrize("weight", [0.0, -1.0, 2.0**-21, 2.0**29, np.nan, np.inf])
def test_a_weight_out_of_bounds_is_refused(weight: float) -> None:
    with pytest.raises(Refused, match="a weight must lie between"):
        REDUCER.check(REDUCER.zero(LAYOUT), THREE[0][0], weight)


@pytest.mark.parametrize("number", [2.0**31, -(2.0**31), 1e30, np.nan, np.inf, -np.inf])
def test_a_number_out_of_range_is_refused(number: float) -> None:
    state = REDUCER.zero(LAYOUT)
    with pytest.raises(Refused, match="finite and below"):
        REDUCER.add(state, np.array([1, number, 2], np.float32), 1.0)
    assert not state.rows
    assert state.spool.count == 0


def test_a_fold_has_room_for_so_many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "MOST_ROWS", 3)
    state = folded(THREE)
    with pytest.raises(Refused, match="would hold 4 rows, it has room for 3"):
        REDUCER.add(state, *THREE[0])
    with pytest.raises(Refused, match="would hold 6 rows"):
        REDUCER.merge(state, state)
    assert len(state.rows) == 3


def test_a_fold_of_nothing_has_no_result() -> None:
    with pytest.raises(MisuseError, match="no first row: abandon the round"):
        REDUCER.result(REDUCER.zero(LAYOUT))


def test_a_merged_fold_reads_where_the_others_wrote_and_outlives_them() -> None:
    left, right = folded(THREE[:1]), folded(THREE[1:])
    merged = REDUCER.merge(left, right)
    assert {id(row.spool) for row in merged.rows} == {id(left.spool), id(right.spool)}
    del left, right
    assert REDUCER.dump(merged) == REDUCER.dump(folded(THREE))


def test_a_fold_merged_from_many_files_has_one_of_its_own() -> None:
    parts = [folded([(np.full(3, k, np.float32), 1.0)]) for k in range(9)]
    merged = REDUCER.zero(LAYOUT)
    for count, part in enumerate(parts, start=1):
        merged = REDUCER.merge(merged, part)
        assert len({id(row.spool) for row in merged.rows}) == (count if count <= 8 else 1)
    assert REDUCER.dump(merged) == REDUCER.dump(folded([(np.full(3, k, np.float32), 1.0) for k in range(9)]))


def test_files_are_made_in_the_given_folder(tmp_path: Path) -> None:
    state = folded(THREE, tmp_path)
    merged = REDUCER.merge(state, folded(THREE))
    loaded = REDUCER.load(REDUCER.dump(state), LAYOUT, tmp_path)
    for made in (state, merged, loaded):
        assert made.folder == tmp_path
        assert made.spool._place == str(tmp_path)


def test_the_bytes_are_as_written_down() -> None:
    dumped = REDUCER.dump(folded([((1, -2, 3), 2.0)]))
    assert dumped[:4] == (1).to_bytes(4, "little")
    assert dumped[36:] == np.array([2, 1, -2, 3], "<f4").tobytes()
    assert len(REDUCER.dump(REDUCER.zero(LAYOUT))) == 36


@pytest.mark.parametrize("end", [0, 35, 36, 51, -1])
def test_bytes_of_another_length_do_not_load(end: int) -> None:
    with pytest.raises(DecodeError, match=r"cut on their way|another model"):
        REDUCER.load(REDUCER.dump(folded(THREE))[:end], LAYOUT)


def test_bytes_for_another_model_do_not_load() -> None:
    with pytest.raises(DecodeError, match="another model"):
        REDUCER.load(REDUCER.dump(folded(THREE)), Layout((Variable("w", (4,)),)))


def test_a_count_beyond_all_bounds_costs_nothing() -> None:
    with pytest.raises(DecodeError, match="4294967295 rows"):
        REDUCER.load(b"\xff" * 4 + bytes(64), LAYOUT)
    with pytest.raises(DecodeError, match="room for 4096"):
        REDUCER.load((5000).to_bytes(4, "little") + bytes(32) + np.ones(5000, "<f4").tobytes(), Layout(()))


def test_no_byte_can_be_flipped() -> None:
    data = REDUCER.dump(folded(THREE))
    for place in range(len(data)):
        spoilt = bytearray(data)
        spoilt[place] ^= 0x10
        with pytest.raises(DecodeError):
            REDUCER.load(bytes(spoilt), LAYOUT)


def test_rows_in_another_order_do_not_load() -> None:
    data = REDUCER.dump(folded(THREE))
    with pytest.raises(DecodeError, match="seal"):
        REDUCER.load(data[:36] + data[52:68] + data[36:52] + data[68:], LAYOUT)


def test_a_row_that_no_fold_takes_does_not_load() -> None:
    data = bytearray(REDUCER.dump(folded(THREE)))
    data[40:44] = np.array([np.nan], "<f4").tobytes()
    with pytest.raises(DecodeError, match="what no fold takes: update holds nan"):
        REDUCER.load(bytes(data), LAYOUT)
