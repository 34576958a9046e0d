"""Where in the protocol a process is, kept where it outlives the process; and death at a place chosen beforehand.

A small shared file holds two names: where the process was last, which it writes, and where it is to die, which whoever
wants to kill it writes. At that place it sends itself SIGKILL: nothing is flushed, closed or said.
"""

from __future__ import annotations

import functools
import inspect
import mmap
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from fedmq.aggregator.intake import Intake
from fedmq.aggregator.postbox import Postbox
from fedmq.device.device import Device
from fedmq.store.archive import Archive
from fedmq.store.checkpoint import CheckpointFolder
from fedmq.store.journal import Journal
from tests.chaos.fleet import WatchedConnection, WatchedOutbox

ROOM: Final = 64
"""Bytes for each of the two names."""
LINGER_S: Final = 0.05
"""How long a thread that waits for the disk takes to die: for it, the disk is slow, and the event loop goes on."""

AGGREGATOR: Final = (
    "update came, not written",
    "journal about to be written",
    "journal written, not synced",
    "journal synced, no receipt",
    "receipt about to go",
    "keeping the round",
    "round kept, no checkpoint",
    "checkpoint written, not synced",
    "checkpoint synced, not announced",
    "journal about to be emptied",
    "round's number taken, not told",
)
"""Places in an aggregator; between a pair of them lies each moment at which a kill could do harm."""

DEVICE: Final = (
    "task taken, not trained",
    "trained, not stored",
    "update written, not synced",
    "update stored, not sent",
    "update about to be published",
    "update published, no receipt",
    "receipt came, not noted",
    "update forgotten",
)
"""Places in a process that hosts devices."""


class Points:
    """The shared file, from either side."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(2 * ROOM))
        with path.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), 2 * ROOM)
        self._syncing = threading.local()

    @property
    def last(self) -> str:
        """Where the process was last."""
        return self._shared[:ROOM].rstrip(b"\0").decode()

    def arm(self, place: str = "") -> None:
        """Have the process die the next time it comes to `place`; never, where that is empty."""
        self._shared[ROOM:] = place.encode().ljust(ROOM, b"\0")

    def forget(self) -> None:
        """Make ready for a new life."""
        self._shared[:] = bytes(2 * ROOM)

    def at(self, place: str) -> None:
        """Come to a place; where it is the one to die at, die."""
        name = place.encode().ljust(ROOM, b"\0")
        self._shared[:ROOM] = name
        if self._shared[ROOM:] == name:
            if threading.current_thread() is not threading.main_thread():
                time.sleep(LINGER_S)
            os.kill(os.getpid(), signal.SIGKILL)

    # --- places in the product ----------------------------------------------------------------------------------------

    def mark_aggregator(self) -> None:
        """Mark the places of an aggregator in this process."""
        self._around(Intake, "_take_in", after="update came, not written")
        self._around(
            Journal,
            "append",
            before="journal about to be written",
            phase="journal",
            after="journal synced, no receipt",
        )
        self._around(Postbox, "post", before="receipt about to go")
        self._around(Archive, "keep", before="keeping the round", after="round kept, no checkpoint")
        self._around(CheckpointFolder, "save", phase="checkpoint", after="checkpoint synced, not announced")
        self._around(Journal, "discard", before="journal about to be emptied")
        self._around(CheckpointFolder, "begin_journal", after="round's number taken, not told")
        self._syncs(
            {"journal": "journal written, not synced", "checkpoint": "checkpoint written, not synced"}
        )

    def mark_devices(self) -> None:
        """Mark the places of devices in this process."""
        self._around(Device, "_train", before="task taken, not trained")
        self._around(
            WatchedOutbox,
            "put",
            before="trained, not stored",
            after="update stored, not sent",
            phase="update",
        )
        self._around(
            WatchedConnection,
            "publish_update",
            before="update about to be published",
            after="update published, no receipt",
        )
        self._around(Device, "_forget", before="receipt came, not noted", after="update forgotten")
        self._syncs({"update": "update written, not synced"})

    def _around(self, kind: type, method: str, *, before: str = "", after: str = "", phase: str = "") -> None:
        """Come to a place before or after each call of a method; `phase` says meanwhile what is being synced."""
        inner: Callable[..., Any] = getattr(kind, method)

        @functools.wraps(inner)
        def outer(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401 -- any method's
            self._begin(before, phase)
            try:
                return inner(*arguments, **named)
            finally:
                self._end(after, phase)

        @functools.wraps(inner)
        async def outer_async(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401
            self._begin(before, phase)
            try:
                return await inner(*arguments, **named)
            finally:
                self._end(after, phase)

        setattr(kind, method, outer_async if inspect.iscoroutinefunction(inner) else outer)

    def _begin(self, before: str, phase: str) -> None:
        if phase:
            self._syncing.what = phase
        if before:
            self.at(before)

    def _end(self, after: str, phase: str) -> None:
        if phase:
            self._syncing.what = ""
        if after:
            self.at(after)

    def _syncs(self, places: dict[str, str]) -> None:
        """Come to a place before each sync, by what is being synced."""
        for name in ("fsync", "fdatasync"):
            vars(os)[name] = functools.partial(self._sync, places, getattr(os, name))

    def _sync(self, places: dict[str, str], inner: Callable[[int], None], handle: int) -> None:
        what = getattr(self._syncing, "what", "")
        if what in places:
            self.at(places[what])
        inner(handle)
