"""Getting model frames from the broker: subscribe to one frame's chunks for as long as they are needed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from fedmq.errors import MessageError
from fedmq.protocol.messages import Chunk
from fedmq.wire.chunks import FrameCollector
from fedmq.wire.envelope import decode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fedmq.protocol.frames import Step
    from fedmq.transport.interface import Connection, Message
    from fedmq.wire.topics import Topics

PATIENCE_S: Final = 30.0
"""Longest silence while a frame is on its way; after that the fetch has failed and is tried again later."""

MOST_FILTERS: Final = 100
"""Chunks that are asked for one by one; of a frame that lacks more, all are asked for."""


class Fetching:
    """Fetches frames: `take` is fed with messages, `fetch` waits for what comes of them.

    What has come stays here until it is used or of no use, over lost links too, and is not asked for again.
    """

    def __init__(self, topics: Topics, read: Callable[[bytes, type[Chunk]], Chunk] = decode) -> None:
        """Fetch from the federation whose topics these are; `read` decodes chunks."""
        self._topics, self._read = topics, read
        self._run = b""
        self._collectors: dict[Step, FrameCollector] = {}
        self._bodies: dict[Step, bytes] = {}
        self._in_vain: set[Step] = set()
        self._damage: MessageError | None = None
        self._heard = asyncio.Event()

    def take(self, message: Message) -> bool:
        """Take a message if it is a chunk of a model frame; say whether it was one."""
        place = self._topics.parse_frame(message.topic)
        if place is None:
            return False
        collector = self._collectors.get(place[0])
        if collector is not None and message.payload:  # else it was cleared: the version is out of print
            self._take(place[0], collector, message.payload)
        return True

    def _take(self, step: Step, collector: FrameCollector, payload: bytes) -> None:
        self._heard.set()
        try:
            body = collector.take(self._read(payload, Chunk))
        except MessageError as error:
            self._damage = error
            return
        if body is not None:
            self._bodies[step] = body
            del self._collectors[step]

    async def fetch(
        self, connection: Connection, run: bytes, most: Mapping[Step, int]
    ) -> list[tuple[Step, bytes]]:
        """Return the steps' frames, in order; `most` says of each how many bytes it has at most.

        Raises MessageError where a frame is damaged, TransportError, and TimeoutError after a long silence.
        """
        self._prepare(run, most)
        for step in most:
            if step not in self._bodies:
                filters = self._filters(step)
                await connection.subscribe(*filters)
                await self._wait(step, filters)
                # of an earlier connection, too: the broker's session remembers what it subscribed to
                await connection.unsubscribe(*{*filters, self._topics.frame_filter(step)})
        return [(step, self._bodies[step]) for step in most]

    def forget(self) -> None:
        """Forget all that has come."""
        self._collectors, self._bodies, self._damage = {}, {}, None

    def _prepare(self, run: bytes, most: Mapping[Step, int]) -> None:
        """Keep what has come of these frames, and forget the rest."""
        if run != self._run:
            self._run, self._bodies, self._collectors = run, {}, {}
        self._damage = None
        self._in_vain &= most.keys()
        self._bodies = {step: body for step, body in self._bodies.items() if step in most}
        self._collectors = {
            step: self._collectors.get(step) or FrameCollector(run, nbytes)
            for step, nbytes in most.items()
            if step not in self._bodies
        }

    def _filters(self, step: Step) -> Sequence[str]:
        """Return what to subscribe to for the frame: the chunks that are missing, where it is known which those are.

        To a subscription the broker sends all that stands there, also what came before the link was cut.
        """
        missing = self._collectors[step].missing()
        if missing is None or len(missing) > MOST_FILTERS or step in self._in_vain:
            self._in_vain.discard(step)
            return [self._topics.frame_filter(step)]
        return [self._topics.frame(step, index) for index in missing]

    async def _wait(self, step: Step, filters: Sequence[str]) -> None:
        """Wait for the frame as long as chunks keep coming."""
        while step not in self._bodies:
            if self._damage is not None:
                raise self._damage
            self._heard.clear()
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await self._heard.wait()
            except TimeoutError:
                if (
                    self._topics.frame_filter(step) not in filters
                ):  # it may stand there in other chunks by now
                    self._in_vain.add(step)
                raise TimeoutError(f"no chunk came for {PATIENCE_S:.0f} s") from None
