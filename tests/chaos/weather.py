"""Bad links on purpose: a TCP proxy between devices and a broker, with a forecast of what it does to them.

As a tool, between a broker on 1883 and devices that are told to connect to 1884::

    python -m tests.chaos.weather --port 1884 --to 1883 --cut 0.2/min --latency 100ms

What happens to a connection follows from the seed and the connection's number, not from when it comes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from types import TracebackType

LOOPBACK: Final = "127.0.0.1"
PIECE: Final = 16_384
"""Bytes that are read at a time, and so the least that a cut can fall between when the link is fast."""
WAITING: Final = 64
"""Pieces on their way in one direction before the sender is no longer read: the link's own buffers."""
UNITS: Final = {"ms": 1e-3, "s": 1.0, "min": 60.0}
SIZES: Final = {"B": 1, "kB": 1_000, "MB": 1_000_000}


@dataclass(frozen=True, slots=True)
class Forecast:
    """What befalls each connection.

    latency_s, jitter_s: every piece takes between `latency_s` and both together, in each direction, in order.
    bandwidth: bytes a second in each direction; 0 for no limit. cut, stall: share of connections that are reset, or go
    silent and stay open, in each minute. cut_after: bytes from the client after which its connection is reset; 0 for
    never.
    """

    latency_s: float = 0.0
    jitter_s: float = 0.0
    bandwidth: float = 0.0
    cut: float = 0.0
    stall: float = 0.0
    cut_after: int = 0


@dataclass(slots=True)
class Seen:
    """What the weather did so far; `connects` are the times (`time.monotonic`) at which a broker was reached."""

    connections: int = 0
    refused: int = 0
    cuts: int = 0
    stalls: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    connects: list[float] = field(default_factory=list)


class Weather:
    """The proxy: ``async with Weather(1883, Forecast(cut=0.2)) as weather``, then connect to `weather.port`."""

    def __init__(
        self,
        target: int,
        forecast: Forecast | None = None,
        *,
        seed: int = 0,
        port: int = 0,
        host: str = LOOPBACK,
    ) -> None:
        """Pass connections to `port` (0: any free one) on to port `target` of `host`."""
        self.port, self.forecast, self.seen = port, forecast or Forecast(), Seen()
        self._target, self._host, self._seed = target, host, seed
        self._links: set[Link] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def open(self) -> int:
        """How many connections pass through it now."""
        return len(self._links)

    @property
    def address(self) -> str:
        """Where clients connect to."""
        return f"mqtt://{LOOPBACK}:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, LOOPBACK, self.port, backlog=1_024)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for task in list(self._serving):
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)
        await self._server.wait_closed()

    def cut(self) -> None:
        """Reset all connections at once; new ones may come."""
        for link in list(self._links):
            link.reset()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.seen.connections += 1
        fate = Random(f"{self._seed}:{self.seen.connections}")
        try:
            far_reader, far_writer = await asyncio.open_connection(self._host, self._target)
        except OSError:
            self.seen.refused += 1
            writer.transport.abort()
            return
        self.seen.connects.append(asyncio.get_running_loop().time())
        link = Link(self.forecast, self.seen, fate, (writer, far_writer))
        self._links.add(link)
        try:
            await link.run(reader, far_reader)
        finally:
            self._links.discard(link)


