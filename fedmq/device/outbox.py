"""The device's outbox: updates that are kept until a receipt settles them.

On disk, each update is one file, written whole or not at all, and removed once: two writes a round for an SD card. The
same interface in memory serves simulated fleets that need not survive a power cut.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from fedmq.errors import StoreError
from fedmq.store.files import disk, make_folder, remove, write_whole

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)

KEPT: Final = 4
"""Updates that an outbox holds; a device that is that far behind gives up the oldest."""


@dataclass(frozen=True, slots=True)
class Stored:
    """One update in the outbox: `body` is the encoded Update."""

    run: bytes
    round: int
    update: bytes
    body: bytes


class Outbox(Protocol):
    """Where updates wait for their receipts."""

    def put(self, stored: Stored) -> None:
        """Keep the update; durable on return where the outbox is on disk. Raises StoreError."""

    def get(self, update: bytes) -> bytes | None:
        """Return the body, None where it is not (or no longer) there."""

    def forget(self, update: bytes) -> None:
        """Remove the update; nothing happens where it is not there."""

    def entries(self) -> dict[bytes, tuple[bytes, int]]:
        """Return (run, round) by update id."""


class MemoryOutbox:
    """An outbox that a power cut empties."""

    def __init__(self) -> None:
        """Begin empty."""
        self._stored: dict[bytes, Stored] = {}

    def put(self, stored: Stored) -> None:
        """Keep it; the oldest gives way when there are too many."""
        self._stored[stored.update] = stored
        while len(self._stored) > KEPT:
            del self._stored[min(self._stored, key=lambda update: self._stored[update].round)]

    def get(self, update: bytes) -> bytes | None:
        """Return the body."""
        stored = self._stored.get(update)
        return stored.body if stored else None

    def forget(self, update: bytes) -> None:
        """Remove it."""
        self._stored.pop(update, None)

    def entries(self) -> dict[bytes, tuple[bytes, int]]:
        """Return (run, round) by update id."""
        return {update: (stored.run, stored.round) for update, stored in self._stored.items()}


class DiskOutbox:
    """An outbox in a folder, one file an update: ``<round>-<run>-<update>.update``."""

    def __init__(self, folder: Path) -> None:
        """Use `folder`, which is made if it is not there. Raises StoreError."""
        self._folder = make_folder(folder)
        self._paths = {_update_of(path): path for path in sorted(folder.glob("*.update"), key=_round_of)}

    def put(self, stored: Stored) -> None:
        """Write it; the oldest gives way when there are too many."""
        name = f"{stored.round}-{stored.run.hex()}-{stored.update.hex()}.update"
        path = self._folder / name
        write_whole(path, stored.body)
        self._paths[stored.update] = path
        while len(self._paths) > KEPT:
            self.forget(min(self._paths, key=lambda update: _round_of(self._paths[update])))

    def get(self, update: bytes) -> bytes | None:
        """Read it. Raises StoreError."""
        path = self._paths.get(update)
        if path is None:
            return None
        with disk("read", path):
            return path.read_bytes()

    def forget(self, update: bytes) -> None:
        """Remove it. Raises StoreError."""
        path = self._paths.get(update)
        if path is not None:
            remove(path)
            self._paths.pop(update, None)  # another thread may have had the same receipt

    def entries(self) -> dict[bytes, tuple[bytes, int]]:
        """Return (run, round) by update id."""
        return {update: (_run_of(path), _round_of(path)) for update, path in self._paths.items()}


def next_session(folder: Path) -> int:
    """Return a number that grows with every call, kept in `folder`; on a disk that takes nothing it stays there.

    Raises StoreError where the folder cannot be made.
    """
    path = make_folder(folder) / "session"
    try:
        number = int(path.read_text()) if path.exists() else 0
    except (OSError, ValueError):
        number = 0  # a lost count costs nothing: an aggregator takes any birth
    try:
        write_whole(path, str(number + 1).encode())
    except StoreError as error:
        log.error("the device starts, and cannot note that it did: %s", error)  # noqa: TRY400 - a sentence
    return number + 1


def _parts(path: Path) -> list[str]:
    parts = path.stem.split("-")
    if len(parts) != 3:  # noqa: PLR2004 - round, run, update
        raise StoreError(f"{path} is no update: remove it from the outbox")
    return parts


def _round_of(path: Path) -> int:
    return int(_parts(path)[0])


def _run_of(path: Path) -> bytes:
    return bytes.fromhex(_parts(path)[1])


def _update_of(path: Path) -> bytes:
    return bytes.fromhex(_parts(path)[2])
