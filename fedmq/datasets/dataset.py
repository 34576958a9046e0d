"""What a loader returns: examples to train on, and held-out ones that no device trains on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedmq.errors import MisuseError

if TYPE_CHECKING:
    from collections.abc import Iterator

Integers: TypeAlias = NDArray[np.int64]
"""Labels, owners or row numbers: one dimension of int64."""


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Examples with labels, split into a part to train on and a held-out part.

    `x` is float32 of shape (examples, ...) and `y` int64 of shape (examples,), a position in `classes`.
    `owner` tells who made each example, as a position in `owners`; both are empty-handed (None and ()) where the
    source does not say. The three `_test` arrays are the same for the held-out part.

    Raises `MisuseError` when arrays that belong together differ in length.
    """

    x: NDArray[np.float32]
    y: Integers
    owner: Integers | None
    x_test: NDArray[np.float32]
    y_test: Integers
    owner_test: Integers | None
    classes: tuple[str, ...]
    owners: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Hold the arrays to one length on each side of the split."""
        for name, rows, wanted in self._lengths():
            if rows != wanted:
                raise MisuseError(
                    f"{name} has {rows} rows and there are {wanted} examples: build them together"
                )

    def _lengths(self) -> Iterator[tuple[str, int, int]]:
        yield "y", len(self.y), len(self.x)
        yield "y_test", len(self.y_test), len(self.x_test)
        if self.owner is not None:
            yield "owner", len(self.owner), len(self.x)
        if self.owner_test is not None:
            yield "owner_test", len(self.owner_test), len(self.x_test)
