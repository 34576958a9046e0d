"""Convolutions as one matrix product over patches: what a convolution becomes when every device has its own kernel.

Mapped over devices, a convolution turns into one with as many groups as devices, for which backends have slow kernels;
a matrix product turns into a stack of matrix products, for which they have fast ones. ("im2col": Chellapilla, Puri and
Simard 2006, "High Performance Convolutional Neural Networks for Document Processing".)
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import keras

if TYPE_CHECKING:
    from collections.abc import Callable

    from fedmq.engines.stacking.calculus import Tensor


def as_products(model: Any) -> int:  # noqa: ANN401  # keras has no types
    """Let the model's Conv1D and Conv2D layers compute products of patches from now on; return how many there are."""
    layers = [layer for layer in model._flatten_layers() if _fits(layer)]  # noqa: SLF001  # no public way
    for layer in layers:
        layer.__dict__["convolution_op"] = _product(layer)  # past Keras' tracking of attributes
    return len(layers)


def _fits(layer: Any) -> bool:  # noqa: ANN401  # as above
    return (
        type(layer) in {keras.layers.Conv1D, keras.layers.Conv2D}
        and layer.groups == 1
        and layer.data_format == "channels_last"
        and layer.padding in {"valid", "same"}
    )


def _product(layer: Any) -> Callable[[Tensor, Tensor], Tensor]:  # noqa: ANN401  # as above
    strides, dilation, same = layer.strides, layer.dilation_rate, layer.padding == "same"

    def convolve(inputs: Tensor, kernel: Tensor) -> Tensor:
        *sizes, channels, filters = kernel.shape
        spans = [(size - 1) * step + 1 for size, step in zip(sizes, dilation, strict=True)]
        if same:
            inputs = _padded(inputs, spans, strides)
        room = inputs.shape[1:-1]
        counts = [(n - span) // step + 1 for n, span, step in zip(room, spans, strides, strict=True)]
        pieces = []
        for place in itertools.product(*map(range, sizes)):
            begins = [at * step for at, step in zip(place, dilation, strict=True)]
            cuts = [
                slice(begin, begin + (count - 1) * step + 1, step)
                for begin, count, step in zip(begins, counts, strides, strict=True)
            ]
            pieces.append(inputs[(slice(None), *cuts)])
        patches = keras.ops.concatenate(pieces, axis=-1) if len(pieces) > 1 else pieces[0]
        width = math.prod(sizes) * channels
        flat = keras.ops.reshape(patches, (-1, width)) @ keras.ops.reshape(kernel, (width, filters))
        return keras.ops.reshape(flat, (-1, *counts, filters))

    return convolve


def _padded(inputs: Tensor, spans: list[int], strides: tuple[int, ...]) -> Tensor:
    """Add the zeros that ``same`` means: as many outputs as there are strides in the input, what is odd at the end."""
    around = [(0, 0)]
    for room, span, step in zip(inputs.shape[1:-1], spans, strides, strict=True):
        lacking = max(0, (-(-room // step) - 1) * step + span - room)
        around.append((lacking // 2, lacking - lacking // 2))
    return keras.ops.pad(inputs, [*around, (0, 0)])
