"""A round's rows as a reducer reads them: in one order, block by block, perhaps mixed on the fly."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedmq.rules.measure import trainable_spans
from fedmq.rules.robust.threads import share_out

if TYPE_CHECKING:
    from fedmq.rules.robust.spool import Spool
    from fedmq.vectors import Layout

Numbers: TypeAlias = NDArray[np.floating[Any]]
"""One block: float32 as the rows have it, float64 where they are mixed; a row for each of the view's."""

_BUDGET: Final = 2**22
"""Bytes that one block of float32 takes, unless rows are so many that this would leave less than `_LEAST` of each."""

_LEAST: Final = 1024
_MOST: Final = 2**16

_PADDING: Final = 16
"""Added to a width in whole 1024ths: were rows a multiple of 4 KiB apart, all numbers of one column would fall into the
same few lines of a processor's cache, and reading down a column, as a transpose does, would take five times as long."""


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """The rows of a fold, or linear mixes of them; in canonical order, but for reducers that take any (`FromRows`).

    `weights` has one number for each row of the view, float64; `sources` says where the fold's rows are; `draw` gives
    its `seed`. `mixing`, of shape (rows of the view, rows of the fold), makes the former from the latter.
    """

    layout: Layout
    weights: NDArray[np.float64]
    sources: Sequence[tuple[Spool, int]]
    draw: Callable[[], int]
    mixing: NDArray[np.float64] | None = None

    @property
    def n(self) -> int:
        """How many rows the view has."""
        return len(self.weights)

    @property
    def size(self) -> int:
        """How many numbers a row has."""
        return self.layout.size

    @property
    def seed(self) -> int:
        """A number drawn from all of the fold's bytes: the same in any order of arrival.

        None who does not know every update can foretell it. It takes time: all rows are read and digested for it, once.
        """
        return self.draw()

    def mixed(self, matrix: NDArray[np.float64], weights: NDArray[np.float64]) -> View:
        """Return the view whose row k is ``sum_i matrix[k, i] * row i`` of this one, and weighs ``weights[k]``.

        Nothing is computed before it is read: time is that of one matrix product for each reading.
        """
        mixing = matrix if self.mixing is None else matrix @ self.mixing
        return replace(self, weights=weights, mixing=mixing)

    def blocks(self, spans: Iterable[slice] | None = None) -> Iterator[tuple[slice, Numbers]]:
        """Yield each block's columns, of all or of `spans`, and its numbers, of shape (n, columns).

        The next block takes the same memory: copy what must last. Raises StoreError where the disk fails.
        """
        buffer = self._buffer()
        for columns in self._cuts([slice(0, self.size)] if spans is None else spans):
            yield columns, self._mix(self._read(columns, buffer))

    def by_column(
        self, work: Callable[[Numbers], Numbers], spans: Iterable[slice] | None = None
    ) -> NDArray[np.float64]:
        """Return what `work` makes of every column: from a block of shape (n, columns) it gives (columns,).

        Columns outside of `spans`, where these are given, are zero.

        Two threads take the blocks in turn. Where a block ends hangs on the view's shape alone, so bits do not change
        with the number of threads.
        """
        result = np.zeros(self.size)

        def take(share: Sequence[slice]) -> None:
            buffer = self._buffer()
            for columns in share:
                result[columns] = work(self._mix(self._read(columns, buffer)))

        cuts = list(self._cuts([slice(0, self.size)] if spans is None else spans))
        share_out(take, cuts, len(self.sources) * self.size)
        return result

    def combined(self, coefficients: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return ``sum_i coefficients[i] * row i``; rows whose coefficient is zero are not read."""
        factors = coefficients if self.mixing is None else coefficients @ self.mixing
        used = np.flatnonzero(factors)
        chosen = replace(
            self, weights=factors[used], sources=[self.sources[index] for index in used.tolist()], mixing=None
        )
        result = np.empty(self.size)
        for columns, numbers in chosen.blocks():
            result[columns] = factors[used] @ numbers
        return result

    def gram(self) -> NDArray[np.float64]:
        """Return the rows' inner products over the trainable numbers, shape (n, n), symmetric to the bit.

        Each product is rounded in float64 only, so it is within about ``1e-15 * |a| * |b|`` of the true one. A squared
        distance taken from it, ``|a|^2 + |b|^2 - 2ab``, has that error too: it says nothing about rows nearer to each
        other than a ten-millionth of their length. Rows are not centred first, on purpose: whatever the centre, one
        far row could move it, and the error would then be in all the others' distances. Time: ``n^2 * size / 2``
        multiplications by BLAS, 0.4 s for 100 rows of 1 M numbers on one core, in two threads; memory as three blocks
        for each.
        """
        cuts = list(self._cuts(trainable_spans(self.layout)))
        halves = np.zeros((2, len(self.sources), len(self.sources)))

        def take(share: Sequence[int]) -> None:
            for half in share:  # the same blocks in each, however many threads there are
                self._add_products(cuts[half::2], halves[half])

        share_out(take, (0, 1), len(self.sources) * self.size)
        total = np.asarray(halves[0] + halves[1])
        if self.mixing is None:
            return total
        mixed = self.mixing @ total @ self.mixing.T
        return np.asarray((mixed + mixed.T) / 2)

    def _add_products(self, cuts: Iterable[slice], total: NDArray[np.float64]) -> None:
        buffer = self._buffer()
        wide = np.empty(buffer.size)
        for columns in cuts:
            block = self._read(columns, buffer)
            numbers = wide[: block.size].reshape(block.shape)
            numbers[...] = block
            total += numbers @ numbers.T

    def _cuts(self, spans: Iterable[slice]) -> Iterator[slice]:
        """Yield `spans` cut into blocks, whose width hangs on the number of rows alone."""
        width = self._width
        for span in spans:
            for start in range(span.start, span.stop, width):
                yield slice(start, min(start + width, span.stop))

    @property
    def _width(self) -> int:
        fitting = _BUDGET // (4 * max(1, len(self.sources)))
        return min(max(fitting, _LEAST), _MOST) // _LEAST * _LEAST + _PADDING

    def _buffer(self) -> NDArray[np.float32]:
        return np.empty(len(self.sources) * min(self._width, self.size), np.float32)

    def _read(self, columns: slice, buffer: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the fold's numbers of `columns`, contiguous in `buffer`."""
        shape = len(self.sources), columns.stop - columns.start
        block = buffer[: shape[0] * shape[1]].reshape(shape)
        for (spool, index), row in zip(self.sources, block, strict=True):
            spool.read(index, columns, row)
        return block

    def _mix(self, block: NDArray[np.float32]) -> Numbers:
        return block if self.mixing is None else self.mixing @ block
