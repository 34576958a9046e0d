"""The aggregator's checkpoint: model, rule's memory, frames, and how far the federation has come, in one file.

Two files take turns, so that a crash while one is written leaves the other; the one with the higher serial number
counts. A federation's folder holds::

    checkpoint-a.npz  checkpoint-b.npz    each a whole checkpoint
    round-a.journal   round-b.journal     the open round, and what the last one left

Each file is an ordinary ``.npz``: ``state`` and ``frames`` are msgpack as bytes, everything else is arrays by name.
``state`` is ``[2, state, names]``, with the names of all others.
"""

from __future__ import annotations

import errno
import zipfile
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import msgpack
import numpy as np

from fedmq.errors import MisuseError, StoreError
from fedmq.protocol.frames import Step
from fedmq.protocol.ledger import Ledger
from fedmq.protocol.messages import Verdict
from fedmq.protocol.progress import Opened, Progress
from fedmq.store.files import disk, make_folder, slot_file, sync_folder
from fedmq.store.journal import Journal, Piece, Spot
from fedmq.vectors import is_plain

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from fedmq.vectors import Vector

_FORMAT: Final = 2
_SLOTS: Final = "ab"
_MEMORY: Final = "memory/"

Verdicts = dict[int, dict[str, tuple[bytes, Verdict, str]]]


@dataclass(frozen=True, slots=True)
class State:
    """Everything that is not an array. `serial` counts the checkpoints, `epoch` the starts of the process."""

    run: bytes
    seed: bytes
    layout: bytes
    epoch: int = 0
    progress: Progress = field(default_factory=Progress)
    verdicts: Verdicts = field(default_factory=dict)
    serial: int = 0


@dataclass(frozen=True, slots=True)
class Encoded:
    """A frame in bytes: the encoded message, its digest, and for people the codec that it names."""

    step: Step
    codec: str
    body: bytes
    digest: bytes


@dataclass(frozen=True)
class Weights:
    """The arrays: the model, what the devices hold of it, the rule's memory, and the frames with their bytes.

    `digest` is the replica's. `frames` are those that stand: the key-frame, then the deltas in order, the last of them
    to `version`. `gone` are those that stood before and are to be taken down, with their lengths.
    """

    version: int
    vector: Vector
    replica: Vector
    memory: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    digest: bytes = b""
    frames: tuple[Encoded, ...] = ()
    gone: tuple[tuple[Step, int], ...] = ()


class CheckpointFolder:
    """One federation's folder on the aggregator's disk."""

    def __init__(self, folder: Path) -> None:
        """Use `folder`, which is made if it is not there. Raises StoreError."""
        self.folder = make_folder(folder)
        with disk("read", folder):
            sync_folder(folder)  # a process that was killed may have made files and not come to this
        self._serial = 0
        self._weights: Weights | None = None

    # --- checkpoints --------------------------------------------------------------------------------------------------

    def save(self, state: State, weights: Weights | None = None) -> None:
        """Write a checkpoint, with the arrays of the last one where none are given; durable on return.

        Raises StoreError; the last checkpoint counts then.
        """
        kept = weights or self._weights
        if kept is None:
            raise MisuseError("the first checkpoint needs weights")
        path = self._checkpoint_path(self._serial + 1)
        with slot_file(path) as file:
            np.savez(file, **_arrays(replace(state, serial=self._serial + 1), kept))
        self._serial += 1
        self._weights = kept

    def load(self) -> tuple[State, Weights] | None:
        """Return the newest checkpoint, None where there is none yet. Raises StoreError when none can be read."""
        paths = [path for path in map(self._checkpoint_path, (0, 1)) if path.exists()]
        found = [checkpoint for checkpoint in map(_read, paths) if checkpoint is not None]
        if not found:
            if paths:
                raise StoreError(
                    f"no checkpoint in {self.folder} can be read: restore the folder from a backup"
                )
            return None
        state, weights = max(found, key=lambda checkpoint: checkpoint[0].serial)
        self._serial, self._weights = state.serial, weights
        return state, weights

    def _checkpoint_path(self, serial: int) -> Path:
        return self.folder / f"checkpoint-{_SLOTS[serial % 2]}.npz"

    # --- journals -----------------------------------------------------------------------------------------------------

    def begin_journal(self, round_: int, opening: bytes) -> Journal:
        """Begin the journal of a round with its encoded task. Raises StoreError."""
        return Journal.create(self._journal_path(round_), opening)

    def journals(self) -> list[tuple[Journal, list[tuple[Piece, Spot]]]]:
        """Open every journal that holds anything, with its content. Raises StoreError."""
        found = (Journal.resume(self._journal_path(slot)) for slot in (0, 1))
        return [journal for journal in found if journal is not None]

    def _journal_path(self, round_: int) -> Path:
        return self.folder / f"round-{_SLOTS[round_ % 2]}.journal"


