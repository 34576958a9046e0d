"""The weights of a device's personal layers: kept in memory and, where a file is named, over restarts."""

from __future__ import annotations

import os
import zipfile
from pathlib import PurePath
from typing import TYPE_CHECKING

import numpy as np

from fedmq.errors import ConfigError, StoreError
from fedmq.vectors import Layout, Vector

if TYPE_CHECKING:
    from pathlib import Path


def file_for(folder: Path, device: str) -> Path:
    """Return the file in `folder` that a device's personal weights are kept in. Raises ConfigError."""
    if PurePath(device).name != device:
        raise ConfigError(
            f"device name {device!r} cannot name a file for personal weights: use one without slashes"
        )
    return folder / f"{device}.npz"


class Personal:
    """One device's personal weights, as a flat vector that begins as the user's code made it.

    `path` names an ``.npz`` file that is read at the start, and written anew (never half) after every training.
    Raises ConfigError when the file belongs to another model.
    """

    def __init__(self, layout: Layout, initial: Vector, path: Path | None) -> None:
        own = (variable for variable in layout.variables if variable.scope == "personal")
        self._names = np.asarray([f"{variable.name} {variable.shape}" for variable in own], dtype=np.str_)
        self._path = path
        self.vector = initial if path is None or not path.exists() else self._read(path)

    def replace(self, vector: Vector) -> None:
        """Keep newly trained weights, unless they diverged: nobody else would see those and mend them.

        Raises StoreError when the file cannot be written.
        """
        if vector.size and np.isfinite(vector).all():
            self.vector = vector
            self._write()

    def _read(self, path: Path) -> Vector:
        try:
            with np.load(path, allow_pickle=False) as file:
                names, vector = file["names"], file["vector"]
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise ConfigError(
                f"{path} holds no personal weights that can be read: move it away to start anew"
            ) from error
        if not np.array_equal(names, self._names):
            raise ConfigError(f"{path} holds personal weights of another model: move it away to start anew")
        return np.asarray(vector, dtype=np.float32)

    def _write(self) -> None:
        if self._path is None:
            return
        draft = self._path.with_suffix(".part")
        try:
            with draft.open("wb") as file:
                np.savez(file, names=self._names, vector=self.vector)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self._path)
        except OSError as error:
            raise StoreError(
                f"personal weights cannot be written to {self._path} ({error}): free the disk"
            ) from error
