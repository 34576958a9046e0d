"""The updates of closed rounds, kept where a federation says so, for replaying them under other rules.

A folder holds the federation as it was before the first kept round, and one file for each round that moved the model::

    start/checkpoint-b.npz  start/model.fedmq      model, rule's memory, counters; the layout
    round-0000000001.updates  …                    the accepted updates of one round

A round's file has the journal's form: the magic, an opening, then the pieces of the accepted updates in the bytes in
which they came over MQTT, device after device in the order of their names. The opening is msgpack: ``["fedmq-updates",
1, round, base, version, model, updates, present, task, settings, codecs]``. `base` and `version` are the model versions
before and after, `model` is the SHA-256 of the latter's float32 numbers, `updates` how many follow, `present` how many
devices were there; `task` is the encoded task, `settings` the federation's rule, encoding and algorithm in JSON;
`codecs`, which older files lack, are pairs of a round whose updates were still taken and the line of their codec. Each
file is written beside, synced and renamed, *before* the checkpoint that closes the round: so a crash may leave one file
too many, never one too few, and the next start takes it away.

Rounds are kept without gaps from the first one on, because each one moves the model that the one before it made. At
the limit of bytes keeping therefore stops; it does not drop the oldest.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import msgpack

from fedmq.errors import ConfigError, StoreError
from fedmq.store.checkpoint import CheckpointFolder
from fedmq.store.files import disk, make_folder, remove, sync_folder
from fedmq.store.journal import Journal, journal_opening, journal_pieces
from fedmq.store.modelfile import StoredModel, load_model, save_model

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from fedmq.store.checkpoint import State, Weights
    from fedmq.store.journal import Piece
    from fedmq.vectors import Layout

log = logging.getLogger(__name__)

UPDATES: Final = "updates"
"""Name of the archive in an aggregator's folder."""
MAGIC: Final = "fedmq-updates"
SUFFIX: Final = ".updates"
_FORMAT: Final = 1
_START: Final = "start"
_GROUP_BYTES: Final = 8 * 2**20
"""Bytes that are held in memory and synced together."""


@dataclass(frozen=True, slots=True)
class KeepUpdates:
    """``[store]``: what stays on the aggregator's disk when a round has closed.

    keep_updates: keep every accepted update, for `fedmq replay`. keep_bytes: most bytes that they take; at the limit,
    later rounds are not kept.
    """

    keep_updates: bool = False
    keep_bytes: int = 2**30

    def __post_init__(self) -> None:
        """Raise ConfigError for a limit that nothing fits in."""
        if self.keep_bytes < 1:
            raise ConfigError(f"keep_bytes is {self.keep_bytes}; it must be at least 1")


@dataclass(frozen=True, slots=True)
class KeptRound:
    """What a round's file says before the updates; see the module."""

    round: int
    base: int
    version: int
    model: bytes
    updates: int
    present: int
    task: bytes
    settings: str
    codecs: tuple[tuple[int, str], ...] = ()

    def encode(self) -> bytes:
        """Return the opening of the round's file."""
        return bytes(msgpack.packb([MAGIC, _FORMAT, *(getattr(self, name) for name in self.__slots__)]))

    @classmethod
    def decode(cls, opening: bytes) -> KeptRound | None:
        """Return what `encode` wrote; None for the opening of something else."""
        try:
            magic, version, *fields = msgpack.unpackb(opening, max_ext_len=0)
            if (magic, version) != (MAGIC, _FORMAT):
                return None
            kept = cls(*fields)
            return replace(kept, codecs=tuple((int(round_), str(line)) for round_, line in kept.codecs))
        except (ValueError, TypeError, msgpack.UnpackException):
            return None


