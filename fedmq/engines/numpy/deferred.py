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

from fedmq.engines.numpy.stacks import judge, slopes_of, variables

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fedmq.engines.numpy.blocks import Batches, Block
    from fedmq.engines.numpy.stacks import Stack, Told
    from fedmq.trainers.numpy import Labels, Matrix
    from fedmq.vectors import Layout, Vector


class DeferredDescent:
    """Weights of several devices on their way down from `models`: `vectors`, one row for each."""

    def __init__(self, layout: Layout, models: Sequence[Vector]) -> None:
        # One array for all: the system hands memory out in large pages then, and each small one would be a fault.
        self.vectors = np.empty((len(models), layout.size), np.float32)
        self._wide, *others = variables(layout, self.vectors)
        self._biases, self._kernels = others[::2], others[1::2]
        size = layout.sizes[0]
        for vector, model in zip(self.vectors, models, strict=True):
            vector[size:] = model[size:]
        self._begun = [
            model[:size].astype(np.float32, copy=False).reshape(self._wide.shape[1:]) for model in models
        ]
        """The first kernels as they stand: the models' own until the first block is done, then those of `_wide`."""

    def run(self, batches: Batches, rate: np.float32) -> Told:
        """Take all steps; return sums of losses and counts of right answers, of shape (devices, steps, 2)."""
        outputs = self._wide.shape[2]
        return np.concatenate([self._block(block, rate) for block in batches.blocks(outputs)], axis=1)

    def _block(self, block: Block, rate: np.float32) -> Told:
        """Take the steps of `block`, then move the widest layer."""
        answers, inner = self._ahead(block)
        errors = np.zeros_like(answers)
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
        devices, steps, _ = block.mask.shape
        answers = np.zeros((devices, block.size + 1, self._wide.shape[2]), np.float32)
        inner = np.zeros((devices, block.size + 1, block.size), np.float32)
        for k, (x, kernel) in enumerate(zip(block.xs, self._begun, strict=True)):
            np.matmul(x, kernel, out=answers[k, : len(x)])
            if steps > 1:
                np.matmul(x, x.T, out=inner[k, : len(x), : len(x)])
        return answers, inner

    def _move(self, xs: Sequence[Matrix], errors: Stack) -> None:
        """Move the widest layer."""
        move = np.empty_like(self._wide[0])
        for k, x in enumerate(xs):
            np.matmul(x.T, errors[k, : len(x)], out=move)
            np.subtract(self._begun[k], move, out=self._wide[k])
            self._begun[k] = self._wide[k]

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
