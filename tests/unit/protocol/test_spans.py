"""Which chunks are missing, in a few numbers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fedmq.protocol.posting import MOST_QUESTIONS
from fedmq.protocol.spans import EVERYTHING, MOST_NUMBERS, gaps, within
from fedmq.wire import limits

counts = st.integers(1, 300)


def test_the_limits_are_those_of_the_wire() -> None:
    assert limits.SPANS == MOST_NUMBERS
    assert limits.QUESTIONS == MOST_QUESTIONS
    assert EVERYTHING == (0, limits.CHUNKS)


@given(counts, st.data())
def test_what_is_not_there_is_named_from_the_first_on(count: int, data: st.DataObject) -> None:
    there = data.draw(st.sets(st.integers(0, count - 1)))
    spans = gaps(there, count)
    missing = [index for index in range(count) if index not in there]
    named = list(within(spans, count))
    assert named == missing[: len(named)]
    assert len(spans) <= MOST_NUMBERS
    assert len(spans) % 2 == 0
    assert sum(spans) <= count
    assert named == missing or len(spans) == MOST_NUMBERS


def test_of_a_torn_update_the_first_gaps_are_named() -> None:
    assert list(within(gaps(range(0, 1000, 2), 1000), 1000)) == list(range(1, MOST_NUMBERS, 2))


@given(counts)
def test_everything_is_all_that_there_is(count: int) -> None:
    assert list(within(EVERYTHING, count)) == list(range(count))
    assert gaps(range(count), count) == ()


def test_nothing_is_sent_that_is_not_there() -> None:
    assert list(within((2, 5, 1, 9), 4)) == [2, 3]
