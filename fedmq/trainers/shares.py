"""A device's examples: one array, or several by name or position, and what must hold of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedmq.errors import ConfigError

Array: TypeAlias = NDArray[np.generic]
Nest: TypeAlias = "Array | Mapping[str, Nest] | tuple[Nest, ...]"
"""One array, or more of them in dictionaries and tuples, as a model with several inputs takes them."""
Examples: TypeAlias = "ArrayLike | Mapping[str, Examples] | Sequence[Examples]"
"""What users may pass where a `Nest` is meant."""


@dataclass(frozen=True, slots=True, eq=False)
class Share:
    """Examples of one device: `parts` is (x,), (x, y) or (x, y, weights), each with `rows` rows."""

    parts: tuple[Nest, ...]
    rows: int


def share(data: Sequence[Examples | None], what: str) -> Share:
    """Return `data`, which is x or (x, y) or (x, y, sample weights), as arrays; floats become float32.

    Parts that are None are left out. `what` names the data in errors ("the training data"). Raises ConfigError when
    the parts differ in rows, hold none, or hold what no array can.
    """
    parts = tuple(_arrays(part, what) for part in data if part is not None)
    rows = {_rows(leaf, what) for leaf in leaves(parts)}
    if len(rows) != 1:
        raise ConfigError(f"{what} has parts of {sorted(rows)} rows: give every example an input and a label")
    if rows == {0}:
        raise ConfigError(f"{what} is empty: give it at least one example")
    return Share(parts, rows.pop())


def leaves(nest: Nest) -> list[Array]:
    """Return the arrays of a nest, in order of position and of name."""
    found: list[Array] = []
    map_arrays(found.append, nest)
    return found


def map_arrays(function: Callable[[Array], object], nest: Nest) -> object:
    """Return the nest with `function` applied to each of its arrays."""
    if isinstance(nest, Mapping):
        return {name: map_arrays(function, nest[name]) for name in sorted(nest)}
    if isinstance(nest, tuple):
        return tuple(map_arrays(function, part) for part in nest)
    return function(nest)


def check_labels(labels: Array, classes: int, what: str) -> None:
    """Raise ConfigError unless `labels` are whole numbers from 0 to `classes` - 1."""
    if not np.issubdtype(labels.dtype, np.integer):
        raise ConfigError(
            f"{what} has labels of type {labels.dtype}: give each example the number of its class"
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise ConfigError(
            f"{what} has labels from {low} to {high}, the model tells {classes} classes apart: "
            f"number them from 0 to {classes - 1}"
        )


def _arrays(part: Examples, what: str) -> Nest:
    if isinstance(part, Mapping):
        return {str(name): _arrays(value, what) for name, value in part.items()}
    if isinstance(part, tuple):
        return tuple(_arrays(value, what) for value in part)
    array = np.asarray(part)
    if array.dtype == np.object_:
        raise ConfigError(
            f"{what} holds something that is no array of numbers: are its rows of different lengths?"
        )
    return array.astype(np.float32, copy=False) if np.issubdtype(array.dtype, np.floating) else array


def _rows(array: Array, what: str) -> int:
    if array.ndim == 0:
        raise ConfigError(
            f"{what} holds a single number where rows were wanted: give it one row for each example"
        )
    return len(array)
