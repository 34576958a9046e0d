"""Plain SGD on stacked perceptrons whose widest layer is moved once for many steps, not in each.

A step of SGD adds ``-rate * x.T @ e`` to the first layer's kernel W: a matrix of low rank, but as many numbers to read
and write as W has, and that is where the time goes. Within a block of steps it suffices to remember the errors e: what
the moved kernel would answer to the block's later examples is

    ``x @ W_s = x @ W_0 - rate * sum over earlier steps k of (x @ x_k.T) @ e_k``

so W is read once (``x @ W_0`` for all examples of the block), the examples' inner products take the place of W, and
W is written once, as one product of all x and all e. The same idea makes LAPACK's blocked factorisations fast
(Schreiber and Van Loan 1989, "A Storage-Efficient WY Representation for Products of Householder Transformations").
The sum is the same but for the order of its terms.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fedmq.vectors import Layout, Vector

Stack: TypeAlias = NDArray[np.float32]
"""One matrix, or row, for each device: the first dimension counts devices."""

_SHARE: Final = 8
"""A block has at most one example for each so many inputs: with more, inner products would cost more than they save."""


_WORTH: Final = 16
"""A number of the kernel left alone for a step is worth so many of those that inner products take: as measured."""


@dataclass(frozen=True, slots=True, eq=False)
class Batches:
    """The examples of all steps: of each device's `xs` those in `rows`, of shape (devices, steps, batch).

    `y` and `mask` have the shape of `rows`.
    """

    xs: Sequence[Stack]
    rows: NDArray[np.int64]
    y: NDArray[np.int64]
    mask: Stack

    @classmethod
    def of(
        cls, xs: Sequence[Stack], ys: Sequence[NDArray[np.int64]], rows: NDArray[np.int64], mask: Stack
    ) -> Batches:
        """Take every device's examples, and the order in which it goes through them."""
        return cls(xs, rows, np.stack([own[some] for own, some in zip(ys, rows, strict=True)]), mask)

    @property
    def inputs(self) -> int:
        """How many numbers an example has."""
        return int(self.xs[0].shape[1])

    def blocks(self, outputs: int) -> Iterator[tuple[int, int]]:
        """Yield the first step of each block, and the one behind its last; for a kernel with so many outputs."""
        _, steps, width = self.mask.shape
        length = max(1, min(self.inputs // _SHARE, _WORTH * outputs // width) // width)
        edges = [*range(0, steps, length), steps]
        yield from itertools.pairwise(edges)

    def gather(self, device: int, first: int, end: int, out: Stack) -> None:
        """Write the examples of these steps to `out`, one behind the other, and zeros where there are none."""
        self.xs[device].take(self.rows[device, first:end].reshape(-1), axis=0, out=out, mode="clip")
        mask = self.mask[device, first:end]
        if not mask.all():
            out[mask.reshape(-1) == 0] = 0


class DeferredDescent:
    """Weights of several devices on their way down from `models`: `vectors`, one row for each."""

    def __init__(self, layout: Layout, models: Sequence[Vector]) -> None:
        # One array for all: the system hands memory out in large pages then, and each small one would be a fault.
        self.vectors = np.empty((len(models), layout.size), np.float32)
        arrays = [layout.unpack(np.asarray(model, np.float32)) for model in models]
        self._targets = [layout.unpack(vector) for vector in self.vectors]
        self._wide = [own[0] for own in arrays]
        """The first kernels as they stand: the models' own until the first block is done."""
        stacks = [np.stack(several) for several in itertools.islice(zip(*arrays, strict=True), 1, None)]
        self._biases, self._kernels = stacks[::2], stacks[1::2]

    def run(self, batches: Batches, rate: np.float32) -> NDArray[np.float64]:
        """Take all steps; return sums of losses and counts of right answers, of shape (devices, steps, 2)."""
        told = np.zeros((*batches.mask.shape[:2], 2))
        for first, end in batches.blocks(self._biases[0].shape[1]):
            self._block(batches, first, end, rate, told)
        for k, own in enumerate(self._targets):
            for place, stack in enumerate(_woven(self._biases, self._kernels)):
                own[place + 1][...] = stack[k]
        return told

    def _block(
        self, batches: Batches, first: int, end: int, rate: np.float32, told: NDArray[np.float64]
    ) -> None:
        """Take the steps from `first` to before `end`, then move the widest layer."""
        devices, _, width = batches.mask.shape
        rows = (end - first) * width
        x = np.empty((devices, rows, batches.inputs), np.float32)
        inner = np.empty((devices, rows, rows), np.float32)
        answers = np.empty((devices, rows, self._biases[0].shape[1]), np.float32)
        for k, kernel in enumerate(self._wide):
            batches.gather(k, first, end, x[k])
            if end - first > 1:
                np.matmul(x[k], x[k].T, out=inner[k])
            np.matmul(x[k], kernel, out=answers[k])
        errors = np.empty_like(answers)
        for step in range(first, end):
            now = slice((step - first) * width, (step - first + 1) * width)
            before = slice(0, now.start)
            if now.start:
                answers[:, now] -= inner[:, now, before] @ errors[:, before]
            told[:, step], errors[:, now] = self._step(
                answers[:, now], batches.y[:, step], batches.mask[:, step], rate
            )
        self._move(x, errors)

    def _move(self, x: Stack, errors: Stack) -> None:
        """Move the widest layer."""
        move = np.empty_like(self._wide[0])
        for k, target in enumerate(self._targets):
            np.matmul(x[k].T, errors[k], out=move)
            np.subtract(self._wide[k], move, out=target[0])
            self._wide[k] = target[0]

    def _step(
        self, scores: Stack, labels: NDArray[np.int64], mask: Stack, rate: np.float32
    ) -> tuple[NDArray[np.float64], Stack]:
        """Take one step with all but the widest layer's kernel; return figures, and `rate` times the errors there."""
        layers = [scores + self._biases[0][:, None]]
        for kernel, bias in zip(self._kernels, self._biases[1:], strict=True):
            np.maximum(layers[-1], 0, out=layers[-1])
            layers.append(layers[-1] @ kernel + bias[:, None])
        told = _judge(layers[-1], labels, mask)
        error = _slopes(layers[-1], labels, mask, rate)
        for i in reversed(range(len(self._kernels))):
            back = error @ self._kernels[i].transpose(0, 2, 1)
            back *= layers[i] > 0
            self._kernels[i] -= layers[i].transpose(0, 2, 1) @ error
            self._biases[i + 1] -= error.sum(axis=1)
            error = back
        self._biases[0] -= error.sum(axis=1)
        return told, error


def _judge(scores: Stack, labels: NDArray[np.int64], mask: Stack) -> NDArray[np.float64]:
    """Turn `scores` into probabilities in place; return of each device the sum of losses, and the right answers."""
    right = ((scores.argmax(axis=2) == labels) * mask).sum(axis=1)
    scores -= scores.max(axis=2, keepdims=True)
    chosen = np.take_along_axis(scores, labels[..., None], axis=2)[..., 0]
    np.exp(scores, out=scores)
    totals = scores.sum(axis=2)
    scores /= totals[..., None]
    losses = ((np.log(totals) - chosen) * mask).sum(axis=1)
    return np.stack([losses, right], axis=1).astype(np.float64)


def _slopes(probabilities: Stack, labels: NDArray[np.int64], mask: Stack, rate: np.float32) -> Stack:
    """Return `rate` times the slopes of each device's mean loss by its scores."""
    devices, width = labels.shape
    probabilities[np.arange(devices)[:, None], np.arange(width), labels] -= 1
    scale = rate * mask / np.maximum(mask.sum(axis=1, keepdims=True), 1)
    probabilities *= scale[..., None]
    return probabilities


def _woven(biases: Sequence[Stack], kernels: Sequence[Stack]) -> Iterator[Stack]:
    """Yield bias, kernel, bias, ... as the layout has them behind the first kernel."""
    for bias, kernel in itertools.zip_longest(biases, kernels):
        yield bias
        if kernel is not None:
            yield kernel
