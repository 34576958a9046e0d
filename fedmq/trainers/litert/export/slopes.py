"""Gradients of TensorFlow's operations in terms that LiteRT has built in.

TensorFlow's own gradients of convolutions, pools and some activations are operations of their own, which LiteRT does
not have. Here they are made of those it has. `tf.gradients` takes them for what is traced under `builtin_gradients`;
nothing outside of it changes.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fedmq.trainers.keras.runtime import tf
from fedmq.trainers.litert.export.windows import Windows, spaced

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Slope = Callable[..., Any]

_MASKS: Final = ("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask")
_slopes: Final[dict[str, str]] = {}


@contextmanager
def builtin_gradients() -> Iterator[None]:
    """Have operations that are traced meanwhile differentiated as this module says."""
    with tf.compat.v1.get_default_graph().gradient_override_map(_slopes):
        yield


def _slope_of(kind: str) -> Callable[[Slope], Slope]:
    name = f"Fedmq{kind}"
    _slopes[kind] = name
    return tf.RegisterGradient(name)  # type: ignore[no-any-return]  # TensorFlow has no types


@_slope_of("Relu")
def _relu(op: tf.Operation, slope: tf.Tensor) -> tf.Tensor:
    return slope * tf.sign(op.outputs[0])  # XNNPACK has a kernel for it, and none to compare


@_slope_of("Relu6")
def _relu6(op: tf.Operation, slope: tf.Tensor) -> tf.Tensor:
    output = op.outputs[0]
    return slope * tf.cast(tf.logical_and(output > 0, output < 6), slope.dtype)  # noqa: PLR2004  # its name


@_slope_of("LeakyRelu")
def _leaky_relu(op: tf.Operation, slope: tf.Tensor) -> tf.Tensor:
    return tf.where(op.inputs[0] > 0, slope, op.get_attr("alpha") * slope)


@_slope_of("Elu")
def _elu(op: tf.Operation, slope: tf.Tensor) -> tf.Tensor:
    output = op.outputs[0]
    return tf.where(output < 0, slope * (output + 1), slope)


@_slope_of("Tanh")
def _tanh(op: tf.Operation, slope: tf.Tensor) -> tf.Tensor:
    output = op.outputs[0]
    return slope * (1 - output * output)


@_slope_of("Sigmoid")
def _sigmoid(op: tf.Operation, slope: tf.Tensor) -> tf.Tensor:
    output = op.outputs[0]
    return slope * output * (1 - output)


@_slope_of("Softplus")
def _softplus(op: tf.Operation, slope: tf.Tensor) -> tf.Tensor:
    return slope * tf.sigmoid(op.inputs[0])


@_slope_of("StridedSlice")
def _slice(op: tf.Operation, slope: tf.Tensor) -> list[tf.Tensor | None]:
    """Return zeros around the slope of a slice; slices with gaps keep TensorFlow's operation, which LiteRT has not."""
    shape = tuple(op.inputs[0].shape)
    begin, end, strides = (tf.get_static_value(part) for part in op.inputs[1:])
    if any(part is None for part in (begin, end, strides)) or (strides != 1).any():
        back = tf.raw_ops.StridedSliceGrad(
            shape=tf.constant(shape), begin=op.inputs[1], end=op.inputs[2], strides=op.inputs[3], dy=slope,
            **{name: op.get_attr(name) for name in _MASKS},
        )  # fmt: skip
        return [back, None, None, None]
    cut = tuple(_cut(op, place, begin, end) for place in range(len(begin)))
    kept = np.arange(math.prod(shape)).reshape(shape)[cut].reshape(-1)
    first, last = (np.asarray(np.unravel_index(kept[place], shape)) for place in (0, -1))
    margins = np.stack([first, np.asarray(shape) - 1 - last], axis=1)
    return [tf.pad(tf.reshape(slope, last - first + 1), margins), None, None, None]


def _cut(op: tf.Operation, place: int, begin: Sequence[int], end: Sequence[int]) -> Any:  # noqa: ANN401  # of an index
    """Return what NumPy writes between brackets for one place of a slice's specification."""
    said = {name: bool(op.get_attr(name) >> place & 1) for name in _MASKS}
    if said["ellipsis_mask"]:
        return ...
    if said["new_axis_mask"]:
        return None
    if said["shrink_axis_mask"]:
        return begin[place]
    return slice(None if said["begin_mask"] else begin[place], None if said["end_mask"] else end[place])


