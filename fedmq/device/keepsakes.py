"""What a device keeps for itself from round to round: vectors by name, changed only by updates that moved the model.

An algorithm's control variates stand here, and whatever else belongs to one device and one run. A change is written
down with the update that it comes from, noted as accepted when a receipt says so, and added when the model has moved;
it is dropped when a receipt says anything else, or the model has not moved. Changes are terms of sums: in which order
they are added leaves the same vectors.

The residual of error feedback (`fedmq.device.residual`) stands among the vectors, and changes the other way round: at
once, as the update is stored, on the guess that it will count. For when it does not, its change holds what then comes
back; that is noted with one renaming, and taken up by the next update. So a round costs a disk one residual, whatever
becomes of the update.

On disk there are two kinds of files, beside the outbox::

    keepsakes.npz                            the vectors, their run, and the updates whose changes are in them
    <round>-<model>-<run>-<update>.change    one update's change; ``.accepted`` once a receipt has said so;
                                             ``.returned`` once it is known not to have counted

Each is written whole or not at all. A change is written before the residual, the residual before its update is in the
outbox, and a change is noted as accepted before the update leaves it; so a device that is switched off at any time
finds, when it comes back, the change still there, or in the vectors and the update noted beside them, so that it is
not added twice. A change that was to come back from a residual that was never written is thrown away.
"""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from dataclasses import replace
from io import BytesIO
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np

from fedmq.device.kept import MOST_WAITING, Change, End, Keepsake, Origin
from fedmq.device.residual import Piece
from fedmq.errors import StoreError
from fedmq.store.files import disk, make_folder, remove, rename, whole_file

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from fedmq.device.kept import Arrays, Vectors
    from fedmq.device.residual import Residual

log = logging.getLogger(__name__)

Made = TypeVar("Made")

WAITING, ACCEPTED, RETURNED = ".change", ".accepted", ".returned"
"""Marks of changes: the last part of their files' names."""


class Keepsakes(Protocol):
    """Where a device's vectors are kept. May be called from several threads."""

    def kept(self, run: bytes) -> Vectors:
        """Return the run's vectors; nothing for a run that has none yet."""

    def owed(self, run: bytes) -> list[Piece]:
        """Return the run's residual: what codecs lost, and what updates that did not count have brought back."""

    def put(self, origin: Origin, update: bytes, change: Vectors, residual: Residual | None = None) -> None:
        """Keep what is to be added when this update has moved the model; durable on return where that is on disk.

        With a `residual`, that takes the place of all that was owed. The oldest changes give way when there are many,
        as if they had not counted. Raises StoreError.
        """

    def waiting(self) -> Mapping[bytes, Origin]:
        """Return the origins of the changes that wait, by update id."""

    def accept(self, update: bytes) -> None:
        """Note that the update was accepted; nothing happens where it has no change waiting. Raises StoreError."""

    def settle(self, update: bytes, end: End) -> None:
        """Do what follows of the update's end; nothing where it has no change (any more). Raises StoreError."""


class _Shelf(ABC):
    """What keepsakes do, wherever they lie."""

    def __init__(
        self, keepsake: Keepsake, changes: dict[bytes, Origin], returned: dict[bytes, Origin]
    ) -> None:
        self._keepsake, self._changes, self._returned = keepsake, changes, returned
        self._lock = threading.Lock()

    # --- where they lie

    @abstractmethod
    def _write(self, keepsake: Keepsake) -> None:
        """Write the vectors."""

    @abstractmethod
    def _write_change(self, origin: Origin, update: bytes, change: Change) -> None:
        """Write a change."""

    @abstractmethod
    def _read_change(self, update: bytes) -> Change | None:
        """Return a change, waiting or returned; None where it cannot be read."""

    @abstractmethod
    def _mark(self, update: bytes, origin: Origin, mark: str) -> None:
        """Give a waiting change another mark."""

    @abstractmethod
    def _remove(self, update: bytes) -> None:
        """Remove a change, waiting or returned."""

    # --- what is done with them

    def kept(self, run: bytes) -> Vectors:
        """Return the run's vectors."""
        return self._keepsake.of(run)

    def owed(self, run: bytes) -> list[Piece]:
        """Return the run's residual. Raises StoreError."""
        with self._lock:
            pieces = self._keepsake.residual(run)
            for update, origin in self._returned.items():
                change = self._read_change(update) if origin.run == run else None
                if change is not None and change.back is not None:
                    pieces.append(Piece(origin.round, change.back, update))
            return pieces

    def put(self, origin: Origin, update: bytes, change: Vectors, residual: Residual | None = None) -> None:
        """Keep the change, then the residual. Raises StoreError."""
        with self._lock:
            self._write_change(origin, update, Change(change, None if residual is None else residual.back))
            if residual is not None:
                self._write(self._keepsake.sending(origin, update, residual, self._known()))
            self._changes[update] = origin
            for known in self._taken(origin.run, residual):
                self._drop(known)
            for stale in list(self._changes)[:-MOST_WAITING]:
                self._settle(stale, End.RETURNED)

    def waiting(self) -> Mapping[bytes, Origin]:
        """Return the origins by update id."""
        return dict(self._changes)  # one step of the interpreter: no waiting for a disk that is being written

    def accept(self, update: bytes) -> None:
        """Note it."""
        with self._lock:
            before = self._changes.get(update)
            if before is not None and not before.accepted:
                self._mark(update, before, ACCEPTED)
                self._changes[update] = replace(before, accepted=True)

    def settle(self, update: bytes, end: End) -> None:
        """Do what follows; vectors are written before the change is removed."""
        with self._lock:
            if update in self._changes:
                self._settle(update, end)

    def _known(self) -> list[bytes]:
        return [*self._changes, *self._returned]

    def _taken(self, run: bytes, residual: Residual | None) -> list[bytes]:
        """Return what had come back and is owed no more: it is in the residual, or of another run."""
        if residual is None:
            return []
        return [
            known for known, origin in self._returned.items() if known in residual.taken or origin.run != run
        ]

    def _settle(self, update: bytes, end: End) -> None:
        origin, change = self._changes[update], self._read_change(update)
        feeds = change is not None and change.back is not None
        if feeds and end is End.RETURNED:
            self._mark(update, origin, RETURNED)
            self._returned[update] = self._changes.pop(update)
            return
        if update in self._keepsake.settled:
            pass  # the last time all but the removal went well
        elif change is not None and change.vectors and end is End.MOVED:
            self._write(self._keepsake.plus(origin.run, update, change.vectors))
        elif feeds and end is End.REFUSED:
            self._write(self._keepsake.refused(origin.run, update))
        self._drop(update)

    def _drop(self, update: bytes) -> None:
        self._remove(update)
        self._changes.pop(update, None)
        self._returned.pop(update, None)


