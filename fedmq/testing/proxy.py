"""A small TCP proxy that can hold back and cut what passes through it: a bad link between a client and a broker."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from types import TracebackType

LOOPBACK: Final = "127.0.0.1"
_PIECE: Final = 65_536


class Proxy:
    """Listens on a free loopback port and passes each connection on to `port` on loopback.

    ``async with Proxy(1883) as proxy``: connect to `proxy.port`, then `hold`, `release` or `cut`.
    """

    def __init__(self, port: int) -> None:
        self.port = 0
        self.connections = 0
        self._target = port
        self._passing = asyncio.Event()
        self._passing.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def open(self) -> int:
        """How many connections pass through it now."""
        return len(self._serving)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, LOOPBACK, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        if self._serving:
            await asyncio.wait(self._serving)
        await self._server.wait_closed()

    def hold(self) -> None:
        """Let nothing through any more, in either direction; the connections stay."""
        self._passing.clear()

    def release(self) -> None:
        """Let everything through again."""
        self._passing.set()

    def cut(self) -> None:
        """Break all connections at once; new ones may come."""
        for writer in list(self._writers):
            writer.transport.abort()
        self.release()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            far_reader, far_writer = await asyncio.open_connection(LOOPBACK, self._target)
        except OSError:
            writer.transport.abort()
            return
        ends = {writer, far_writer}
        self._writers |= ends
        async with asyncio.TaskGroup() as both:
            both.create_task(self._pass(reader, far_writer, writer))
            both.create_task(self._pass(far_reader, writer, far_writer))
        self._writers -= ends

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, other: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(_PIECE):
                await self._passing.wait()
                writer.write(piece)
                await writer.drain()
        for end in (writer, other):
            end.transport.abort()
