"""Plain SGD on stacked perceptrons whose widest layer is moved once for many steps, not in each.

A step of SGD adds ``-rate * x.T @ e`` to the first layer's kernel W: a matrix of low rank, but as many numbers to read
and write as W has, and that is where the time goes. Within a block of steps it suffices to sum up, for each example,
the errors e (times the rate) that it met: what the moved kernel answers to an example then is

    ``x @ W_s = x @ W_0 - sum over examples k of (x @ x_k.T) @ e_k``

so W is read once (``x @ W_0`` for all examples of the block), the examples' inner products take the place of W, and
W is written once, as one product of all x and all e. The same idea makes LAPACK's blocked factorisations fast
(Schreiber and Van Loan 1989, "A Storage-Efficient WY Representation for Products of Householder Transformations"), and
is how kernel machines are trained in their dual form (Aizerman, Braverman and Rozonoer 1964, "Theoretical Foundations
of the Potential Function Method in Pattern Recognition Learning"). The sum is the same but for the order of its terms.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fedmq.engines.numpy.stacks import ROOM, judge, paged, slopes_of, variables

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fedmq.engines.numpy.blocks import Batches, Block
    from fedmq.engines.numpy.stacks import Stack, Told
    from fedmq.trainers.numpy import Labels
    from fedmq.vectors import Layout, Vector


class DeferredDescent:
    """Weights of several devices on their way down from `models`: `vectors`, one row for each."""

    def __init__(self, layout: Layout, models: Sequence[Vector]) -> None:
        self.vectors = paged((len(models), layout.size))
        self._wide, *others = variables(layout, self.vectors)
        self._biases, self._kernels = others[::2], others[1::2]
        size = layout.sizes[0]
        one = all(model is models[0] for model in models)
        copied = slice(size if one else 0, None)
        for vector, model in zip(self.vectors, models, strict=True):
            vector[copied] = model[copied]
        kernel = models[0][:size].astype(np.float32, copy=False).reshape(self._wide.shape[1:])
        self._begun: Stack = np.broadcast_to(kernel, self._wide.shape) if one else self._wide
        """The first kernels as they stand: the model's own, where all begin with one, until the first block is done."""

    def run(self, batches: Batches, rate: np.float32) -> Told:
        """Take all steps; return sums of losses and counts of right answers, of shape (devices, steps, 2)."""
        outputs = self._wide.shape[2]
        return np.concatenate([self._block(block, rate) for block in batches.blocks(outputs)], axis=1)

    def _block(self, block: Block, rate: np.float32) -> Told:
        """Take the steps of `block`, then move the widest layer."""
        answers, inner = self._ahead(block)
        errors = ROOM.take("errors", answers.shape)
        errors[...] = 0
        told = np.empty((*block.mask.shape[:2], 2))
        for step, at in enumerate(block.places):
            scores = answers[at]
            if step:
                scores -= inner[at] @ errors[:, :-1]
            told[:, step], slopes = self._step(scores, block.labels[:, step], block.mask[:, step], rate)
            errors[at] += slopes  # an example is in a batch once; all that are none share the last row
        self._move(block.xs, errors)
        return told

    def _ahead(self, block: Block) -> tuple[Stack, Stack]:
        """Return what the widest kernel answers to each example as it stands, and the examples' inner products."""
        xs = block.xs
        devices, size, _ = xs.shape
        answers = ROOM.take("answers", (devices, size + 1, self._wide.shape[2]))
        inner = ROOM.take("inner", (devices, size + 1, size))
        answers[:, size], inner[:, size] = 0, 0
        # one call for the stack: between many short ones, threads with stacks of their own wait for each other
        np.matmul(xs, self._begun, out=answers[:, :size])
        if len(block.places) > 1:
            np.matmul(xs, xs.transpose(0, 2, 1), out=inner[:, :size])
        return answers, inner

    def _move(self, xs: Stack, errors: Stack) -> None:
        """Move the widest layer."""
        move = ROOM.take("move", self._wide.shape[1:])  # one device's only, which stays in the caches
        for x, error, begun, wide in zip(xs, errors[:, :-1], self._begun, self._wide, strict=True):
            np.matmul(x.T, error, out=move)
            np.subtract(begun, move, out=wide)
        self._begun = self._wide

    def _step(self, scores: Stack, labels: Labels, mask: Stack, rate: np.float32) -> tuple[Told, Stack]:
        """Take one step with all but the widest layer's kernel; return figures, and `rate` times the errors there."""
        scores += self._biases[0][:, None]
        layers = [scores]
        for kernel, bias in zip(self._kernels, self._biases[1:], strict=True):
            np.maximum(layers[-1], 0, out=layers[-1])
            layers.append(layers[-1] @ kernel)
            layers[-1] += bias[:, None]
        told = judge(layers[-1], labels, mask)
        error = slopes_of(layers[-1], labels, mask, rate)
        for i in reversed(range(len(self._kernels))):
            back = error @ self._kernels[i].transpose(0, 2, 1)
            back *= layers[i] > 0
            self._kernels[i] -= layers[i].transpose(0, 2, 1) @ error
            self._biases[i + 1] -= error.sum(axis=1)
            error = back
        self._biases[0] -= error.sum(axis=1)
        return told, error
