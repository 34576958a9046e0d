"""Getting model frames from the broker: subscribe to one frame's chunks for as long as they are needed.

A broker sends to each subscription all that stands there, and goes on with it over the session's next connection. So
what was asked for once is on its way, whatever becomes of the link, and to ask for it again would have it come twice.
After a cut the session's queue comes first, and behind it what the device subscribes to with each connection, which is
retained as well: when that comes the queue is through, and only what is missing then is asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
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

LULL_S: Final = 5.0
"""Longest silence over chunks that should be on their way without being asked for: a broker's queue that was full has
dropped them without a word, and perhaps what should come behind them."""

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
        self._asked: dict[Step, set[str]] = {}
        self._coming: set[Step] = set()
        self._queued = False
        self._damage: MessageError | None = None
        self._heard = asyncio.Event()

    def connected(self, *, present: bool) -> None:
        """Begin another connection; `present` says whether the broker has kept the session, and its queue."""
        if not present:
            self._asked, self._coming = {}, set()
        self._queued = bool(self._coming)

    def take(self, message: Message) -> bool:
        """Take a message if it is a chunk of a model frame; say whether it was one."""
        place = self._topics.parse_frame(message.topic)
        if place is None:
            self._look_behind(message)
            return False
        collector = self._collectors.get(place[0])
        if collector is not None and message.payload:  # else it was cleared: the version is out of print
            self._take(place[0], collector, message.payload)
        return True

    def _look_behind(self, message: Message) -> None:
        """See whether the message is one that stands behind the session's queue."""
        if message.retained and self._queued:
            self._queued, self._coming = False, set()
            self._heard.set()

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
        for step in [step for step in self._asked if step not in self._collectors]:
            await self._leave(connection, step)
        for step in most:
            if step not in self._bodies:
                await self._bring(connection, step)
                await self._leave(connection, step)
        return [(step, self._bodies[step]) for step in most]

    async def _bring(self, connection: Connection, step: Step) -> None:
        await self._let_come(step)
        if step not in self._bodies:
            filters = self._filters(step)
            self._asked.setdefault(step, set()).update(filters)
            self._coming.add(step)
            await connection.subscribe(*filters)
            await self._wait(step, filters)

    async def _leave(self, connection: Connection, step: Step) -> None:
        """End what the broker's session remembers to be subscribed to, of earlier connections, too."""
        self._coming.discard(step)
        filters = sorted(self._asked.get(step, ()))
        for first in range(0, len(filters), MOST_FILTERS):
            await connection.unsubscribe(*filters[first : first + MOST_FILTERS])
        self._asked.pop(step, None)

    def forget(self) -> None:
        """Forget all that has come."""
        self._collectors, self._bodies, self._damage = {}, {}, None
        self._coming = set()

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

    async def _let_come(self, step: Step) -> None:
        """Wait for what is on its way already, as long as it keeps coming."""
        with contextlib.suppress(TimeoutError):
            while step in self._coming and step not in self._bodies:
                await self._hear(LULL_S)

    async def _wait(self, step: Step, filters: Sequence[str]) -> None:
        """Wait for the frame as long as chunks keep coming."""
        # Chunks that came together with the answer are taken up now; to wait for them costs a timer.
        await asyncio.sleep(0)
        while step not in self._bodies:
            try:
                await self._hear(PATIENCE_S)
            except TimeoutError:
                self._coming.discard(step)
                if (
                    self._topics.frame_filter(step) not in filters
                ):  # it may stand there in other chunks by now
                    self._in_vain.add(step)
                raise TimeoutError(f"no chunk came for {PATIENCE_S:.0f} s") from None

    async def _hear(self, patience_s: float) -> None:
        """Wait for the next chunk. Raises MessageError where one was damaged, and TimeoutError."""
        if self._damage is not None:
            raise self._damage
        self._heard.clear()
        async with asyncio.timeout(patience_s):
            await self._heard.wait()
