"""Rows of float32 in a file without a name: what a reducer that needs every update keeps out of memory."""

from __future__ import annotations

import os
import tempfile
import weakref
from typing import IO, TYPE_CHECKING

import numpy as np

from fedmq.errors import StoreError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from fedmq.vectors import Vector

_ITEM = np.dtype(np.float32).itemsize


class Spool:
    """Rows of `size` float32 numbers in an unnamed file in `folder` (the system's own if None), gone with the object.

    The file is made with the first row. It is read by `pread`, not mapped: mapped pages count as the process's own
    memory once touched (a hundred rows of a million numbers: 400 MB), while what `pread` leaves in the page cache is
    the system's to drop. Reading moves no file position, so several threads may read at once, one may append meanwhile.
    """

    __slots__ = ("__weakref__", "_file", "_folder", "_size", "count")

    def __init__(self, size: int, folder: Path | None = None) -> None:
        self._size = size
        self._folder = folder
        self._file: IO[bytes] | None = None
        self.count = 0

    def append(self, row: Vector) -> int:
        """Write one row and return its index; raise StoreError, with the spool as it was, where the disk will not."""
        data = np.ascontiguousarray(row, np.float32).view(np.uint8).data
        try:
            descriptor, start = self._opened(), self.count * self._size * _ITEM
            while data:
                written = os.pwrite(descriptor, data, start)
                data, start = data[written:], start + written
        except OSError as error:
            raise StoreError(
                f"an update could not be put aside in {self._place} ({error.strerror}): "
                f"it takes {self._size * _ITEM / 1e6:.3g} MB there, make room or choose another folder"
            ) from error
        self.count += 1
        return self.count - 1

    def read(self, index: int, columns: slice, into: NDArray[np.float32]) -> None:
        """Fill `into`, contiguous, with the numbers of row `index` from ``columns.start`` to ``columns.stop``.

        Raises StoreError where the disk fails, or the file has been cut.
        """
        place = (index * self._size + columns.start) * _ITEM
        rest = into.view(np.uint8).data
        try:
            while rest:
                got = os.preadv(self._opened(), [rest], place)
                if not got:
                    raise StoreError(
                        f"the file of put-aside updates in {self._place} was cut: run the round again"
                    )
                rest, place = rest[got:], place + got
        except OSError as error:
            raise StoreError(
                f"a put-aside update cannot be read back from {self._place} ({error.strerror}): check that disk"
            ) from error

    @property
    def _place(self) -> str:
        return str(self._folder or tempfile.gettempdir())

    def _opened(self) -> int:
        """Return the file's descriptor; with its first use, make the file."""
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115 # closed by the finalizer
            weakref.finalize(self, self._file.close)
        return self._file.fileno()
