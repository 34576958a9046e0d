"""What a device keeps for itself from round to round: vectors by name, changed only by updates that moved the model.

An algorithm's control variates stand here, and whatever else belongs to one device and one run. A change is written
down with the update that it comes from, noted as accepted when a receipt says so, and added when the model has moved;
it is dropped when a receipt says anything else, or the model has not moved. Changes are terms of sums: in which order
they are added leaves the same vectors.

On disk there are two kinds of files, beside the outbox::

    keepsakes.npz                            the vectors, their run, and the updates whose changes are in them
    <round>-<model>-<run>-<update>.change    one update's change; ``.accepted`` once a receipt has said so

Each is written whole or not at all. A change is written before its update is in the outbox, and noted as accepted
before the update leaves it; so a device that is switched off at any time finds, when it comes back, the change still
there, or in the vectors and the update noted beside them, so that it is not added twice.
"""

from __future__ import annotations

import logging
import threading
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

import numpy as np

from fedmq.device.outbox import KEPT
from fedmq.errors import StoreError
from fedmq.store.files import disk, make_folder, remove, rename, whole_file

if TYPE_CHECKING:
    from pathlib import Path

    from fedmq.vectors import Vector

log = logging.getLogger(__name__)

Vectors: TypeAlias = Mapping[str, "Vector"]

MOST_WAITING: Final = 2 * KEPT
"""Changes that may wait: more than an outbox holds updates."""
NOTED: Final = 2 * MOST_WAITING
"""Settled updates that are noted beside the vectors: more than can wait."""
_VECTOR: Final = "vector/"
_SUFFIXES: Final = (".change", ".accepted")


@dataclass(frozen=True, slots=True)
class Keepsake:
    """The vectors of one run; `settled` are the updates whose changes are in them, the latest last."""

    run: bytes = b""
    vectors: Vectors = field(default_factory=dict)
    settled: tuple[bytes, ...] = ()

    def of(self, run: bytes) -> Vectors:
        """Return the vectors if they are of this run, else none."""
        return self.vectors if self.run == run else {}

    def plus(self, run: bytes, update: bytes, change: Vectors) -> Keepsake:
        """Return this with one update's change added; another run begins with nothing."""
        before = self.of(run)
        sums = {name: _sum(before.get(name), vector) for name, vector in change.items()}
        return Keepsake(run, {**before, **sums}, (*self.settled, update)[-NOTED:])


@dataclass(frozen=True, slots=True)
class Origin:
    """What a change comes from: an update of `round`, trained from version `model`; whether it is known as accepted."""

    run: bytes
    round: int
    model: int
    accepted: bool = False


class Keepsakes(Protocol):
    """Where a device's vectors are kept. May be called from several threads."""

    def kept(self, run: bytes) -> Vectors:
        """Return the run's vectors; nothing for a run that has none yet."""

    def put(self, origin: Origin, update: bytes, change: Vectors) -> None:
        """Keep what is to be added when this update has moved the model; durable on return where that is on disk.

        The oldest give way when there are many. Raises StoreError.
        """

    def waiting(self) -> Mapping[bytes, Origin]:
        """Return the origins of the changes that wait, by update id."""

    def accept(self, update: bytes) -> None:
        """Note that the update was accepted; nothing happens where it has no change waiting. Raises StoreError."""

    def settle(self, update: bytes, *, added: bool) -> None:
        """Add the update's change, or drop it; nothing happens where it has none (any more). Raises StoreError."""


class MemoryKeepsakes:
    """Keepsakes that a power cut empties."""

    def __init__(self) -> None:
        """Begin empty."""
        self._keepsake = Keepsake()
        self._changes: dict[bytes, tuple[Origin, Vectors]] = {}
        self._lock = threading.Lock()

    def kept(self, run: bytes) -> Vectors:
        """Return the run's vectors."""
        return self._keepsake.of(run)

    def put(self, origin: Origin, update: bytes, change: Vectors) -> None:
        """Keep the change."""
        with self._lock:
            self._changes[update] = origin, change
            for stale in list(self._changes)[:-MOST_WAITING]:
                del self._changes[stale]

    def waiting(self) -> Mapping[bytes, Origin]:
        """Return the origins by update id."""
        return {update: origin for update, (origin, _) in dict(self._changes).items()}

    def accept(self, update: bytes) -> None:
        """Note it."""
        with self._lock:
            if update in self._changes:
                origin, change = self._changes[update]
                self._changes[update] = replace(origin, accepted=True), change

    def settle(self, update: bytes, *, added: bool) -> None:
        """Add it or drop it."""
        with self._lock:
            origin, change = self._changes.pop(update, (None, {}))
            if origin is not None and added:
                self._keepsake = self._keepsake.plus(origin.run, update, change)


