"""Long bodies in pieces: any order, any repeats, and pieces that lie."""

from __future__ import annotations

import hashlib
import tracemalloc
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmq.errors import MessageError, MisuseError
from fedmq.protocol.messages import Chunk
from fedmq.wire import limits
from fedmq.wire.chunks import (
    MOST_CUTTINGS,
    OVERHEAD_BYTES,
    Assembly,
    Collector,
    FrameCollector,
    body_digest,
    check_body,
    chunk_count,
    chunk_room,
    cut,
)
from fedmq.wire.envelope import CONTENT_TYPE, decode, encode
from fedmq.wire.topics import Topics

RUN, STEM = b"run12345", b"update_1"
BODY = bytes(range(100))
PIECES = list(cut(BODY, RUN, STEM, 30))


# --- cutting ----------------------------------------------------------------------------------------------------------


@given(st.binary(min_size=1, max_size=500), st.integers(1, 600))
def test_the_chunks_of_a_body_are_the_body(body: bytes, room: int) -> None:
    chunks = list(cut(body, RUN, STEM, room))
    assert b"".join(chunk.data for chunk in chunks) == body
    assert [chunk.index for chunk in chunks] == list(range(chunks[0].count))
    assert all(1 <= len(chunk.data) <= room for chunk in chunks)
    assert {(chunk.total, chunk.digest) for chunk in chunks} == {
        (len(body), hashlib.sha256(body).digest()[:8])
    }
    assert chunk_count(len(body), room) == len(chunks)
    assert [decode(encode(chunk), Chunk) for chunk in chunks] == chunks


@given(st.binary(min_size=1, max_size=500), st.integers(1, 600), st.integers(1, 600))
def test_the_number_of_chunks_says_how_a_body_was_cut(body: bytes, room: int, other: int) -> None:
    one, two = list(cut(body, RUN, STEM, room)), list(cut(body, RUN, STEM, other))
    assert (one == two) is (len(one) == len(two))


def test_some_of_the_chunks_are_cut_alone() -> None:
    assert list(cut(BODY, RUN, STEM, 30, indexes=[3, 1])) == [PIECES[3], PIECES[1]]


@pytest.mark.parametrize(
    ("body", "room"),
    [(b"", 10), (b"x", 0), (b"x", -1), (bytes(limits.CHUNKS + 1), 1), (bytes(2 * limits.CHUNKS + 1), 2)],
)
def test_refuses_at_once_what_cannot_be_cut(body: bytes, room: int) -> None:
    with pytest.raises(MisuseError, match="cannot be cut"):
        cut(body, RUN, STEM, room)


def test_refuses_a_body_that_is_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BODY_BYTES", 99)
    with pytest.raises(MisuseError, match="cannot be cut"):
        cut(BODY, RUN, STEM, 30)


def test_cuts_as_many_chunks_as_are_allowed() -> None:
    assert sum(1 for _ in cut(bytes(limits.CHUNKS), RUN, STEM, 1)) == limits.CHUNKS


def test_the_room_leaves_space_for_everything_else_in_the_packet() -> None:
    assert chunk_room(10_000_000) == limits.CHUNK_BYTES
    assert chunk_room(10_000_000, 10_000_000) == limits.PACKET_BYTES - OVERHEAD_BYTES
    assert chunk_room(limits.LEAST_PACKET_BYTES) == limits.LEAST_PACKET_BYTES - OVERHEAD_BYTES
    with pytest.raises(MisuseError, match="packets of 4095 bytes at most, fedmq needs 4096"):
        chunk_room(limits.LEAST_PACKET_BYTES - 1)


def test_the_longest_packet_fits() -> None:
    room = chunk_room(limits.LEAST_PACKET_BYTES)
    count = limits.CHUNKS
    chunk = Chunk(RUN, STEM, count - 1, count, limits.BODY_BYTES, bytes(8), bytes(room))
    topic = Topics("f" * 64).update("d" * 64, limits.NUMBER, count - 1)
    header = 1 + 4 + 2 + len(topic) + 2  # type and length, topic, packet identifier
    properties = 2 + 3 + len(CONTENT_TYPE) + 3 + len(STEM) + 5  # content type, correlation data, expiry
    assert header + properties + len(encode(chunk)) <= limits.LEAST_PACKET_BYTES


