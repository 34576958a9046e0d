"""All shares of a fleet together, as the `Crowd` of a simulation."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol

from fedmq.simulate.crowd import Count
from fedmq.simulate.memory import resident_mb
from fedmq.simulate.spread.on_ray import connected
from fedmq.simulate.spread.order import orders
from fedmq.simulate.spread.process import ShareProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from fedmq.simulate.settings import SimulationSettings
    from fedmq.simulate.spread.order import Place


class Part(Protocol):
    """One share, wherever its process runs."""

    async def open(self) -> None:
        """Start the process, and wait until its devices are built. Raises ShareLost."""

    async def live(self) -> None:
        """Let its devices take part until the federation has ended. Raises ShareLost."""

    async def count(self) -> Count:
        """Return what its devices have sent and received until now. Raises ShareLost."""

    async def close(self) -> None:
        """End the process, for certain."""


class Crew:
    """The shares of one fleet; `note` says in a line where they are."""

    def __init__(self, parts: Sequence[Part], where: str) -> None:
        """Take the shares, which are `where`; nothing is started yet."""
        self._parts = parts
        self.note = f"devices: in {len(parts)} process{'es' * (len(parts) > 1)} {where}"

    async def open(self) -> None:
        """Start all processes, and wait until every one is ready. Raises ShareLost."""
        await asyncio.gather(*(part.open() for part in self._parts))

    async def live(self) -> None:
        """Let all devices take part, from the same moment on, until the federation has ended. Raises ShareLost."""
        await asyncio.gather(*(part.live() for part in self._parts))

    async def count(self) -> Count:
        """Return what all devices have sent and received, and every process' memory, our own among it."""
        counts = await asyncio.gather(*(part.count() for part in self._parts))
        return Count.sum([Count(memory={"aggregator": resident_mb()}), *counts])

    async def close(self) -> None:
        """End all processes."""
        await asyncio.gather(*(part.close() for part in self._parts), return_exceptions=True)


@asynccontextmanager
async def gathered(
    settings: SimulationSettings, engine: str, place: Place, folder: Path | None = None
) -> AsyncIterator[Crew]:
    """Give the fleet of `settings` in other processes, ready to begin; they end with the block, however it ends.

    Devices keep what they have to in `folder`, in memory where there is none. Raises ConfigError where that cannot be,
    ShareLost where a process fails.
    """
    if settings.fleet.on == "here":
        wanted = orders(settings, engine, settings.fleet.shares, place, folder)
        parts = [ShareProcess(order) for order in wanted]
        async with _opened(Crew(parts, "beside the aggregator's")) as crew:
            yield crew
        return
    with connected(settings.fleet) as cluster:
        shares = cluster.parts(settings, engine, place)
        async with _opened(Crew(shares, f"on Ray, with machines {cluster}")) as crew:
            yield crew


@asynccontextmanager
async def _opened(crew: Crew) -> AsyncIterator[Crew]:
    try:
        await crew.open()
        yield crew
    finally:
        await crew.close()