class MemoryKeepsakes(_Shelf):
    """Keepsakes that a power cut empties."""

    def __init__(self) -> None:
        """Begin empty."""
        super().__init__(Keepsake(), {}, {})
        self._stored: dict[bytes, Change] = {}

    def _write(self, keepsake: Keepsake) -> None:
        self._keepsake = keepsake

    def _write_change(self, origin: Origin, update: bytes, change: Change) -> None:  # noqa: ARG002 # the others write it
        self._stored[update] = change

    def _read_change(self, update: bytes) -> Change | None:
        return self._stored.get(update)

    def _mark(self, update: bytes, origin: Origin, mark: str) -> None:
        pass

    def _remove(self, update: bytes) -> None:
        del self._stored[update]


class DiskKeepsakes(_Shelf):
    """Keepsakes in a folder.

    For each update that moves the model, two files as long as the vectors that it changes are written; for a residual,
    one as long as it is, and one about as long as the encoded update.
    """

    def __init__(self, folder: Path) -> None:
        """Use `folder`, which is made if it is not there. Raises StoreError."""
        self._folder = make_folder(folder)
        self._path = folder / "keepsakes.npz"
        keepsake = _read(self._path, Keepsake.of_arrays) or Keepsake()
        super().__init__(keepsake, _named(folder, WAITING, ACCEPTED), _named(folder, RETURNED))
        for update in self._known():
            if self._useless(update):
                self._drop(update)

    def _useless(self, update: bytes) -> bool:
        """Tell whether a change is in the vectors already, was for a residual never written, or cannot be read."""
        change = self._read_change(update)
        if change is None or update in self._keepsake.settled:
            return True
        return change.back is not None and update not in self._keepsake.sent

    def _write(self, keepsake: Keepsake) -> None:
        _save(self._path, keepsake.arrays(), np.savez)
        self._keepsake = keepsake

    def _write_change(self, origin: Origin, update: bytes, change: Change) -> None:
        save = (
            np.savez if change.back is None else np.savez_compressed
        )  # few different numbers come out of a codec
        _save(self._file(update, origin, WAITING), change.arrays(), save)

    def _read_change(self, update: bytes) -> Change | None:
        return _read(self._where(update), Change.of_arrays)

    def _mark(self, update: bytes, origin: Origin, mark: str) -> None:
        rename(self._where(update), self._file(update, origin, mark))

    def _remove(self, update: bytes) -> None:
        remove(self._where(update))

    def _where(self, update: bytes) -> Path:
        if update in self._returned:
            return self._file(update, self._returned[update], RETURNED)
        origin = self._changes[update]
        return self._file(update, origin, ACCEPTED if origin.accepted else WAITING)

    def _file(self, update: bytes, origin: Origin, mark: str) -> Path:
        return self._folder / f"{origin.round}-{origin.model}-{origin.run.hex()}-{update.hex()}{mark}"


def _save(path: Path, arrays: Arrays, save: Callable[..., None]) -> None:
    with whole_file(path) as file:
        save(file, **arrays)


def _read(path: Path, made: Callable[[Arrays], Made]) -> Made | None:
    """Return what the file holds; None where there is none, or it is damaged: the device then begins anew."""
    if not path.exists():
        return None
    with disk("read", path):
        content = path.read_bytes()
    try:
        with np.load(BytesIO(content), allow_pickle=False) as stored:
            return made({name: stored[name] for name in stored.files})
    except Exception as error:  # noqa: BLE001 # over damage, zipfile, zlib and NumPy raise all sorts
        text = "%s is damaged (%s): what the device kept in it is lost, it begins anew"
        log.error(text, path, _brief(error))  # noqa: TRY400 # no use for a traceback
        return None


def _brief(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:60]!r}"


def _named(folder: Path, *marks: str) -> dict[bytes, Origin]:
    """Return the origins of the changes with such marks, the oldest round first."""
    paths = [path for path in folder.iterdir() if path.suffix in marks]
    return dict(sorted(map(_origin, paths), key=lambda pair: (pair[1].round, pair[0])))


def _origin(path: Path) -> tuple[bytes, Origin]:
    """Return the update and the origin that a change's file is named by."""
    try:
        round_, model, run, update = path.stem.split("-")
        origin = Origin(bytes.fromhex(run), int(round_), int(model), path.suffix == ACCEPTED)
        return bytes.fromhex(update), origin
    except ValueError:
        raise StoreError(f"{path} is no update's change: remove it from the folder") from None
