"""Layers of convolutional networks, each of several devices at once: forward, and slopes back.

A convolution and the pooling behind it are one product here. For pools of p x p, a pooled place looks at k + p - 1 rows
and columns of the image, p * p times through a window of k x k: so patches are cut for pooled places only, and the
kernel is laid p * p times into one that is as wide as they are. Patches are a p-th as many as there would be windows,
answers of one window's place ("phase") lie side by side, and the largest of them is that of whole arrays.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
from numpy.lib.stride_tricks import as_strided

from fedmq.engines.numpy.stacks import ROOM

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fedmq.engines.numpy.stacks import Stack

Pair: TypeAlias = tuple[int, int]
"""Of rows, and of columns."""
Shape: TypeAlias = tuple[int, ...]


class Layer(Protocol):
    """A layer with a kernel and a bias for each device; what goes through is of shape (devices, batch, ...)."""

    def forward(self, x: Stack, kernel: Stack, bias: Stack) -> Stack:
        """Return the outputs."""

    def backward(self, back: Stack, kernel: Stack, slopes: tuple[Stack, Stack], *, last: bool) -> Stack:
        """Write slopes of kernel and bias, given those of the last outputs; return those of the inputs.

        `last` says that nobody will look at the latter.
        """


@dataclass(frozen=True, slots=True)
class DenseSizes:
    """What a dense layer is: `relu` or not, and so many outputs."""

    outputs: int
    relu: bool


@dataclass(frozen=True, slots=True)
class ConvolutionSizes:
    """What a convolution is, with the pooling behind it: ``(1, 1)`` where there is none."""

    kernel: Pair
    filters: int
    same: bool
    relu: bool
    pool: Pair = (1, 1)


class Dense:
    """Outputs are products of all inputs, as numbers in a row."""

    def __init__(self, sizes: DenseSizes) -> None:
        self._relu = sizes.relu

    def forward(self, x: Stack, kernel: Stack, bias: Stack) -> Stack:
        """See `Layer`."""
        self._shape, self._x = x.shape, x.reshape(*x.shape[:2], -1)
        self._outputs = self._x @ kernel
        self._outputs += bias[:, None]
        if self._relu:
            np.maximum(self._outputs, 0, out=self._outputs)
        return self._outputs

    def backward(self, back: Stack, kernel: Stack, slopes: tuple[Stack, Stack], *, last: bool) -> Stack:
        """See `Layer`."""
        if self._relu:
            back *= self._outputs > 0
        np.matmul(self._x.transpose(0, 2, 1), back, out=slopes[0])
        back.sum(axis=1, out=slopes[1])
        return back if last else (back @ kernel.transpose(0, 2, 1)).reshape(self._shape)


class Convolution:
    """Windows over images of shape (rows, columns, channels), steps of one, and the largest of each pool."""

    def __init__(self, sizes: ConvolutionSizes, image: Shape, place: int = 0) -> None:
        self._sizes = sizes
        self._name = (
            f"convolution {place}"  # of what lasts from forward to backward: the rest is shared by all layers
        )
        rows, columns, self._channels = image
        padding = [(size - 1) * sizes.same for size in sizes.kernel]
        self._begin = tuple(extra // 2 for extra in padding)
        windows = [
            n + extra - size + 1
            for n, extra, size in zip((rows, columns), padding, sizes.kernel, strict=True)
        ]
        self.counts = tuple(n // pool for n, pool in zip(windows, sizes.pool, strict=True))
        # patches as whole numbers of pools: they are put together, and taken apart, in blocks of a pool
        self._blocks = tuple(-(-(k + p - 1) // p) for k, p in zip(sizes.kernel, sizes.pool, strict=True))
        self._room = tuple(
            (n + blocks - 1) * pool
            for n, blocks, pool in zip(self.counts, self._blocks, sizes.pool, strict=True)
        )
        self._image = (rows, columns)

    @property
    def outputs(self) -> Shape:
        """Rows, columns and channels of what it gives."""
        return (*self.counts, self._sizes.filters)

    def forward(self, x: Stack, kernel: Stack, bias: Stack) -> Stack:
        """See `Layer`."""
        self._patches = patches = self._cut(x)
        devices, places, _ = patches.shape
        high, wide = self._sizes.pool
        phases = ROOM.take("phases", (devices, high * wide, self._sizes.filters, places))
        answers = phases.reshape(devices, -1, places)
        np.matmul(self._laid(kernel), patches.transpose(0, 2, 1), out=answers)
        best = self._outputs = ROOM.take(f"{self._name} outputs", (devices, self._sizes.filters, places))
        self._later = ROOM.flags(f"{self._name} later", (high * wide - 1, *best.shape))
        best[...] = phases[:, 0]
        for place, later in enumerate(self._later, 1):
            np.greater(phases[:, place], best, out=later)  # of equal values the first counts, as everywhere
            np.maximum(best, phases[:, place], out=best)
        best += bias[:, :, None]
        if self._sizes.relu:
            np.maximum(best, 0, out=best)
        given = ROOM.take(f"{self._name} given", (devices, places, self._sizes.filters))
        given[...] = best.transpose(0, 2, 1)
        return given.reshape(*x.shape[:2], *self.outputs)

    def backward(self, back: Stack, kernel: Stack, slopes: tuple[Stack, Stack], *, last: bool) -> Stack:
        """See `Layer`."""
        devices, batch = back.shape[:2]
        rest = ROOM.take("rest", self._outputs.shape)
        rest[...] = back.reshape(devices, -1, self._sizes.filters).transpose(0, 2, 1)
        if self._sizes.relu:
            rest *= np.greater(self._outputs, 0, out=ROOM.flags("alive", rest.shape))
        rest.sum(axis=2, out=slopes[1])
        spread = self._spread(rest)
        slopes[0][...] = self._gathered(spread @ self._patches)
        if last:
            return back
        parts = ROOM.take("parts", self._patches.shape)
        np.matmul(spread.transpose(0, 2, 1), self._laid(kernel), out=parts)
        return self._joined(parts.reshape(devices, batch, *self.counts, -1))

    def _cut(self, x: Stack) -> Stack:
        """Return the patch that each pooled place looks at, of shape (devices, places, numbers)."""
        room = self._roomy(x)
        device, example, row, column, number = room.strides
        pool, blocks = self._sizes.pool, self._blocks
        shape = (*x.shape[:2], *self.counts, blocks[0] * pool[0], blocks[1] * pool[1] * self._channels)
        strides = (device, example, row * pool[0], column * pool[1], row, number)
        patches = ROOM.take(f"{self._name} patches", shape)
        run = f"V{4 * shape[-1]}"  # copied in one piece, not number by number: runs are short
        patches.view(run)[...] = as_strided(room, shape, strides, writeable=False).view(run)
        return patches.reshape(len(x), -1, shape[4] * shape[5])

    def _roomy(self, x: Stack) -> Stack:
        """Return the images with zeros around them, as far as patches reach."""
        if self._begin == (0, 0) and all(n >= room for n, room in zip(x.shape[2:4], self._room, strict=True)):
            return np.ascontiguousarray(x)
        room = np.zeros((*x.shape[:2], *self._room, self._channels), np.float32)
        inside = room[:, :, self._begin[0] :, self._begin[1] :]
        inside = inside[:, :, : x.shape[2], : x.shape[3]]
        inside[...] = x[:, :, : inside.shape[2], : inside.shape[3]]
        return room

    def _joined(self, parts: Stack) -> Stack:
        """Return the sums, for each number of an image, over all patches that hold it."""
        (high, wide), blocks = self._sizes.pool, self._blocks
        devices, batch, rows, columns, _ = parts.shape
        parts = parts.reshape(*parts.shape[:4], blocks[0] * high, blocks[1], wide * self._channels)
        turned = parts.transpose(4, 5, 0, 1, 2, 3, 6)
        parts = ROOM.take("turned", turned.shape)
        parts[...] = turned  # one copy, for sums of long runs
        shape = (devices, batch, rows + blocks[0] - 1, high, columns + blocks[1] - 1, wide * self._channels)
        room = ROOM.take("joined", shape)
        room[...] = 0
        for row, j in np.ndindex(parts.shape[:2]):
            i, row_of_pool = divmod(row, high)
            room[:, :, i : i + rows, row_of_pool, j : j + columns] += parts[row, j]
        found = room.reshape(devices, batch, *self._room, self._channels)[
            :, :, self._begin[0] :, self._begin[1] :
        ]
        lacking = [max(0, n - m) for n, m in zip(self._image, found.shape[2:4], strict=True)]
        if any(lacking):
            found = np.pad(found, [(0, 0), (0, 0), *((0, n) for n in lacking), (0, 0)])
        return found[:, :, : self._image[0], : self._image[1]]

    def _laid(self, kernel: Stack) -> Stack:
        """Return the kernel at each phase of a pool, one below the other, as wide as a patch."""
        (high, wide), (rows, columns) = self._sizes.pool, self._sizes.kernel
        laid = np.zeros(
            (len(kernel), high, wide, self._sizes.filters, *self._taps, self._channels), np.float32
        )
        turned = kernel.transpose(0, 4, 1, 2, 3)
        for i, j in self._phases():
            laid[:, i, j, :, i : i + rows, j : j + columns] = turned
        return laid.reshape(len(kernel), high * wide * self._sizes.filters, -1)

    def _gathered(self, laid: Stack) -> Stack:
        """Return the sum over phases: what `_laid` spread, brought together."""
        rows, columns = self._sizes.kernel
        parts = laid.reshape(len(laid), *self._sizes.pool, self._sizes.filters, *self._taps, self._channels)
        total = sum(parts[:, i, j, :, i : i + rows, j : j + columns] for i, j in self._phases())
        return np.asarray(total).transpose(0, 2, 3, 4, 1)

    def _spread(self, rest: Stack) -> Stack:
        """Return slopes of all phases: those of each pool go to its largest."""
        devices, filters, places = rest.shape
        spread = ROOM.take("spread", (devices, len(self._later) + 1, filters, places))
        for place in reversed(range(len(self._later))):
            np.multiply(rest, self._later[place], out=spread[:, place + 1])
            rest -= spread[:, place + 1]
        spread[:, 0] = rest
        return spread.reshape(devices, -1, places)

    @property
    def _taps(self) -> Pair:
        (rows, columns), (high, wide) = self._blocks, self._sizes.pool
        return rows * high, columns * wide

    def _phases(self) -> Iterator[tuple[int, ...]]:
        return itertools.product(*map(range, self._sizes.pool))
