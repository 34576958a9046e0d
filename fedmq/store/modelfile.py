"""A model on disk: layout and vector in one file, readable without any framework.

The file is msgpack: ``["fedmq-model", 1, facts, [[name, shape, kind, scope], …], sha256, little-endian float32]``.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgpack
import numpy as np

from fedmq.errors import StoreError
from fedmq.store.files import disk, write_whole
from fedmq.vectors import Layout, Variable, Vector

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MAGIC: Final = "fedmq-model"
_FORMAT: Final = 1
_MOST_BYTES: Final = 2**31


@dataclass(frozen=True)
class StoredModel:
    """What a model file holds; `facts` say where it comes from (federation, version, …)."""

    layout: Layout
    vector: Vector
    facts: Mapping[str, str | int | float] = field(default_factory=dict)


def save_model(path: Path, model: StoredModel) -> None:
    """Write the file, whole or not at all. Raises StoreError."""
    rows = [[v.name, list(v.shape), v.kind, v.scope] for v in model.layout.variables]
    data = model.vector.astype("<f4", copy=False).tobytes()
    digest = hashlib.sha256(data).digest()
    write_whole(path, msgpack.packb([MAGIC, _FORMAT, dict(model.facts), rows, digest, data]))


def load_model(path: Path) -> StoredModel:
    """Read the file. Raises StoreError when it is missing, damaged, or no model file."""
    with disk("read", path):
        if path.stat().st_size > _MOST_BYTES:
            raise StoreError(f"{path} is larger than a model file can be")
        content = path.read_bytes()
    try:
        magic, version, facts, rows, digest, data = msgpack.unpackb(content, max_ext_len=0)
    except (ValueError, TypeError, msgpack.UnpackException):
        raise StoreError(f"{path} is not a fedmq model file: make one with `fedmq init`") from None
    if magic != MAGIC or version != _FORMAT:
        raise StoreError(f"{path} is not a fedmq model file of format {_FORMAT}: make one with `fedmq init`")
    if hashlib.sha256(data).digest() != digest:
        raise StoreError(
            f"{path} is damaged: its content does not match its checksum; restore it or make a new one"
        )
    return _checked(path, _layout(rows), np.frombuffer(data, dtype="<f4").astype(np.float32), facts)


def _layout(rows: list[list[Any]]) -> Layout:
    return Layout(tuple(Variable(name, tuple(shape), kind, scope) for name, shape, kind, scope in rows))


def _checked(path: Path, layout: Layout, vector: Vector, facts: dict[str, str | int | float]) -> StoredModel:
    if vector.shape != (layout.size,):
        raise StoreError(
            f"{path} holds {vector.size} values for a layout of {layout.size}: it is damaged, restore it"
        )
    return StoredModel(layout, vector, facts)