# --- putting together -------------------------------------------------------------------------------------------------


@given(st.binary(min_size=1, max_size=300), st.integers(1, 50), st.data())
def test_any_order_and_any_repeats_give_the_body(body: bytes, room: int, data: st.DataObject) -> None:
    chunks = list(cut(body, RUN, STEM, room))
    repeats = data.draw(st.lists(st.sampled_from(chunks), max_size=20))
    *others, last = data.draw(st.permutations(chunks))
    coming = data.draw(st.permutations(others + [chunk for chunk in repeats if chunk != last]))
    collector = Collector(len(body))
    assert [collector.take(chunk) for chunk in coming] == [None] * len(coming)
    assert collector.take(last) == body


def test_an_assembly_knows_what_is_missing() -> None:
    assembly = Assembly.begin(PIECES[2], 100)
    assert assembly.missing() == [0, 1, 2, 3]
    assert assembly.take(PIECES[2])
    assert not assembly.take(PIECES[2])
    assert assembly.missing() == [0, 1, 3]
    assert not assembly.complete
    for index in (0, 1, 3):
        assert assembly.take(PIECES[index])
    assert assembly.missing() == []
    assert assembly.complete


@pytest.mark.parametrize(
    "change",
    [
        {"run": b"run_____"},
        {"stem": b"update_2"},
        {"count": 5},
        {"total": 101},
        {"digest": bytes(32)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_two_bodies_do_not_mix(change: dict[str, Any]) -> None:
    assembly = Assembly.begin(PIECES[0], 1000)
    assert assembly.take(PIECES[0])
    other = replace(PIECES[1], **change)
    assert not assembly.owns(other)
    with pytest.raises(MessageError, match="another body"):
        assembly.take(other)
    assert assembly.missing() == [1, 2, 3]


@pytest.mark.parametrize(
    ("change", "most", "sentence"),
    [
        ({"total": 101}, 100, "a body of 101 bytes is announced; at most 100 are taken"),
        ({"total": 2**31 - 1}, 100, "2147483647 bytes is announced"),
        ({"total": 0}, 100, "a body of 0 bytes"),
        ({"count": 101}, 1000, "101 chunks are announced for 100 bytes"),
        ({"count": 0}, 1000, "0 chunks"),
    ],
)
def test_refuses_lying_announcements(change: dict[str, Any], most: int, sentence: str) -> None:
    with pytest.raises(MessageError, match=sentence):
        Assembly.begin(replace(PIECES[0], **change), most)


def test_refuses_more_bytes_than_announced() -> None:
    assembly = Assembly.begin(PIECES[0], 100)
    for piece in PIECES[:3]:
        assembly.take(piece)
    with pytest.raises(MessageError, match="more than the announced 100 bytes"):
        assembly.take(replace(PIECES[3], data=bytes(26)))


@pytest.mark.parametrize("index", [4, -1])
def test_refuses_an_index_out_of_range(index: int) -> None:
    assembly = Assembly.begin(PIECES[0], 100)
    with pytest.raises(MessageError, match=f"chunk {index} of 4"):
        assembly.take(replace(PIECES[0], index=index))


def test_refuses_pieces_that_do_not_add_up() -> None:
    collector = Collector(100)
    for piece in PIECES[:3]:
        collector.take(piece)
    with pytest.raises(MessageError, match="do not add up: 99 bytes of 100"):
        collector.take(replace(PIECES[3], data=bytes(24)))


def test_a_collector_begins_again_after_a_forgery() -> None:
    collector = Collector(100)
    for piece in PIECES[:3]:
        collector.take(piece)
    with pytest.raises(MessageError, match="do not add up"):
        collector.take(replace(PIECES[3], data=bytes(25)))
    assert [collector.take(piece) for piece in PIECES] == [None, None, None, BODY]


def test_a_body_is_checked_by_length_and_digest() -> None:
    digest = body_digest(BODY)
    assert check_body(BODY, 100, digest) is BODY
    for body, total in ((BODY[:-1], 100), (BODY, 101), (BODY[::-1], 100)):
        with pytest.raises(MessageError, match="do not add up"):
            check_body(body, total, digest)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 9), st.integers(1, 12), st.integers(1, 60), st.binary(min_size=1, max_size=9)
        )
    )
)
def test_a_collector_holds_no_more_than_its_bound(claims: list[tuple[int, int, int, bytes]]) -> None:
    collector = Collector(50)
    for index, count, total, data in claims:
        try:
            body = collector.take(Chunk(RUN, STEM, index, count, total, body_digest(data), data))
        except MessageError:
            body = None
        assert body is None or len(body) <= 50
        assert sum(map(len, collector._pieces.values())) <= 50


