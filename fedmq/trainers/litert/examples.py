"""A device's examples as a model file wants them: checked once, in the order and types of its inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fedmq.errors import ConfigError
from fedmq.trainers.shares import check_labels, share

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from fedmq.trainers.batches import Rows
    from fedmq.trainers.litert.file import Description, Port
    from fedmq.trainers.shares import Array, Nest


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """`parts` are the model's inputs and its target, `weights` one number for each of `rows` examples."""

    parts: tuple[Array, ...]
    weights: NDArray[np.float32]
    rows: int

    @classmethod
    def of(cls, given: object, description: Description, what: str) -> Examples:
        """Check what a user gave: (x, y) or (x, y, sample weights). Raises ConfigError where it does not fit."""
        if not isinstance(given, tuple) or not 2 <= len(given) <= 3:  # noqa: PLR2004  # x, y, weights
            raise ConfigError(
                f"{what} is a {type(given).__name__} where (x, y) was wanted: LiteRT trains on arrays, return two"
            )
        found = share(given, what)
        x, y, *rest = found.parts
        if isinstance(y, Mapping | tuple):
            raise ConfigError(f"{what} has several targets: LiteRT trains on one")
        if description.classes is not None:
            check_labels(y.reshape(-1), description.classes, what)
        parts = (*_inputs(x, description.x, what), _fit(y, description.y, what))
        return cls(parts, _weights(rest, found.rows, what), found.rows)

    def picked(self, rows: Rows) -> Examples:
        """Return these of them."""
        return Examples(tuple(part[rows] for part in self.parts), self.weights[rows], len(rows))

    def batches(self, size: int) -> Iterator[Rows]:
        """Yield the numbers of all rows, in order, `size` at a time."""
        for begin in range(0, self.rows, size):
            yield np.arange(begin, min(begin + size, self.rows))


def paths(nest: Nest, name: str = "x") -> Iterator[tuple[str, Array]]:
    """Yield a nest's arrays, each with a name of its own: ``x``, or ``x/left``, ``x/0`` and so on."""
    if isinstance(nest, Mapping):
        for key in sorted(nest):
            yield from paths(nest[key], f"{name}/{key}")
    elif isinstance(nest, tuple):
        for place, part in enumerate(nest):
            yield from paths(part, f"{name}/{place}")
    else:
        yield name, nest


def _inputs(x: Nest, ports: Sequence[Port], what: str) -> list[Array]:
    found, wanted = dict(paths(x)), [port.name for port in ports]
    if sorted(found) != sorted(wanted):
        raise ConfigError(
            f"{what} has inputs {', '.join(found)}, the model takes {', '.join(wanted)}: change one or the other"
        )
    return [_fit(found[port.name], port, what) for port in ports]


def _fit(array: Array, port: Port, what: str) -> Array:
    """Return `array` in the shape and type of its port; a last axis of one may be missing or too many, as for Keras."""
    if array[0].size != int(np.prod(port.shape)) or _plain(array.shape[1:]) != _plain(port.shape):
        raise ConfigError(
            f"{what} has examples of shape {array.shape[1:]} for {port.name}, the model takes {port.shape}: "
            "change one or the other"
        )
    wanted = np.dtype(port.dtype)
    if wanted.kind in "iu" and array.dtype.kind == "f":
        raise ConfigError(
            f"{what} has fractions for {port.name}, the model takes {port.dtype}: give whole numbers"
        )
    return np.ascontiguousarray(array.reshape(len(array), *port.shape), wanted)


def _plain(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(shape[:-1]) if len(shape) and shape[-1] == 1 else tuple(shape)


def _weights(rest: Sequence[Nest], rows: int, what: str) -> NDArray[np.float32]:
    if not rest:
        return np.ones(rows, np.float32)
    (weights,) = rest
    if isinstance(weights, Mapping | tuple) or weights.size != rows:
        raise ConfigError(
            f"{what} has sample weights that are not one number for each example: give it those"
        )
    return np.ascontiguousarray(weights.reshape(rows), np.float32)
