"""What all stacks of devices share: views of their variables, losses with their slopes, and figures."""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING, Final, TypeAlias

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


_PAGE: Final = 2 << 20
"""Bytes of a large page."""

_KEPT: Final = 16 << 20
"""Bytes that one array of a `Room` keeps at most: as many threads hold them as there are cores."""


class Room(threading.local):
    """Memory that each thread keeps from stack to stack: new memory is handed out page by page, for a fault each."""

    def __init__(self) -> None:
        self._kept: dict[str, NDArray[np.uint8]] = {}

    def take(self, name: str, shape: tuple[int, ...]) -> Stack:
        """Return an array with anything in it; it holds until this thread asks for one of that name again."""
        return self._bytes(name, 4 * math.prod(shape)).view(np.float32).reshape(shape)

    def flags(self, name: str, shape: tuple[int, ...]) -> NDArray[np.bool_]:
        """Return such an array of truth values."""
        return self._bytes(name, math.prod(shape)).view(np.bool_).reshape(shape)

    def _bytes(self, name: str, size: int) -> NDArray[np.uint8]:
        if size > _KEPT:
            return np.empty(size, np.uint8)
        if name not in self._kept or self._kept[name].size < size:
            self._kept[name] = np.empty(size, np.uint8)
        return self._kept[name][:size]


ROOM: Final = Room()


def paged(shape: tuple[int, int]) -> Stack:
    """Return new memory for results; much of it begins and ends with a large page, as beside those are many small."""
    size = 4 * math.prod(shape)
    if size < _PAGE:
        return np.empty(shape, np.float32)
    room = np.empty((-(-size // _PAGE) + 1) * _PAGE, np.uint8)
    begin = -room.ctypes.data % _PAGE
    return room[begin : begin + size].view(np.float32).reshape(shape)


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
