"""What all stacks of devices share: views of their variables, losses with their slopes, and figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from fedmq.engines.steps import Steps
    from fedmq.trainers.numpy import Labels
    from fedmq.vectors import Layout

Stack: TypeAlias = NDArray[np.float32]
"""One matrix, or row, for each device: the first dimension counts devices."""

Told: TypeAlias = NDArray[np.float64]
"""Of each device, and where there are several of each step, the sum of losses and the number of right answers."""


def variables(layout: Layout, vectors: Stack) -> list[Stack]:
    """Return each variable of all `vectors`, as views of shape (devices, ...)."""
    parts = np.split(vectors, np.cumsum(layout.sizes)[:-1], axis=1)
    return [part.reshape(-1, *variable.shape) for part, variable in zip(parts, layout.shared, strict=True)]


def judge(scores: Stack, labels: Labels, mask: Stack) -> Told:
    """Turn `scores` into probabilities in place; return of each device the sum of losses, and the right answers."""
    right = ((scores.argmax(axis=2) == labels) * mask).sum(axis=1)
    scores -= scores.max(axis=2, keepdims=True)
    chosen = np.take_along_axis(scores, labels[..., None], axis=2)[..., 0]
    np.exp(scores, out=scores)
    totals = scores.sum(axis=2)
    scores /= totals[..., None]
    losses = ((np.log(totals) - chosen) * mask).sum(axis=1)
    return np.stack([losses, right], axis=1).astype(np.float64)


def slopes_of(probabilities: Stack, labels: Labels, mask: Stack, rate: np.float32) -> Stack:
    """Return `rate` times the slopes of each device's mean loss by its scores, in the place of `probabilities`."""
    devices, width = labels.shape
    probabilities[np.arange(devices)[:, None], np.arange(width), labels] -= 1
    scale = rate * mask / np.maximum(mask.sum(axis=1, keepdims=True), 1)
    probabilities *= scale[..., None]
    return probabilities


def means(told: Told, steps: Steps) -> list[dict[str, float]]:
    """Return each device's figures of its last epoch; `told` is of shape (devices, steps, 2)."""
    seen = (steps.mask.sum(axis=2) * steps.last).sum(axis=1)
    sums = (told * steps.last[..., None]).sum(axis=1) / np.maximum(seen, 1)[:, None]
    return [{"train_loss": float(loss), "train_accuracy": float(right)} for loss, right in sums]
