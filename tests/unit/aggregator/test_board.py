"""The board: what is wanted stands on the broker in the end, whatever breaks on the way, and it knows when it does."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmq.aggregator.board import Board
from fedmq.errors import ConnectionLost
from fedmq.transport.interface import Outgoing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fedmq.transport.interface import Connection


@dataclass
class Broker:
    """Keeps what is published; each link breaks after as many publishes as it is given."""

    retained: dict[str, bytes] = field(default_factory=dict)

    def link(self, lasts: float = float("inf")) -> Connection:
        return cast("Connection", Link(self, lasts))


@dataclass
class Link:
    broker: Broker
    lasts: float

    async def publish(self, outgoing: Outgoing) -> None:
        await asyncio.sleep(0)  # the way to the broker, in which others may act
        if self.lasts < 1:
            raise ConnectionLost("cut")
        self.lasts -= 1
        if outgoing.payload:
            self.broker.retained[outgoing.topic] = outgoing.payload
        else:
            self.broker.retained.pop(outgoing.topic, None)
        await asyncio.sleep(0)  # and the acknowledgement's way back


def kept(topic: str, number: int) -> Outgoing:
    return Outgoing(topic, b"%d" % number, retain=True)


async def test_a_board_is_even_when_the_broker_has_everything_and_not_before() -> None:
    broker, board = Broker(), Board()
    assert board.is_even
    await board.put([kept("task", 1)])
    assert not board.is_even
    waiting = asyncio.ensure_future(board.even())
    with pytest.raises(ConnectionLost):
        await board.attach(broker.link(0))
    assert not waiting.done()
    await board.attach(broker.link())
    await asyncio.wait_for(waiting, 1)
    assert broker.retained == {"task": b"1"}


async def test_a_board_that_owes_several_is_even_after_the_last() -> None:
    broker, board = Broker(), Board()
    await board.put([kept("a", 1), kept("b", 2)])
    with pytest.raises(ConnectionLost):
        await board.attach(broker.link(1))
    assert broker.retained == {"a": b"1"}
    assert not board.is_even


async def test_what_a_broken_link_did_not_take_is_owed_to_the_next() -> None:
    broker, board = Broker(), Board()
    await board.attach(broker.link(1))
    await board.put([kept("a", 1)])
    assert board.is_even
    await board.put([kept("b", 2)])
    board.detach()
    await board.clear(["a"])
    assert not board.is_even
    await board.attach(broker.link())
    assert board.is_even
    assert broker.retained == {"b": b"2"}


async def test_what_is_put_up_while_a_link_is_new_is_not_forgotten() -> None:
    broker, board = Broker(), Board()
    await board.put([kept("a", 1), kept("b", 1)])
    attaching = asyncio.ensure_future(board.attach(broker.link()))
    await asyncio.sleep(0)
    await asyncio.gather(board.put([kept("task", 7)]), board.put([kept("a", 2)]), board.clear(["b"]))
    await attaching
    assert broker.retained == {"task": b"7", "a": b"2"}
    assert board.is_even


steps = st.one_of(
    st.tuples(st.just("put"), st.sampled_from("abcd")),
    st.tuples(st.just("clear"), st.sampled_from("abcd")),
    st.tuples(st.just("link"), st.integers(0, 6)),
    st.tuples(st.just("lost"), st.none()),
    st.tuples(st.just("pause"), st.integers(1, 5)),
)


@given(st.lists(steps, max_size=25))
def test_whatever_happens_in_the_end_the_broker_has_what_was_wanted(
    story: Sequence[tuple[str, object]],
) -> None:
    asyncio.run(_told(story))


async def _told(story: Sequence[tuple[str, object]]) -> None:
    broker, board, wanted = Broker(), Board(), dict[str, bytes]()
    works: list[asyncio.Future[None]] = []
    attaching: asyncio.Future[None] | None = None
    for number, (what, value) in enumerate(story):
        match what:
            case "put":
                wanted[str(value)] = b"%d" % number
                works.append(asyncio.ensure_future(board.put([kept(str(value), number)])))
            case "clear":
                wanted.pop(str(value), None)
                works.append(asyncio.ensure_future(board.clear([str(value)])))
            case "link":
                board.detach()
                await _over(attaching)
                attaching = asyncio.ensure_future(board.attach(broker.link(cast("int", value))))
            case "lost":
                board.detach()
            case _:
                for _ in range(cast("int", value)):
                    await asyncio.sleep(0)
        await asyncio.sleep(0)  # one after the other, as the aggregator asks for them
    await _over(attaching)
    await asyncio.gather(*works)
    board.detach()
    await board.attach(broker.link())
    assert board.is_even
    assert broker.retained == wanted
    assert set(board.topics()) == set(wanted)


async def _over(attaching: asyncio.Future[None] | None) -> None:
    """Wait as the session does, which opens no link before it is done with the one before."""
    if attaching is not None:
        await asyncio.gather(attaching, return_exceptions=True)