class Link:
    """One connection under the weather, until one side ends it or the forecast does."""

    def __init__(
        self,
        forecast: Forecast,
        seen: Seen,
        fate: Random,
        ends: tuple[asyncio.StreamWriter, asyncio.StreamWriter],
    ) -> None:
        self._forecast, self._seen, self._fate, self._ends = forecast, seen, fate, ends
        self._passing = asyncio.Event()
        self._passing.set()
        self._left = forecast.cut_after or math.inf

    async def run(self, near: asyncio.StreamReader, far: asyncio.StreamReader) -> None:
        """Pass everything on, both ways."""
        loop = asyncio.get_running_loop()
        alarms = [
            loop.call_later(self._draw(share), strike)
            for share, strike in ((self._forecast.cut, self._cut), (self._forecast.stall, self._stall))
            if share
        ]
        client, broker = self._ends
        ways = [
            asyncio.create_task(self._way(near, broker, self._count_up)),
            asyncio.create_task(self._way(far, client, self._count_down)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for alarm in alarms:
                alarm.cancel()
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            self.reset()

    def reset(self) -> None:
        """Break it at once, both ways."""
        for end in self._ends:
            end.transport.abort()

    def _draw(self, share: float) -> float:
        """Return in how many seconds something happens that befalls a share of all in each minute."""
        return self._fate.expovariate(-math.log1p(-min(share, 1 - 1e-9)) / 60.0)

    def _cut(self) -> None:
        self._seen.cuts += 1
        self.reset()

    def _stall(self) -> None:
        self._seen.stalls += 1
        self._passing.clear()

    def _count_up(self, nbytes: int) -> None:
        self._seen.bytes_up += nbytes
        self._left -= nbytes
        if self._left <= 0:
            self._cut()

    def _count_down(self, nbytes: int) -> None:
        self._seen.bytes_down += nbytes

    async def _way(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, count: Callable[[int], None]
    ) -> None:
        """Pass one direction on; what has come when one side ends still arrives on the other."""
        pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(WAITING)
        delivering = asyncio.create_task(self._deliver(pieces, writer, count))
        try:
            await self._read(reader, pieces)
            if self._passing.is_set():  # else nothing arrives any more, and the link has ended
                await pieces.put((0.0, b""))
                await delivering
        finally:
            delivering.cancel()
            await asyncio.gather(delivering, return_exceptions=True)

    async def _read(self, reader: asyncio.StreamReader, pieces: asyncio.Queue[tuple[float, bytes]]) -> None:
        loop, forecast = asyncio.get_running_loop(), self._forecast
        size = min(PIECE, max(1, int(forecast.bandwidth / 4))) if forecast.bandwidth else PIECE
        with contextlib.suppress(OSError):
            while piece := await reader.read(size):
                due = loop.time() + forecast.latency_s + forecast.jitter_s * self._fate.random()
                await pieces.put((due, piece))

    async def _deliver(
        self,
        pieces: asyncio.Queue[tuple[float, bytes]],
        writer: asyncio.StreamWriter,
        count: Callable[[int], None],
    ) -> None:
        loop, bandwidth = asyncio.get_running_loop(), self._forecast.bandwidth
        while True:
            due, piece = await pieces.get()
            if not piece:
                return
            await self._passing.wait()
            if (wait := due - loop.time()) > 0:
                await asyncio.sleep(wait)
            if bandwidth:
                await asyncio.sleep(len(piece) / bandwidth)
            writer.write(piece)
            count(len(piece))
            try:
                await writer.drain()
            except OSError:
                return


# --- as a tool --------------------------------------------------------------------------------------------------------


def seconds(text: str) -> float:
    """Read ``100ms``, ``2s`` or ``0.5``."""
    return _measured(text, UNITS)


def size(text: str) -> float:
    """Read ``50kB``, ``1MB`` or ``2000``."""
    return _measured(text, SIZES)


def per_minute(text: str) -> float:
    """Read ``0.2/min`` or ``0.2``: a share of the connections in each minute."""
    share = float(text.removesuffix("/min"))
    if not 0 <= share < 1:
        raise ValueError(f"{text} is no share from 0 to 1")
    return share


def _measured(text: str, units: dict[str, float] | dict[str, int]) -> float:
    for unit in sorted(units, key=len, reverse=True):
        if text.endswith(unit):
            return float(text.removesuffix(unit)) * units[unit]
    return float(text)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return what was asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos.weather",
        description="Pass TCP connections on to a broker, and do to them what bad links do.",
        epilog="Stop it with Ctrl-C. It prints what it did each ten seconds.",
    )
    parser.add_argument("--port", type=int, default=1884, help="where clients connect to (default: 1884)")
    parser.add_argument("--to", type=int, default=1883, help="the broker's port (default: 1883)")
    parser.add_argument("--host", default=LOOPBACK, help="the broker's host (default: this machine)")
    parser.add_argument(
        "--latency", type=seconds, default=0.0, metavar="TIME", help="delay each way, as in 100ms"
    )
    parser.add_argument("--jitter", type=seconds, default=0.0, metavar="TIME", help="up to so much on top")
    parser.add_argument(
        "--bandwidth", type=size, default=0.0, metavar="SIZE", help="bytes a second each way, as in 50kB"
    )
    parser.add_argument(
        "--cut", type=per_minute, default=0.0, metavar="SHARE/min", help="share reset each minute"
    )
    parser.add_argument(
        "--stall",
        type=per_minute,
        default=0.0,
        metavar="SHARE/min",
        help="share that goes silent each minute, and stays open",
    )
    parser.add_argument(
        "--cut-after",
        type=size,
        default=0,
        metavar="SIZE",
        help="reset each after so many bytes from the client",
    )
    parser.add_argument("--seed", type=int, default=0, help="decides each connection's fate (default: 0)")
    return parser.parse_args(arguments)


def forecast(given: argparse.Namespace) -> Forecast:
    """Return the forecast that was asked for."""
    return Forecast(
        given.latency, given.jitter, given.bandwidth, given.cut, given.stall, int(given.cut_after)
    )


async def serve(given: argparse.Namespace) -> None:
    """Pass connections on until cancelled, and tell of it."""
    weather = Weather(given.to, forecast(given), seed=given.seed, port=given.port, host=given.host)
    async with weather:
        sys.stdout.write(f"{weather.address} leads to port {given.to} under {weather.forecast}\n")
        while True:
            await asyncio.sleep(10)
            seen = weather.seen
            sys.stdout.write(
                f"{weather.open} open of {seen.connections}, {seen.cuts} cut, {seen.stalls} silent, "
                f"{seen.refused} found no broker; {seen.bytes_up:,} bytes up, {seen.bytes_down:,} down\n"
            )
            sys.stdout.flush()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(parse()))
