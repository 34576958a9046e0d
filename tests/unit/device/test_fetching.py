"""Fetching: whole frames, nothing twice, and an end to patience."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from fedmq.device.fetching import Fetching
from fedmq.errors import ConnectionLost, MessageError
from fedmq.protocol.frames import Step
from fedmq.transport.interface import Message
from fedmq.wire.chunks import cut
from fedmq.wire.envelope import encode
from fedmq.wire.topics import Topics

if TYPE_CHECKING:
    from collections.abc import Callable

    from fedmq.transport.interface import Connection

TOPICS = Topics("test")
RUN = b"run-0001"
KEY, DELTA = Step(3, key=True), Step(4)
BODIES = {KEY: bytes(range(200)), DELTA: b"delta" * 30}
MOST = {KEY: 256, DELTA: 192}


def chunks(step: Step, room: int = 50) -> list[Message]:
    pieces = cut(BODIES[step], RUN, b"", room)
    return [Message(TOPICS.frame(step, piece.index), encode(piece)) for piece in pieces]


class Line:
    """A connection over which a broker answers each subscription with what `stands` there; `kept` notes them all."""

    def __init__(self, fetching: Fetching, stands: Callable[[str], list[Message]]) -> None:
        self._fetching, self._stands = fetching, stands
        self.kept: list[str] = []

    async def subscribe(self, *filters: str) -> None:
        self.kept.extend(filters)
        for message in (message for filter_ in filters for message in self._stands(filter_)):
            assert self._fetching.take(message)

    async def unsubscribe(self, *filters: str) -> None:
        self.kept.extend(f"not {filter_}" for filter_ in filters)


def everything(filter_: str) -> list[Message]:
    return matching(filter_, [*chunks(KEY), *chunks(DELTA)])


def matching(filter_: str, messages: list[Message]) -> list[Message]:
    return [message for message in messages if filter_.removesuffix("+") in message.topic]


async def fetch(fetching: Fetching, line: Line, run: bytes = RUN) -> list[tuple[Step, bytes]]:
    connection: Connection = line  # type: ignore[assignment]
    return await fetching.fetch(connection, run, MOST)


async def test_frames_come_one_after_the_other() -> None:
    fetching = Fetching(TOPICS)
    line = Line(fetching, everything)
    assert await fetch(fetching, line) == list(BODIES.items())
    wanted = [TOPICS.frame_filter(KEY), TOPICS.frame_filter(DELTA)]
    assert line.kept == [wanted[0], f"not {wanted[0]}", wanted[1], f"not {wanted[1]}"]


def test_only_chunks_are_taken() -> None:
    fetching = Fetching(TOPICS)
    assert not fetching.take(Message(TOPICS.task, b"x"))
    assert fetching.take(chunks(KEY)[0])  # nobody waits for it


async def test_what_has_come_is_not_fetched_again() -> None:
    fetching = Fetching(TOPICS)

    def breaks(filter_: str) -> list[Message]:
        if "/delta/" in filter_:
            raise ConnectionLost("cut")
        return chunks(KEY)

    with pytest.raises(ConnectionLost):
        await fetch(fetching, Line(fetching, breaks))
    fetching.connected(present=False)
    again = Line(fetching, everything)
    assert await fetch(fetching, again) == list(BODIES.items())
    assert again.kept[0] == TOPICS.frame_filter(DELTA)
    fetching.forget()
    anew = Line(fetching, everything)
    await fetch(fetching, anew)
    assert anew.kept[0] == TOPICS.frame_filter(KEY)


async def test_half_a_frame_waits_for_its_other_half(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedmq.device.fetching.PATIENCE_S", 0.01)
    fetching = Fetching(TOPICS)
    with pytest.raises(TimeoutError, match="no chunk came"):
        await fetch(fetching, Line(fetching, lambda _: chunks(KEY)[:3]))
    rest = Line(fetching, everything)
    assert await fetch(fetching, rest) == list(BODIES.items())
    assert rest.kept[0] == TOPICS.frame(KEY, 3), "what has come is not sent again"
    assert f"not {TOPICS.frame_filter(KEY)}" in rest.kept, "the broker's session remembers it"


async def test_a_frame_that_was_cut_anew_meanwhile_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedmq.device.fetching.PATIENCE_S", 0.01)
    fetching = Fetching(TOPICS)
    with pytest.raises(TimeoutError):
        await fetch(fetching, Line(fetching, lambda _: chunks(KEY, room=20)[:4]))

    def anew(filter_: str) -> list[Message]:
        return matching(filter_, [*chunks(KEY, room=100), *chunks(DELTA)])

    with pytest.raises(TimeoutError):
        await fetch(fetching, Line(fetching, anew))
    line = Line(fetching, anew)
    assert await fetch(fetching, line) == list(BODIES.items())
    assert line.kept[0] == TOPICS.frame_filter(KEY)


async def test_a_frame_of_which_much_is_missing_is_asked_for_as_a_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fedmq.device.fetching.PATIENCE_S", 0.01)
    fetching = Fetching(TOPICS)
    with pytest.raises(TimeoutError):
        await fetch(fetching, Line(fetching, lambda _: chunks(KEY, room=1)[:1]))
    line = Line(fetching, everything)
    await fetch(fetching, line)
    assert line.kept[0] == TOPICS.frame_filter(KEY)


async def test_another_run_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedmq.device.fetching.PATIENCE_S", 0.01)
    fetching = Fetching(TOPICS)
    await fetch(fetching, Line(fetching, everything))
    with pytest.raises(TimeoutError):
        await fetch(fetching, Line(fetching, everything), b"run-0002")


async def test_damage_is_told() -> None:
    fetching = Fetching(TOPICS)
    spoilt = [*chunks(KEY)[:3], Message(TOPICS.frame(KEY, 3), chunks(KEY)[3].payload[:-1] + b"?")]
    with pytest.raises(MessageError, match="do not add up"):
        await fetch(fetching, Line(fetching, lambda _: spoilt))
    fetching.forget()
    async with asyncio.timeout(1.0):  # what came to nothing is not waited for
        assert await fetch(fetching, Line(fetching, everything)) == list(BODIES.items())


async def test_chunks_that_come_with_the_answer_need_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    fetching = Fetching(TOPICS)
    monkeypatch.setattr(fetching, "_hear", None)

    def soon(filter_: str) -> list[Message]:
        for message in everything(filter_):
            asyncio.get_running_loop().call_soon(fetching.take, message)
        return []

    assert await fetch(fetching, Line(fetching, soon)) == list(BODIES.items())


async def test_a_cleared_topic_is_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedmq.device.fetching.PATIENCE_S", 0.01)
    fetching = Fetching(TOPICS)
    with pytest.raises(TimeoutError):
        await fetch(fetching, Line(fetching, lambda _: [Message(TOPICS.frame(KEY, 0), b"")]))


async def test_chunks_that_trickle_in_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedmq.device.fetching.PATIENCE_S", 0.3)
    fetching = Fetching(TOPICS)

    async def trickle() -> None:
        for message in (*chunks(KEY), *chunks(DELTA)):
            await asyncio.sleep(0.1)
            fetching.take(message)

    trickling = asyncio.create_task(trickle())
    assert await fetch(fetching, Line(fetching, lambda _: [])) == list(BODIES.items())
    await trickling
