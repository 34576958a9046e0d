"""Faults planted in the files, and in how aggregator and device go about them; and those of the simulated worlds.

Each is put in from outside, for as long as it is hunted: nothing of it is in the source. What a method of the real
thing does is repeated here without the line that matters, or with two of them changed about.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final
from unittest.mock import patch

import fedmq.store.checkpoint
import fedmq.store.files
import fedmq.store.journal
from fedmq.aggregator.aggregator import Aggregator
from fedmq.aggregator.books import Books
from fedmq.device.keepsakes import _Shelf
from fedmq.device.kept import Change
from fedmq.device.sending import Sending
from fedmq.protocol.coordinator import Coordinator
from fedmq.protocol.messages import Verdict
from fedmq.store.checkpoint import CheckpointFolder
from fedmq.store.journal import Journal
from fedmq.testing.violation import Violation
from fedmq.testing.world import World
from tests.chaos.powercut import Plan, cut_off
from tests.chaos.row import Mutant
from tests.scenarios import async_mutants
from tests.scenarios import mutants as round_mutants

if TYPE_CHECKING:
    from pathlib import Path

    from fedmq.aggregator.publication import Publication
    from fedmq.protocol import coordination as co
    from fedmq.protocol import participation as pa
    from fedmq.protocol.ledger import Entry
    from fedmq.store.checkpoint import State, Weights
    from fedmq.testing.world import Parts
    from fedmq.transport.interface import Connection

PLAN: Final = Plan(looks=250, lives=0, device_looks=200, again=0)
LIVING: Final = Plan(looks=0, lives=40, device_looks=0, again=40)
WORLDS: Final = 300
"""How many of the simulated worlds may not mind a fault before it counts as not found."""


# --- power cuts: what the disk is asked for ---------------------------------------------------------------------------


class _SomeOf:
    """The module `os`, of which some functions do nothing."""

    def __init__(self, **stand_ins: Callable[..., object]) -> None:
        self._stand_ins = stand_ins

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return self._stand_ins.get(name) or getattr(os, name)


def _without(module: ModuleType, **stand_ins: Callable[..., object]) -> AbstractContextManager[object]:
    return patch.object(module, "os", _SomeOf(**stand_ins))


def _synchronous_off() -> AbstractContextManager[object]:
    return _without(fedmq.store.journal, fdatasync=lambda _: None)


def _whole_files_unsynced() -> AbstractContextManager[object]:
    def fsync(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            os.fsync(handle)

    return _without(fedmq.store.files, fsync=fsync)


def _folders_unsynced() -> AbstractContextManager[object]:
    def fsync(handle: int) -> None:
        if not stat.S_ISDIR(os.fstat(handle).st_mode):
            os.fsync(handle)

    return _without(fedmq.store.files, fsync=fsync)


@contextmanager
def _new_folders_unsynced() -> Iterator[None]:
    """What fedmq 0.1 did."""

    def make_folder(path: Path) -> Path:
        path.mkdir(parents=True, exist_ok=True)
        return path

    with (
        patch.object(fedmq.store.checkpoint, "make_folder", make_folder),
        patch("fedmq.device.outbox.make_folder", make_folder),
    ):
        yield


@contextmanager
def _first_checkpoint_in_place() -> Iterator[None]:
    """What fedmq 0.1 did."""

    @contextmanager
    def slot_file(path: Path) -> Iterator[Any]:
        with path.open("r+b" if path.exists() else "wb") as file:
            yield file
            file.truncate()
            file.flush()
            os.fsync(file.fileno())
        fedmq.store.files.sync_folder(path.parent)

    with patch.object(fedmq.store.checkpoint, "slot_file", slot_file):
        yield


@contextmanager
def _one_slot_for_all() -> Iterator[None]:
    """Writes each checkpoint over the one before it."""

    def path_of(self: CheckpointFolder, serial: int) -> Path:
        return self.folder / "checkpoint-a.npz"

    with patch.object(CheckpointFolder, "_checkpoint_path", path_of):
        yield


@contextmanager
def _torn_tail_stays() -> Iterator[None]:
    """Goes on behind what a cut has left half written."""
    resume = Journal.resume.__func__  # type: ignore[attr-defined]

    def resume_behind(cls: type[Journal], path: Path) -> Any:  # noqa: ANN401
        with _without(fedmq.store.journal, ftruncate=lambda *_: None):
            found = resume(cls, path)
        if found is not None:
            found[0]._end = path.stat().st_size
        return found

    with patch.object(Journal, "resume", classmethod(resume_behind)):
        yield


@contextmanager
def _empty_records() -> Iterator[None]:
    """Takes eight zeros for a record, as fedmq 0.1 did."""
    scan = fedmq.store.journal._scan

    def scan_on(handle: int) -> Iterator[Any]:
        end = len(fedmq.store.journal.MAGIC)
        for spot in scan(handle):
            end = spot.start + spot.length
            yield spot
        size = os.fstat(handle).st_size
        while end + 8 <= size and os.pread(handle, 8, end) == bytes(8):
            end += 8
            yield fedmq.store.journal.Spot(end, 0)

    with patch.object(fedmq.store.journal, "_scan", scan_on):
        yield


# --- power cuts: in which order things are done -----------------------------------------------------------------------


@contextmanager
def _receipt_before_commit() -> Iterator[None]:
    """Thanks for an update before it lies in the journal."""
    welcome = Coordinator._welcome

    def welcome_and_thank(self: Coordinator, event: co.Offered, entry: Entry | None) -> None:
        welcome(self, event, entry)
        self._reply(event.device, event.round, event.update, Verdict.ACCEPTED, "")

    with patch.object(Coordinator, "_welcome", welcome_and_thank):
        yield


@contextmanager
def _journal_emptied_first() -> Iterator[None]:
    """Empties the journal, and then writes the checkpoint that its round is counted in."""
    save = Books.save

    async def empty_and_save(self: Books, state: State, weights: Weights | None = None) -> None:
        if weights is not None:
            await self.retire_journal()
            await self.empty_journals()
        await save(self, state, weights)

    with patch.object(Books, "save", empty_and_save):
        yield


@contextmanager
def _published_first() -> Iterator[None]:
    """Names the new model to the world, and then writes the checkpoint that it is in."""
    finish, save = Aggregator._finish, Books.save
    publications: dict[Books, Publication] = {}

    async def finish_and_note(self: Aggregator, effect: co.Finish) -> None:
        publications[self._books] = self._publication
        await finish(self, effect)

    async def publish_and_save(self: Books, state: State, weights: Weights | None = None) -> None:
        if weights is not None:
            await publications[self].put_manifest()
        await save(self, state, weights)

    with patch.object(Aggregator, "_finish", finish_and_note), patch.object(Books, "save", publish_and_save):
        yield


@contextmanager
def _older_checkpoint() -> Iterator[None]:
    """Goes on from the older of the two checkpoints."""
    with patch.object(fedmq.store.checkpoint, "max", min, create=True):
        yield


@contextmanager
def _outbox_forgets_on_send() -> Iterator[None]:
    """Takes an update out of the outbox as soon as the broker has it."""
    send = Sending.send

    async def send_and_forget(self: Sending, connection: Connection, effect: pa.Send) -> None:
        await send(self, connection, effect)
        self._outbox.forget(effect.update)

    with patch.object(Sending, "send", send_and_forget):
        yield


@contextmanager
def _residual_first() -> Iterator[None]:
    """Writes the residual, and then what comes back where the update does not count."""

    def put(self: _Shelf, origin: Any, update: bytes, change: Any, residual: Any = None) -> None:  # noqa: ANN401
        with self._lock:
            if residual is not None:
                self._write(self._keepsake.sending(origin, update, residual, self._known()))
            self._write_change(origin, update, Change(change, None if residual is None else residual.back))
            self._changes[update] = origin
            for known in self._taken(origin.run, residual):
                self._drop(known)

    with patch.object(_Shelf, "put", put):
        yield


def _cut(plan: Plan, plant: Callable[[], AbstractContextManager[object]], seed: int) -> str:
    """Plant a fault, cut the power as planned, and return the first thing that was lost."""
    with plant():
        try:
            seen = cut_off(plan, seed)
        except TimeoutError:
            return "no power cut was needed: the federation comes to a stop"
    share = f"{len(seen.lost)} of {seen.counts.total()} cuts"
    return f"{share}, the first: {seen.lost[0]}" if seen.lost else ""


POWER: Final[dict[str, tuple[str, Callable[[], AbstractContextManager[object]], Plan]]] = {
    "synchronous_off": ("the journal is not synced", _synchronous_off, PLAN),
    "whole_files_unsynced": ("files are renamed without being synced", _whole_files_unsynced, PLAN),
    "folders_unsynced": ("names are not synced", _folders_unsynced, PLAN),
    "new_folders_unsynced": ("a new folder's own name is not synced", _new_folders_unsynced, PLAN),
    "first_checkpoint_in_place": (
        "the first checkpoint is written in place",
        _first_checkpoint_in_place,
        PLAN,
    ),
    "one_slot_for_all": ("each checkpoint is written over the last", _one_slot_for_all, PLAN),
    "receipt_before_commit": ("receipts go out before the journal is written", _receipt_before_commit, PLAN),
    "journal_emptied_first": ("the journal is emptied before the checkpoint", _journal_emptied_first, PLAN),
    "published_first": ("the model is named before its checkpoint is written", _published_first, PLAN),
    "version_goes_back": ("a start takes the older checkpoint", _older_checkpoint, PLAN),
    "outbox_forgets_on_send": ("an update leaves the outbox when it is sent", _outbox_forgets_on_send, PLAN),
    "residual_committed_early": ("the residual is written before its counterpart", _residual_first, PLAN),
    "empty_records": ("zeros at a journal's end are records", _empty_records, LIVING),
    "torn_tail_stays": ("a torn tail is not cut off", _torn_tail_stays, LIVING),
}


# --- simulated worlds -------------------------------------------------------------------------------------------------


def _live(name: str, parts: Parts, settings: dict[str, Any], asynchronous: bool, seed: int) -> str:  # noqa: FBT001
    """Return what the first world says that goes wrong with these parts."""
    for world in range(seed * WORLDS, (seed + 1) * WORLDS):
        try:
            World(world, setting=settings.get(name), parts=parts, asynchronous=asynchronous).run()
        except Violation as found:
            sentence = str(found).partition("\n")[0]
            return f"world {world - seed * WORLDS + 1} of {WORLDS}: {sentence}"
    return ""


def _doc(parts: Parts) -> str:
    """Return the sentence of the planted class."""
    default = type(parts)()
    planted = [
        getattr(parts, slot) for slot in parts.__slots__ if getattr(parts, slot) != getattr(default, slot)
    ]
    return " ".join((planted[0].__doc__ or "").split()).rstrip(".")


def _worlds(planted: dict[str, Parts], settings: dict[str, Any], *, asynchronous: bool) -> Iterator[Mutant]:
    for name, parts in planted.items():
        yield Mutant(name, _doc(parts), "simulation", partial(_live, name, parts, settings, asynchronous))


MUTANTS: Final = (
    *(
        Mutant(f"power_{name}", said, "powercut", partial(_cut, plan, plant))
        for name, (said, plant, plan) in POWER.items()
    ),
    *_worlds({**round_mutants.SAFETY, **round_mutants.LIVENESS}, round_mutants.SETTINGS, asynchronous=False),
    *_worlds(async_mutants.MUTANTS, async_mutants.SETTINGS, asynchronous=True),
)