def test_a_lying_count_costs_no_memory() -> None:
    collector = Collector(limits.BODY_BYTES)
    tracemalloc.start()
    try:
        collector.take(Chunk(RUN, STEM, 0, limits.CHUNKS, limits.BODY_BYTES, bytes(8), b"x"))
        assert tracemalloc.get_traced_memory()[1] < 10_000
    finally:
        tracemalloc.stop()


# --- model frames -----------------------------------------------------------------------------------------------------

FRAME_PIECES = list(cut(BODY, RUN, b"", 30))
LEFT_OVER = {
    "cut otherwise": list(cut(BODY, RUN, b"", 20))[:-1],
    "an earlier run's": list(cut(BODY, b"run_____", b"", 30)),
    "another body's": list(cut(BODY[::-1], RUN, b"", 30))[1:],
    "too long": list(cut(bytes(10**6), RUN, b"", 10**6)),
    "an update's": PIECES,
}


def test_a_frame_is_collected() -> None:
    collector = FrameCollector(RUN, 100)
    assert [collector.take(piece) for piece in FRAME_PIECES] == [None, None, None, BODY]


@pytest.mark.parametrize("name", LEFT_OVER)
@given(order=st.permutations(range(9)))
def test_left_over_chunks_do_not_disturb_a_frame(name: str, order: list[int]) -> None:
    collector, both = FrameCollector(RUN, 100), [*LEFT_OVER[name][:5], *FRAME_PIECES]
    bodies = [collector.take(both[place]) for place in order if place < len(both)]
    assert [body for body in bodies if body is not None] == [BODY]


def test_more_ways_of_cutting_than_are_collected_push_out_the_oldest() -> None:
    collector = FrameCollector(RUN, 100)
    for room in (50, 34, 20, 17, 15, 13, 12, 10):
        assert collector.take(next(iter(cut(BODY, RUN, b"", room)))) is None
    assert len(collector._cuttings) == MOST_CUTTINGS
    assert [collector.take(piece) for piece in FRAME_PIECES] == [None, None, None, BODY]


def test_what_a_frame_lacks_is_known_once_a_chunk_has_come_and_all_agree() -> None:
    collector = FrameCollector(RUN, 100)
    assert collector.missing() is None
    collector.take(FRAME_PIECES[2])
    assert collector.missing() == [0, 1, 3]
    collector.take(FRAME_PIECES[0])
    assert collector.missing() == [1, 3]
    collector.take(LEFT_OVER["cut otherwise"][0])
    assert collector.missing() is None


def test_nothing_is_known_to_be_missing_of_a_frame_that_began_again() -> None:
    collector = FrameCollector(RUN, 100)
    for piece in FRAME_PIECES:
        collector.take(piece)
    assert collector.missing() is None


def test_a_damaged_frame_is_refused() -> None:
    collector = FrameCollector(RUN, 100)
    for piece in FRAME_PIECES[:3]:
        collector.take(piece)
    with pytest.raises(MessageError, match="do not add up"):
        collector.take(replace(FRAME_PIECES[3], data=bytes(25)))
