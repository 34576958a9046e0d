"""Largest values of windows that do not overlap, as comparisons of a reshaped array.

Backends look for a pooling window's largest value once more when slopes go back through it, place by place; of windows
that do not overlap, comparisons say it, which vectorise and fuse with what is around them.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import keras

if TYPE_CHECKING:
    from collections.abc import Callable

    from fedmq.engines.stacking.calculus import Tensor


def as_comparisons(model: Any) -> int:  # noqa: ANN401  # keras has no types
    """Let the model's MaxPooling1D and MaxPooling2D layers compare from now on; return how many there are."""
    layers = [layer for layer in model._flatten_layers() if _fits(layer)]  # noqa: SLF001  # no public way
    for layer in layers:
        layer.__dict__["call"] = _pooling(tuple(layer.pool_size))  # past Keras' tracking of attributes
    return len(layers)


def _fits(layer: Any) -> bool:  # noqa: ANN401  # as above
    return (
        type(layer) in {keras.layers.MaxPooling1D, keras.layers.MaxPooling2D}
        and tuple(layer.pool_size) == tuple(layer.strides)
        and layer.data_format == "channels_last"
        and layer.padding == "valid"
    )


def _pooling(sizes: tuple[int, ...]) -> Callable[[Tensor], Tensor]:
    def pool(inputs: Tensor) -> Tensor:
        counts = [room // size for room, size in zip(inputs.shape[1:-1], sizes, strict=True)]
        cuts = [slice(count * size) for count, size in zip(counts, sizes, strict=True)]
        split = [number for pair in zip(counts, sizes, strict=True) for number in pair]
        windows = keras.ops.reshape(inputs[(slice(None), *cuts)], (-1, *split, inputs.shape[-1]))
        for place in reversed(range(len(sizes))):  # so of equal values the first counts, as everywhere
            windows = _largest(windows, 2 * place + 2)
        return windows

    return pool


def _largest(array: Tensor, axis: int) -> Tensor:
    """Return the largest along `axis`; slopes go to the first of equal ones, as in pooling, and not to each a part."""
    before = (slice(None),) * axis
    places = [array[(*before, place)] for place in range(array.shape[axis])]
    return functools.reduce(lambda best, other: keras.ops.where(other > best, other, best), places)