def ledger_of(state: State) -> Ledger:
    """Return a ledger that remembers the checkpoint's verdicts."""
    return Ledger(state.verdicts)


# --- to arrays and back -----------------------------------------------------------------------------------------------


def _arrays(state: State, weights: Weights) -> dict[str, Any]:
    replica = {} if weights.replica is weights.vector else {"replica": weights.replica}
    arrays = {
        "frames": _as_array(msgpack.packb(_chain(weights))),
        "version": np.asarray(weights.version),
        "vector": weights.vector,
        **replica,
        **{f"{_MEMORY}{name}": array for name, array in weights.memory.items()},
    }
    return {"state": _as_array(msgpack.packb([_FORMAT, _plain(state), [*arrays]])), **arrays}


def _read(path: Path) -> tuple[State, Weights] | None:
    """Return what the file holds; None where it was cut short or damaged. Raises StoreError where it cannot be read."""
    with disk("read", path):
        try:
            arrays = _sound_arrays(path)
            # Which arrays there are, zip's table at the end says too, but without a checksum; older files lack it here.
            form, plain, *names = msgpack.unpackb(arrays.pop("state").tobytes(), strict_map_key=False)
            if names and set(names[0]) != arrays.keys():
                return None
            if form == _FORMAT:
                return _state(plain), _weights(arrays)
        except OSError as error:
            if (
                error.errno != errno.EINVAL
            ):  # which it is where damage has made zipfile seek to before the beginning
                raise
            return None
        except Exception:  # noqa: BLE001 # over damage, zipfile, zlib and NumPy raise all sorts
            return None
    raise StoreError(
        f"{path} is of format {form}, this fedmq reads {_FORMAT}: go on with the fedmq that wrote it, or begin anew in "
        "another folder"
    )


def _sound_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays; every byte is checked first, as an array that claims to be short would hide the rest."""
    with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
        if (damaged := stored.zip.testzip()) is not None:
            raise zipfile.BadZipFile(damaged)
        return {name: stored[name] for name in stored.files}


def _weights(arrays: Mapping[str, NDArray[Any]]) -> Weights:
    memory = {name.removeprefix(_MEMORY): array for name, array in arrays.items() if name.startswith(_MEMORY)}
    vector = arrays["vector"]
    digest, rows, gone = msgpack.unpackb(arrays["frames"].tobytes())
    frames = tuple(
        Encoded(Step(*step), codec, body + _as_body(vector) if cut else body, seal)
        for step, codec, body, cut, seal in rows
    )
    return Weights(
        version=int(arrays["version"]),
        vector=vector,
        replica=arrays.get("replica", vector),
        memory=memory,
        digest=digest,
        frames=frames,
        gone=tuple((Step(*step), nbytes) for step, nbytes in gone),
    )


def _chain(weights: Weights) -> list[Any]:
    """Return the frames as plain data; where a body ends with the vector's own bytes, they are cut: they are there."""
    rows = [
        [_row(each.step), each.codec, *_without(each.body, weights.vector), each.digest]
        for each in weights.frames
    ]
    return [weights.digest, rows, [[_row(step), nbytes] for step, nbytes in weights.gone]]


def _without(body: bytes, vector: Vector) -> tuple[bytes, bool]:
    """Return `body` without the vector's bytes at its end, and whether they were there."""
    at = len(body) - vector.nbytes
    cut = at >= 0 and is_plain(memoryview(body)[at:], vector)
    return (body[:at] if cut else body), cut


def _as_body(vector: Vector) -> bytes:
    return vector.astype("<f4", copy=False).tobytes()


def _as_array(content: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(content, dtype=np.uint8)


def _row(step: Step) -> list[Any]:
    return [step.version, step.key]


def _plain(state: State) -> dict[str, Any]:
    verdicts = {
        round_: {device: [update, int(verdict), reason] for device, (update, verdict, reason) in row.items()}
        for round_, row in state.verdicts.items()
    }
    names = ("run", "seed", "layout", "epoch", "serial")
    plain = {name: getattr(state, name) for name in names}
    return {**plain, "progress": asdict(state.progress), "verdicts": verdicts}


def _state(plain: dict[str, Any]) -> State:
    verdicts = {
        round_: {
            device: (update, Verdict(verdict), reason) for device, (update, verdict, reason) in row.items()
        }
        for round_, row in plain.pop("verdicts").items()
    }
    return State(**{**plain, "progress": _progress(plain["progress"]), "verdicts": verdicts})


def _progress(plain: dict[str, Any]) -> Progress:
    recent = tuple(Opened(**row) for row in plain.pop("recent", ()))
    arrivals = tuple(plain.pop("arrivals", ()))
    return Progress(**plain, recent=recent, arrivals=arrivals)
