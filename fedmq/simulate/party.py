"""The devices that live in this process, each with an MQTT session of its own over a real socket."""

from __future__ import annotations

import asyncio
import resource
from typing import TYPE_CHECKING, Final

from fedmq.device.device import Device, Identity
from fedmq.device.keepsakes import DiskKeepsakes
from fedmq.device.naming import reckoned
from fedmq.device.outbox import DiskOutbox
from fedmq.errors import ConfigError
from fedmq.simulate.crowd import Count
from fedmq.simulate.memory import resident_mb

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fedmq.simulate.fleet import Fleet
    from fedmq.transport.interface import Transport

SPARE_FILES: Final = 100
"""Open files of a process that are no device's: libraries, journal, the broker's log."""


class Party:
    """The devices of a fleet, which compute together; see `fedmq.simulate.crowd.Crowd`."""

    def __init__(
        self,
        federation: str,
        fleet: Fleet,
        transport: Callable[[], Transport],
        *,
        process: str = "this process",
        folder: Path | None = None,
    ) -> None:
        """Make the devices; nothing is connected yet.

        `process` is what the memory is counted under. Each device keeps what it has to in a folder of its own in
        `folder`, in memory where there is none. Raises StoreError.
        """
        self._process, computing = process, fleet.computing()
        self._devices = [
            Device(
                Identity(federation, name),
                transport(),
                trainer,
                outbox=None if folder is None else DiskOutbox(folder / name / "outbox"),
                keepsakes=None if folder is None else DiskKeepsakes(folder / name / "keepsakes"),
                computing=computing,
                naming=reckoned(name),
            )
            for name, trainer in fleet.trainers.items()
        ]

    async def live(self) -> None:
        """Take part until the federation has ended. Raises ConfigError, and what a device raises that cannot go on."""
        make_room(len(self._devices))
        living = [asyncio.create_task(device.run()) for device in self._devices]
        try:
            done, _ = await asyncio.wait(living, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        finally:
            for task in living:
                task.cancel()
            await asyncio.gather(*living, return_exceptions=True)

    async def count(self) -> Count:
        """Return what has gone over the links, and this process' memory."""
        up = sum(device.counters.bytes_up for device in self._devices)
        down = sum(device.counters.bytes_down for device in self._devices)
        return Count(up, down, {self._process: resident_mb()})


def make_room(sockets: int) -> None:
    """Let this process open as many sockets, each of which is a file. Raises ConfigError where it may not."""
    needed = sockets + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise ConfigError(
            f"{sockets:,} devices need {needed:,} open files, and a process may have {hard:,} here: raise that "
            "(ulimit -Hn), take fewer devices, or more processes"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