class DiskKeepsakes:
    """Keepsakes in a folder: for each update that moves the model, two files as long as the vectors are written."""

    def __init__(self, folder: Path) -> None:
        """Use `folder`, which is made if it is not there. Raises StoreError."""
        self._folder = make_folder(folder)
        self._path = folder / "keepsakes.npz"
        self._lock = threading.Lock()
        self._keepsake = _read(self._path) or Keepsake()
        paths = (path for path in folder.iterdir() if path.suffix in _SUFFIXES)
        self._changes = dict(sorted(map(_named, paths), key=lambda pair: pair[1].round))
        for update in self._keepsake.settled:
            self._drop(update)  # the device went out between adding it and removing this

    def kept(self, run: bytes) -> Vectors:
        """Return the run's vectors."""
        return self._keepsake.of(run)

    def put(self, origin: Origin, update: bytes, change: Vectors) -> None:
        """Write the change."""
        with self._lock:
            _write(self._change(origin, update), Keepsake(origin.run, change))
            self._changes[update] = origin
            for stale in list(self._changes)[:-MOST_WAITING]:
                self._drop(stale)

    def waiting(self) -> Mapping[bytes, Origin]:
        """Return the origins by update id."""
        return dict(self._changes)  # one step of the interpreter: no waiting for a disk that is being written

    def accept(self, update: bytes) -> None:
        """Give the change another name."""
        with self._lock:
            before = self._changes.get(update)
            if before is not None and not before.accepted:
                after = replace(before, accepted=True)
                rename(self._change(before, update), self._change(after, update))
                self._changes[update] = after

    def settle(self, update: bytes, *, added: bool) -> None:
        """Write the vectors with the change in them, then remove the change."""
        with self._lock:
            if added and update in self._changes:
                self._add(update)
            self._drop(update)

    def _add(self, update: bytes) -> None:
        change = _read(self._change(self._changes[update], update))
        if change is not None:
            keepsake = self._keepsake.plus(change.run, update, change.vectors)
            _write(self._path, keepsake)
            self._keepsake = keepsake

    def _drop(self, update: bytes) -> None:
        if update in self._changes:
            remove(self._change(self._changes[update], update))
            del self._changes[update]

    def _change(self, origin: Origin, update: bytes) -> Path:
        name = f"{origin.round}-{origin.model}-{origin.run.hex()}-{update.hex()}{_SUFFIXES[origin.accepted]}"
        return self._folder / name


def _sum(known: Vector | None, change: Vector) -> Vector:
    return change if known is None or known.shape != change.shape else known + change


def _write(path: Path, keepsake: Keepsake) -> None:
    arrays = {_VECTOR + name: vector for name, vector in keepsake.vectors.items()}
    with whole_file(path) as file:
        np.savez(file, run=_as_array(keepsake.run), settled=_as_array(b"".join(keepsake.settled)), **arrays)  # type: ignore[arg-type]


def _read(path: Path) -> Keepsake | None:
    """Return what the file holds; None where there is none, or it is damaged: the device then begins anew."""
    if not path.exists():
        return None
    with disk("read", path):
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
            return _keepsake(arrays)
        except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            log.error("%s is damaged (%s): what the device kept in it is lost, it begins anew", path, error)  # noqa: TRY400
            return None


def _keepsake(arrays: dict[str, np.ndarray]) -> Keepsake:
    run, settled = arrays.pop("run").tobytes(), arrays.pop("settled").tobytes()
    vectors = {name.removeprefix(_VECTOR): array.astype(np.float32) for name, array in arrays.items()}
    return Keepsake(run, vectors, tuple(settled[at : at + 8] for at in range(0, len(settled), 8)))


def _named(path: Path) -> tuple[bytes, Origin]:
    """Return the update and the origin that a change's file is named by."""
    try:
        round_, model, run, update = path.stem.split("-")
        origin = Origin(bytes.fromhex(run), int(round_), int(model), path.suffix == _SUFFIXES[True])
        return bytes.fromhex(update), origin
    except ValueError:
        raise StoreError(f"{path} is no update's change: remove it from the folder") from None


def _as_array(content: bytes) -> np.ndarray:
    return np.frombuffer(content, dtype=np.uint8)