class Archive:
    """One federation's kept updates, for writing. Every method blocks; one thread at a time."""

    def __init__(self, folder: Path, settings: str, most_bytes: int) -> None:
        """Use `folder`; `settings` is what each round's file says of the federation."""
        self.folder, self.settings, self.most_bytes = folder, settings, most_bytes
        self._version = 0
        self._bytes = 0

    def begin(self, state: State, layout: Layout, weights: Weights) -> None:
        """Go on with the archive that is there, or begin one with the federation as it stands.

        Rounds that the checkpoint does not know are taken away: they will be closed again. Raises StoreError where the
        folder holds another federation's updates.
        """
        start = self.folder / _START
        if not start.exists():
            self._write_start(start, state, layout, weights)
        found = read_archive(self.folder)
        if found.state.run != state.run:
            raise StoreError(
                f"{self.folder} holds another run's updates: move them away, or keep none of this run's"
            )
        for kept in found.rounds:
            if kept.version > weights.version:
                remove(self._path(kept.round))
        known = [kept.version for kept in found.rounds if kept.version <= weights.version]
        self._version = max(known, default=found.weights.version)
        self._bytes = sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())
        if self._version < weights.version:
            log.warning("%s", self._gap(weights.version))

    def keep(self, kept: KeptRound, pieces: Iterable[Piece]) -> bool:
        """Write one round's file, durable on return; say whether the round is kept.

        It is not where the limit is reached or a round before it was not kept. Raises StoreError; then it is not kept
        either.
        """
        if kept.base != self._version:
            return False
        path = self._path(kept.round)
        beside = path.with_name(path.name + ".new")
        size = self._write(beside, kept, pieces)
        if self._bytes + size > self.most_bytes:
            remove(beside)
            self._version = -1
            log.warning("round %d's updates and later ones are not kept: keep_bytes is reached", kept.round)
            return False
        with disk("write", path):
            beside.replace(path)
            sync_folder(path.parent)
        self._version, self._bytes = kept.version, self._bytes + size
        return True

    def _write(self, path: Path, kept: KeptRound, pieces: Iterable[Piece]) -> int:
        """Return the file's length, or one beyond the limit as soon as it would be longer."""
        journal = Journal.create(path, kept.encode())
        try:
            for group in _groups(pieces, _GROUP_BYTES):
                journal.append(group)
                if self._bytes + path.stat().st_size > self.most_bytes:
                    break
            return path.stat().st_size
        finally:
            journal.close()

    def _write_start(self, start: Path, state: State, layout: Layout, weights: Weights) -> None:
        beside = make_folder(start.with_name(f"{_START}.new"))
        CheckpointFolder(beside).save(state, weights)
        facts: dict[str, str | int | float] = {"run": state.run.hex(), "version": weights.version}
        save_model(beside / "model.fedmq", StoredModel(layout, weights.vector[: layout.size], facts))
        with disk("write", start):
            beside.replace(start)
            sync_folder(start.parent)

    def _path(self, round_: int) -> Path:
        return self.folder / _file_name(round_)

    def _gap(self, version: int) -> str:
        return (
            f"no more updates are kept: those in {self.folder} lead to model {self._version}, the model is at "
            f"{version}; move them away to begin anew"
        )


@dataclass(frozen=True)
class Recording:
    """An archive as it is read: the federation before the first kept round, and the rounds in order."""

    folder: Path
    state: State
    weights: Weights
    layout: Layout
    rounds: tuple[KeptRound, ...]

    def pieces(self, kept: KeptRound) -> Iterator[Piece]:
        """Yield the pieces of one round's updates, one at a time. Raises StoreError."""
        return journal_pieces(self.path(kept))

    def path(self, kept: KeptRound) -> Path:
        """Return where the round's file is."""
        return self.folder / _file_name(kept.round)

    @property
    def bytes(self) -> int:
        """How many bytes the kept rounds take."""
        return sum(path.stat().st_size for path in self.folder.glob(f"round-*{SUFFIX}"))


def read_archive(folder: Path) -> Recording:
    """Read an archive without changing it. Raises StoreError where there is none, or it has a gap or is damaged."""
    if not (folder / _START).is_dir():
        raise StoreError(
            f"{folder} holds no kept updates: run with --keep-updates, or keep_updates = true under [store]"
        )
    found = CheckpointFolder(folder / _START).load()
    if found is None:
        raise StoreError(f"{folder / _START} holds no checkpoint: restore it")
    state, weights = found
    names = (path for path in folder.iterdir() if re.fullmatch(rf"round-\d{{10}}\{SUFFIX}", path.name))
    rounds = tuple(map(_opening, sorted(names)))
    version = weights.version
    for kept in rounds:
        if kept.base != version:
            raise StoreError(
                f"{folder} lacks the updates between models {version} and {kept.base}: restore them"
            )
        version = kept.version
    return Recording(folder, state, weights, load_model(folder / _START / "model.fedmq").layout, rounds)


def _file_name(round_: int) -> str:
    return f"round-{round_:010d}{SUFFIX}"


def _opening(path: Path) -> KeptRound:
    kept = KeptRound.decode(journal_opening(path))
    if kept is None:
        raise StoreError(f"{path} holds no kept round of format {_FORMAT}: restore it")
    return kept


def _groups(pieces: Iterable[Piece], most_bytes: int) -> Iterator[list[Piece]]:
    group: list[Piece] = []
    size = 0
    for piece in pieces:
        group.append(piece)
        size += len(piece.payload)
        if size >= most_bytes:
            yield group
            group, size = [], 0
    if group:
        yield group
