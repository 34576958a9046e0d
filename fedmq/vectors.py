"""A model as one flat float32 vector, and the `Layout` that says what stands where in it.

Rules, codecs and the wire see vectors only. A trainer builds the layout from its framework's variables and converts
between the two; nothing else knows about frameworks.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedmq.errors import MisuseError

if TYPE_CHECKING:
    from collections.abc import Sequence

Vector: TypeAlias = NDArray[np.float32]
"""A model, or a difference of two, as one dimension of float32."""

Kind: TypeAlias = Literal["trainable", "statistic"]
Scope: TypeAlias = Literal["shared", "personal"]


@dataclass(frozen=True, slots=True)
class Variable:
    """One array of the model.

    `kind` tells a weight that an optimizer moves from a running statistic (batch norm's mean and variance), which is
    averaged and nothing else. A `personal` variable stays on its device and has no place in the vector.
    """

    name: str
    shape: tuple[int, ...]
    kind: Kind = "trainable"
    scope: Scope = "shared"

    def __post_init__(self) -> None:
        """Raise MisuseError for a name that would make two layouts look like one."""
        if not self.name.isprintable():
            raise MisuseError(
                f"variable name {self.name!r} holds control characters: name it in printable ones"
            )

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Layout:
    """The model's variables in the order in which the vector holds them."""

    variables: tuple[Variable, ...]

    @cached_property
    def shared(self) -> tuple[Variable, ...]:
        """The variables that travel, in vector order."""
        return tuple(variable for variable in self.variables if variable.scope == "shared")

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Numbers per shared variable, in vector order; codecs scale each of these blocks on its own."""
        return tuple(variable.size for variable in self.shared)

    @cached_property
    def size(self) -> int:
        """Length of the vector."""
        return sum(self.sizes)

    @cached_property
    def trainable(self) -> NDArray[np.bool_]:
        """Mask over the vector: True where an optimizer step may move the number."""
        kinds = [variable.kind == "trainable" for variable in self.shared]
        return np.repeat(np.asarray(kinds, dtype=np.bool_), self.sizes)

    @cached_property
    def trainable_spans(self) -> tuple[slice, ...]:
        """The longest runs of trainable numbers in the vector, in order."""
        edges = np.flatnonzero(np.diff(self.trainable, prepend=False, append=False))
        return tuple(slice(int(start), int(stop)) for start, stop in edges.reshape(-1, 2))

    @cached_property
    def digest(self) -> bytes:
        """Eight bytes that name this layout; two models with the same digest can be averaged.

        SHA-256, cut to eight bytes, over one UTF-8 line per shared variable: ``kind name dim,dim,…`` and a newline.
        """
        lines = (f"{v.kind} {v.name} {','.join(map(str, v.shape))}\n" for v in self.shared)
        return hashlib.sha256("".join(lines).encode()).digest()[:8]

    def pack(self, arrays: Sequence[NDArray[np.generic]]) -> Vector:
        """Return the vector that holds `arrays`, one per shared variable and of its shape.

        Raises MisuseError when the number of arrays or a shape is not the layout's.
        """
        found = tuple(tuple(array.shape) for array in arrays)
        wanted = tuple(variable.shape for variable in self.shared)
        if found != wanted:
            raise MisuseError(
                f"arrays have shapes {found}, the layout wants {wanted}: pass them in layout order"
            )
        vector = np.empty(self.size, dtype=np.float32)
        for block, array in zip(self._blocks(vector), arrays, strict=True):
            block[:] = np.asarray(array, dtype=np.float32).ravel()
        return vector

    def unpack(self, vector: Vector) -> list[NDArray[np.float32]]:
        """Return one array per shared variable, each a view into `vector`.

        Raises MisuseError when the vector's length is not the layout's.
        """
        if vector.shape != (self.size,):
            raise MisuseError(
                f"vector has shape {vector.shape}, the layout wants ({self.size},): was it made for another model?"
            )
        pairs = zip(self._blocks(vector), self.shared, strict=True)
        return [block.reshape(variable.shape) for block, variable in pairs]

    def _blocks(self, vector: Vector) -> list[Vector]:
        return split(vector, self.sizes)


def split(vector: Vector, sizes: Sequence[int]) -> list[Vector]:
    """Return views of `vector`, one per size, in order."""
    edges = np.cumsum((0, *sizes))
    return [vector[start:stop] for start, stop in pairwise(edges)]


def fingerprint(vector: Vector) -> bytes:
    """Return SHA-256 over the vector as little-endian float32: the same on every machine."""
    return hashlib.sha256(np.ascontiguousarray(vector, "<f4").data).digest()


def is_finite(vector: Vector) -> bool:
    """Tell whether no number is NaN or infinite; by the sum of squares, where that is finite, which is far faster."""
    with np.errstate(all="ignore"):
        squares = np.dot(vector, vector)
    return math.isfinite(squares) or bool(np.isfinite(vector).all())


def is_plain(data: bytes | memoryview, vector: Vector) -> bool:
    """Tell whether `data` is the vector as little-endian float32, bit for bit; much cheaper than `fingerprint`."""
    plain = np.ascontiguousarray(vector, "<f4").view(np.uint8)
    return len(data) == plain.size and np.array_equal(np.frombuffer(data, np.uint8), plain)
