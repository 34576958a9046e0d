"""Which steps lead a device to the model, and what they cost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmq.protocol.frames import BLOCK_BYTES, STEP_BYTES, Step, blocks, cost, longest, way
from fedmq.protocol.messages import Manifest

RUN = b"run-one."


def manifest(version: int, key: int, deltas: tuple[int, ...], key_blocks: int = 100) -> Manifest:
    return Manifest(RUN, version, b"digest", key, key_blocks, deltas)


SIX = (1, 2, 3, 4, 5, 6)


@pytest.mark.parametrize(
    ("held", "versions"),
    [(9, []), (8, [9]), (7, [8, 9]), (4, [5, 6, 7, 8, 9]), (3, [4, 5, 6, 7, 8, 9])],
)
def test_who_is_on_the_way_takes_the_deltas_after_what_he_holds(held: int, versions: list[int]) -> None:
    assert way(manifest(9, 7, SIX), held) == tuple(map(Step, versions))


@pytest.mark.parametrize("held", [0, 1, 2, 10])
def test_everyone_else_begins_with_the_key_frame(held: int) -> None:
    assert way(manifest(9, 7, SIX), held) == (Step(7, key=True), Step(8), Step(9))


def test_the_key_frame_is_taken_where_the_deltas_are_dearer() -> None:
    dear, cheap = manifest(9, 7, (90, 90, 1, 1)), manifest(9, 7, (40, 40, 1, 1))
    assert way(dear, 5) == (Step(7, key=True), Step(8), Step(9))
    assert way(dear, 6) == (Step(7), Step(8), Step(9))
    assert way(cheap, 5) == (Step(6), Step(7), Step(8), Step(9))


def test_without_deltas_there_is_the_key_frame_alone() -> None:
    assert way(manifest(9, 9, ()), 8) == (Step(9, key=True),)


def test_nobody_holds_version_0() -> None:
    assert way(manifest(2, 1, (1,)), 0) == (Step(1, key=True), Step(2))


def test_lengths_belong_to_their_steps() -> None:
    shown = manifest(9, 7, SIX)
    assert [longest(shown, Step(version)) for version in range(4, 10)] == [64, 128, 192, 256, 320, 384]
    assert longest(shown, Step(7, key=True)) == 6400
    assert cost(shown, (Step(7, key=True), Step(8))) == 6400 + 320 + 2 * STEP_BYTES


@given(st.integers(1, 10**9))
def test_blocks_hold_their_bytes_and_little_more(nbytes: int) -> None:
    assert 0 <= BLOCK_BYTES * blocks(nbytes) - nbytes < BLOCK_BYTES


@given(st.integers(1, 40), st.data())
def test_a_way_is_the_cheapest_over_frames_that_stand(version: int, data: st.DataObject) -> None:
    key = data.draw(st.integers(1, version))
    count = data.draw(st.integers(version - key, version - 1))
    lengths = data.draw(st.lists(st.integers(1, 300), min_size=count, max_size=count))
    held = at = data.draw(st.integers(0, version))
    shown = manifest(version, key, tuple(lengths))
    steps = way(shown, held)
    for step in steps:
        assert step.version == key if step.key else step.version == at + 1 > version - count
        at = step.version
    assert at == version
    prices = [64 * length + STEP_BYTES for length in lengths]
    onwards, anew = (
        sum(prices[count - version + held :]),
        6400 + STEP_BYTES + sum(prices[count - version + key :]),
    )
    assert cost(shown, steps) == (min(onwards, anew) if version - count <= held and held else anew)
