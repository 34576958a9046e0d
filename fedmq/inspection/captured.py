"""One update as a vector, from wherever a person has it: a run that kept its updates, a message, or an array."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fedmq.aggregator.keeping import kept_updates
from fedmq.aggregator.roundcodecs import RoundCodecs
from fedmq.codecs import parse
from fedmq.config.kept import read
from fedmq.errors import ConfigError, MessageError
from fedmq.protocol.messages import DELTA, Task, Update
from fedmq.protocol.seeds import update_seed
from fedmq.store.archive import SUFFIX, UPDATES, read_archive
from fedmq.store.files import disk
from fedmq.store.modelfile import load_model
from fedmq.wire.envelope import decode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fedmq.store.archive import KeptRound, Recording
    from fedmq.vectors import Vector


@dataclass(frozen=True, slots=True, eq=False)
class Captured:
    """One update: `vector` in blocks of `sizes`, `what` it is for people, and the `codec` that it has been through.

    `codec` is empty where the vector is as its device computed it.
    """

    vector: Vector
    sizes: tuple[int, ...]
    what: str
    codec: str = ""


def captured(path: Path, model: Path | None = None, came_as: str | None = None) -> Captured:
    """Return the update at `path`.

    That is a folder with kept updates or one round's file in it (the first update of the last round, or of that one), a
    NumPy array (``.npy``), or an encoded update message, such as an outbox holds. A message does not say its codec, nor
    an array its blocks: `came_as` is the codec's line, and the layout is that of the `model` file. Without one, an
    array is one block. Raises ConfigError, StoreError, or DecodeError.
    """
    if path.is_dir() or path.suffix == SUFFIX:
        return _kept(path)
    if not path.is_file():
        raise ConfigError(
            f"{path} does not exist: name a run that kept its updates, an update, or a .npy file"
        )
    sizes = None if model is None else load_model(model).layout.sizes
    return _array(path, sizes) if path.suffix == ".npy" else _message(path, sizes, came_as)


def _kept(path: Path) -> Captured:
    recording, kept = _round(path)
    federation = read(kept.settings)
    task = decode(kept.task, Task)
    codecs = RoundCodecs(task.codec)
    codecs.recall(dict(kept.codecs))
    codecs.open(task)
    update, answered = next(kept_updates(recording, kept))
    sizes = federation.algorithm.extend(recording.layout).sizes
    codec = codecs.of(answered)
    seed = update_seed(update.run, answered, update.update)
    vector = codec.decode(update.sections[DELTA], sizes, seed=seed)
    what = f"an update of round {answered}, from {recording.path(kept)}"
    return Captured(vector, sizes, what, "" if codec.exact else str(codec))


def _round(path: Path) -> tuple[Recording, KeptRound]:
    """Return the recording and its last round, or the one whose file `path` is."""
    if path.is_file():
        recording = read_archive(path.parent)
        found = [kept for kept in recording.rounds if recording.path(kept).name == path.name]
    else:
        places = (path / "aggregator" / UPDATES, path / UPDATES, path)
        recording = read_archive(next((place for place in places if (place / "start").is_dir()), places[1]))
        found = list(recording.rounds[-1:])
    if not found:
        raise ConfigError(f"{path} holds no update yet: wait until a round has moved the model")
    return recording, found[0]


def _array(path: Path, sizes: Sequence[int] | None) -> Captured:
    with disk("read", path):
        try:
            array = np.load(path, allow_pickle=False)
        except ValueError as error:
            raise ConfigError(f"{path} is no NumPy array: {error}") from None
    if array.ndim != 1 or array.dtype.kind != "f" or not array.size:
        raise ConfigError(f"{path} holds {array.dtype} of shape {array.shape}; one row of floats was wanted")
    vector = array.astype(np.float32)
    blocks = (vector.size,) if sizes is None else tuple(sizes)
    if sum(blocks) != vector.size:
        raise ConfigError(
            f"{path} holds {vector.size} numbers, the model {sum(blocks)}: name the model that it is of"
        )
    return Captured(vector, blocks, f"{path}")


def _message(path: Path, sizes: Sequence[int] | None, came_as: str | None) -> Captured:
    if sizes is None or came_as is None:
        raise ConfigError(
            f"{path} does not say of which model it is, nor in which codec: give --model and --came-as, or name the "
            "run that kept it"
        )
    with disk("read", path):
        body = path.read_bytes()
    try:
        update = decode(body, Update)
    except MessageError as error:
        raise ConfigError(f"{path} is no update: {error}") from None
    codec, blocks = parse(came_as), tuple(sizes)
    first = path.name.partition("-")[0]  # an outbox's files begin with their round
    seed = update_seed(update.run, int(first) if first.isdigit() else 0, update.update)
    if DELTA not in update.sections:
        raise ConfigError(f"{path} has no delta in it: it asks for a verdict")
    vector = codec.decode(update.sections[DELTA], blocks, seed=seed)
    return Captured(vector, blocks, f"{path}", "" if codec.exact else str(codec))