@_slope_of("Conv2D")
def _convolution(op: tf.Operation, slope: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    images, kernel = op.inputs
    windows = Windows.of(op, images, tuple(kernel.shape[:2]), slope)
    return _to_images(windows, op, kernel, slope), _to_kernel(windows, images, slope)


def _to_images(windows: Windows, op: tf.Operation, kernel: tf.Tensor, slope: tf.Tensor) -> tf.Tensor:
    """Return the gradient of a convolution's input."""
    if windows.dilation == (1, 1) and op.get_attr("padding") != b"EXPLICIT":
        return tf.raw_ops.Conv2DBackpropInput(
            input_sizes=list(op.inputs[0].shape),
            filter=kernel,
            out_backprop=slope,
            strides=op.get_attr("strides"),
            padding=op.get_attr("padding").decode(),
        )
    wide = spaced(slope, windows.stride)
    reach = [(size - 1) * dilation for size, dilation in zip(windows.size, windows.dilation, strict=True)]
    rest = [p - r - w for p, r, w in zip(windows.padded, reach, wide.shape[1:3], strict=True)]
    margins = [[0, 0], *([r, r + left] for r, left in zip(reach, rest, strict=True)), [0, 0]]
    turned = tf.transpose(tf.reverse(kernel, [0, 1]), [0, 1, 3, 2])
    return windows.crop(tf.nn.conv2d(tf.pad(wide, margins), turned, 1, "VALID", dilations=windows.dilation))


def _to_kernel(windows: Windows, images: tf.Tensor, slope: tf.Tensor) -> tf.Tensor:
    """Return the gradient of a convolution's kernel, itself a convolution: of the images with the slope.

    Rows and channels change places, and so do stride and dilation.
    """
    turned = tf.transpose(windows.pad(images), [3, 1, 2, 0])
    found = tf.nn.conv2d(
        turned, tf.transpose(slope, [1, 2, 0, 3]), windows.dilation, "VALID", dilations=windows.stride
    )
    height, width = windows.size
    return tf.transpose(found[:, :height, :width, :], [1, 2, 0, 3])


@_slope_of("Conv2DBackpropInput")
def _transposed_convolution(op: tf.Operation, slope: tf.Tensor) -> list[tf.Tensor | None]:
    _, kernel, images = op.inputs
    windows = Windows.of(op, slope, tuple(kernel.shape[:2]), images)
    back = tf.nn.conv2d(
        slope, kernel, windows.stride, op.get_attr("padding").decode(), dilations=windows.dilation
    )
    return [None, _to_kernel(windows, slope, images), back]


@_slope_of("DepthwiseConv2dNative")
def _depthwise(op: tf.Operation, slope: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    images, kernel = op.inputs
    windows = Windows.of(op, images, tuple(kernel.shape[:2]), slope)
    rows, height, width, channels = images.shape[0], *windows.count, images.shape[3]
    each = tf.reshape(slope, [rows * height * width, channels, kernel.shape[3]])
    padded = windows.pad(images)
    to_kernel, to_images = [], []
    for place in windows.places():
        seen = tf.reshape(windows.look(padded, place), [rows * height * width, channels, 1])
        to_kernel.append(tf.reduce_sum(seen * each, axis=0))
        back = tf.reduce_sum(each * kernel[place[0], place[1]], axis=2)
        to_images.append(windows.spread(tf.reshape(back, [rows, height, width, channels]), place))
    return windows.crop(_sum(to_images)), tf.reshape(tf.stack(to_kernel), kernel.shape)


@_slope_of("MaxPool")
def _max_pool(op: tf.Operation, slope: tf.Tensor) -> tf.Tensor:
    """The slope goes to the first of a window's largest numbers, as in TensorFlow."""
    images, largest = op.inputs[0], op.outputs[0]
    windows = Windows.of(op, images, tuple(op.get_attr("ksize"))[1:3], slope)
    seen = windows.see(windows.pad(images, float(np.finfo(np.float32).min)))
    largest, left = (tf.reshape(numbers, seen[0].shape) for numbers in (largest, slope))
    back = []
    for numbers in seen:
        here = left * tf.cast(tf.equal(numbers, largest), slope.dtype)
        left -= here
        back.append(here)
    return windows.crop(windows.join(back))


@_slope_of("AvgPool")
def _average_pool(op: tf.Operation, slope: tf.Tensor) -> tf.Tensor:
    windows = Windows.of(op, op.inputs[0], tuple(op.get_attr("ksize"))[1:3], slope)
    one = np.zeros((1, *windows.padded, 1), np.float32)
    one[:, windows.before[0] :, windows.before[1] :][:, : windows.image[0], : windows.image[1]] = 1
    seen = sum(np.asarray(windows.look(one, place)) for place in windows.places())
    each = slope / tf.constant(seen, slope.dtype)
    each = tf.reshape(each, windows.see(tf.zeros([slope.shape[0], *windows.padded, slope.shape[3]]))[0].shape)
    return windows.crop(windows.join([each for _ in windows.places()]))


@tf.custom_gradient  # type: ignore[untyped-decorator]  # TensorFlow has no types
def _bell_sum(x: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    """Return the normal distribution's sum up to `x`, within 1e-7, and how to differentiate it.

    The error function's sum is that of Abramowitz and Stegun 1964, "Handbook of Mathematical Functions", 7.1.26.
    """
    size = tf.abs(x) * math.sqrt(0.5)
    part = 1 / (1 + 0.3275911 * size)
    sum_ = tf.zeros_like(x)
    for factor in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592):
        sum_ = (sum_ + factor) * part
    bell = tf.exp(-size * size)
    return 0.5 + 0.5 * tf.sign(x) * (1 - sum_ * bell), lambda slope: slope * bell / math.sqrt(2 * math.pi)


def gelu(x: tf.Tensor, approximate: bool = False, name: str | None = None) -> tf.Tensor:  # noqa: ARG001, FBT001, FBT002  # tf.nn's own
    """Stand in for `tf.nn.gelu`, whose exact form takes an operation that LiteRT does not have."""
    if not approximate:
        return x * _bell_sum(x)
    return 0.5 * x * (1 + tf.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))


def _sum(parts: list[tf.Tensor]) -> tf.Tensor:
    total = parts[0]
    for part in parts[1:]:
        total += part
    return total
