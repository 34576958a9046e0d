"""What convolutions and pools have in common: windows that slide over an image, and how numbers get back from them."""

from __future__ import annotations

import functools
import itertools
import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedmq.trainers.keras.runtime import tf

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

Pair = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows over images of shape (rows, height, width, channels), height and width first in each pair.

    `size`, `stride` and `dilation` are the windows', `image` the images', `count` how many windows there are;
    `before` and `after` is what an image is padded with.
    """

    image: Pair
    size: Pair
    stride: Pair
    dilation: Pair
    count: Pair
    before: Pair
    after: Pair

    @classmethod
    def of(cls, op: tf.Operation, image: tf.Tensor, size: Pair, output: tf.Tensor) -> Windows:
        """Read an operation's attributes, which are named alike for convolutions and pools."""
        stride = _pair(op.get_attr("strides"))
        dilation = _pair(op.get_attr("dilations")) if "dilations" in op.node_def.attr else (1, 1)
        found, count = _pair(image.shape), _pair(output.shape)
        before, after = zip(
            *(
                _padding(
                    op,
                    axis,
                    (count[axis] - 1) * stride[axis] + (size[axis] - 1) * dilation[axis] + 1 - found[axis],
                )
                for axis in (0, 1)
            ),
            strict=True,
        )
        return cls(found, size, stride, dilation, count, before, after)

    @property
    def padded(self) -> Pair:
        """Height and width of a padded image."""
        height, width = (sum(parts) for parts in zip(self.image, self.before, self.after, strict=True))
        return height, width

    def pad(self, images: tf.Tensor, value: float = 0.0) -> tf.Tensor:
        """Return the images with their margins."""
        if not any((*self.before, *self.after)):
            return images
        margins = [[0, 0], *([b, a] for b, a in zip(self.before, self.after, strict=True)), [0, 0]]
        return tf.pad(images, margins, constant_values=value)

    def places(self) -> Iterator[Pair]:
        """Yield each place in a window, in the order in which TensorFlow looks at them."""
        return itertools.product(range(self.size[0]), range(self.size[1]))

    def look(self, padded: tf.Tensor, place: Pair) -> tf.Tensor:
        """Return what each window sees at a place: (rows, windows down, windows across, channels)."""
        first = [p * d for p, d in zip(place, self.dilation, strict=True)]
        last = [f + (c - 1) * s + 1 for f, c, s in zip(first, self.count, self.stride, strict=True)]
        return padded[:, first[0] : last[0] : self.stride[0], first[1] : last[1] : self.stride[1], :]

    @property
    def apart(self) -> bool:
        """Whether windows lie side by side: then nothing needs to be cut out number by number, which is slow."""
        return self.size == self.stride and self.dilation == (1, 1)

    def see(self, padded: tf.Tensor) -> list[tf.Tensor]:
        """Return what each window sees, for each place in turn; for windows apart, rows and windows down are one."""
        if not self.apart:
            return [self.look(padded, place) for place in self.places()]
        rows, channels = padded.shape[0], padded.shape[3]
        (tall, wide), (down, across) = self.size, self.count
        cut = padded[:, : down * tall, : across * wide, :]
        lines = tf.unstack(tf.reshape(cut, [rows * down, tall, across, wide * channels]), axis=1)
        return [line[:, :, i * channels : (i + 1) * channels] for line in lines for i in range(wide)]

    def join(self, parts: Sequence[tf.Tensor]) -> tf.Tensor:
        """Return padded images that hold, at each place of a window, what `parts`, as `see` gives them, has for it."""
        if not self.apart:
            spread = [self.spread(part, place) for part, place in zip(parts, self.places(), strict=True)]
            return functools.reduce(operator.add, spread)
        (tall, wide), (down, across) = self.size, self.count
        channels = parts[0].shape[2]
        lines = [tf.concat(parts[i * wide : (i + 1) * wide], axis=2) for i in range(tall)]
        found = tf.reshape(tf.stack(lines, axis=1), [-1, down * tall, across * wide, channels])
        missing = [p - c * s for p, c, s in zip(self.padded, self.count, self.size, strict=True)]
        return tf.pad(found, [[0, 0], [0, missing[0]], [0, missing[1]], [0, 0]]) if any(missing) else found

    def spread(self, numbers: tf.Tensor, place: Pair) -> tf.Tensor:
        """Return padded images with each window's number at that place of it, and zeros elsewhere."""
        wide = spaced(numbers, self.stride)
        first = [p * d for p, d in zip(place, self.dilation, strict=True)]
        margins = [
            [0, 0],
            *([f, p - f - w] for f, p, w in zip(first, self.padded, _pair(wide.shape), strict=True)),
            [0, 0],
        ]
        return tf.pad(wide, margins)

    def crop(self, padded: tf.Tensor) -> tf.Tensor:
        """Return the images without their margins."""
        (top, left), (height, width) = self.before, self.image
        return padded if self.padded == self.image else padded[:, top : top + height, left : left + width, :]


def spaced(images: tf.Tensor, stride: Pair) -> tf.Tensor:
    """Return the images with ``stride - 1`` zeros between their pixels."""
    rows, height, width, channels = images.shape
    down, across = stride
    if down > 1:
        lines = tf.pad(
            tf.reshape(images, [rows * height, 1, width * channels]), [[0, 0], [0, down - 1], [0, 0]]
        )
        images = tf.reshape(lines, [rows, height * down, width, channels])[:, : (height - 1) * down + 1]
        height = (height - 1) * down + 1
    if across > 1:
        pixels = tf.pad(
            tf.reshape(images, [rows * height * width, 1, channels]), [[0, 0], [0, across - 1], [0, 0]]
        )
        images = tf.reshape(pixels, [rows, height, width * across, channels])[
            :, :, : (width - 1) * across + 1
        ]
    return images


def _pair(four: Iterable[int]) -> Pair:
    """Return height and width out of rows, height, width and channels."""
    _, height, width, _ = (int(size) for size in four)
    return height, width


def _padding(op: tf.Operation, axis: int, overhang: int) -> Pair:
    """Return how much is padded before and after the image."""
    kind = op.get_attr("padding").decode()
    if kind == "EXPLICIT":
        before, after = op.get_attr("explicit_paddings")[2 + 2 * axis : 4 + 2 * axis]
        return before, max(after, overhang - before)
    if kind == "VALID":
        return 0, 0
    return max(overhang, 0) // 2, max(overhang, 0) - max(overhang, 0) // 2
