"""Getting model frames from the broker: subscribe to one version's chunks for as long as they are needed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from fedmq.errors import MessageError
from fedmq.protocol.messages import Chunk
from fedmq.wire.chunks import Collector
from fedmq.wire.envelope import decode

if TYPE_CHECKING:
    from fedmq.device.replica import Replica
    from fedmq.protocol.messages import Frame
    from fedmq.transport.interface import Connection, Message
    from fedmq.wire.topics import Topics

PATIENCE_S: Final = 30.0
"""Longest silence while a frame is on its way; after that the fetch has failed and is tried again later."""


class Fetching:
    """Fetches frames over one connection: `take` is fed with messages, `fetch` waits for what comes of them."""

    def __init__(self, topics: Topics) -> None:
        """Fetch from the federation whose topics these are."""
        self._topics = topics
        self._collector: Collector | None = None
        self._frame: Frame | None = None
        self._body: asyncio.Future[bytes] | None = None
        self._heard = asyncio.Event()

    def take(self, message: Message) -> bool:
        """Take a message if it is a chunk of a model frame; say whether it was one."""
        place = self._topics.parse_frame(message.topic)
        if place is None:
            return False
        if (
            self._frame is not None
            and place[0] == self._frame.version
            and self._body
            and not self._body.done()
        ):
            self._take(message)
        return True

    def _take(self, message: Message) -> None:
        assert self._collector is not None and self._body is not None  # noqa: S101, PT018 - set with _frame
        self._heard.set()
        if not message.payload:
            return  # the topic was cleared: this version is going out of print
        try:
            body = self._collector.take(decode(message.payload, Chunk))
        except MessageError as error:
            self._body.set_exception(error)
            return
        if body is not None:
            self._body.set_result(body)

    async def fetch(
        self, connection: Connection, run: bytes, frames: tuple[Frame, ...], replica: Replica
    ) -> None:
        """Bring `replica` to the last frame's version.

        Raises MessageError, DecodeError or TransportError; TimeoutError after a long silence.
        """
        for frame in frames:
            body = await self._fetch(connection, run, frame)
            await asyncio.to_thread(replica.advance, run, frame, body)

    async def _fetch(self, connection: Connection, run: bytes, frame: Frame) -> bytes:
        self._frame, self._collector = frame, Collector.of(frame, run)
        self._body = asyncio.get_running_loop().create_future()
        topic = self._topics.frame_filter(frame.version)
        try:
            await connection.subscribe(topic)
            body = await self._wait(self._body)
        finally:
            self._frame = self._collector = self._body = None
        await connection.unsubscribe(topic)
        return body

    async def _wait(self, body: asyncio.Future[bytes]) -> bytes:
        """Wait for the body as long as chunks keep coming."""
        while not body.done():
            self._heard.clear()
            hearing = asyncio.ensure_future(self._heard.wait())
            either: list[asyncio.Future[Any]] = [body, hearing]
            done, _ = await asyncio.wait(either, timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
            hearing.cancel()
            if not done:
                raise TimeoutError(f"no chunk came for {PATIENCE_S:.0f} s")
        return body.result()
