"""Networks of convolutions and dense layers, trained in stacks of devices by SGD with all that tasks may ask of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from fedmq.engines.numpy.layers import Convolution, ConvolutionSizes, Dense, DenseSizes
from fedmq.engines.numpy.stacks import judge, slopes_of, variables

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fedmq.descent import Pull
    from fedmq.engines.numpy.layers import Layer, Shape
    from fedmq.engines.numpy.stacks import Stack, Told
    from fedmq.trainers.numpy import Labels
    from fedmq.vectors import Layout, Vector

Sizes: TypeAlias = ConvolutionSizes | DenseSizes


@dataclass(frozen=True, slots=True)
class Network:
    """Layers, the first of which takes an `image` of shape (rows, columns, channels), or that many numbers.

    The last one's outputs are scores of classes.
    """

    image: Shape
    layers: tuple[Sizes, ...]

    @property
    def classes(self) -> int:
        """How many classes it tells apart."""
        last = self.layers[-1]
        assert isinstance(last, DenseSizes)  # noqa: S101  # as whoever made it has checked
        return last.outputs

    def begin(self) -> list[Layer]:
        """Return the layers, with the memory that a training of one stack needs."""
        image = self.image
        layers: list[Layer] = []
        for sizes in self.layers:
            if isinstance(sizes, DenseSizes):
                layers.append(Dense(sizes))
            else:
                layers.append(convolution := Convolution(sizes, image, len(layers)))
                image = convolution.outputs
        return layers


class NetworkDescent:
    """Weights of several devices on their way down from `models`: `vectors`, one row for each."""

    def __init__(
        self, network: Network, layout: Layout, models: Sequence[Vector], momentum: float = 0.0
    ) -> None:
        self.vectors: Stack = np.stack(models).astype(np.float32, copy=False)
        self._slopes = np.zeros_like(self.vectors)
        self._moves = np.zeros_like(self.vectors)
        self._momentum = np.float32(momentum)
        self._layers = network.begin()
        self._weights, self._weight_slopes = (
            _paired(layout, vectors) for vectors in (self.vectors, self._slopes)
        )
        self._pull: tuple[Stack, Stack, Stack] | None = None

    def pull(self, pulls: Sequence[Pull]) -> None:
        """Add each device's terms to what it makes small."""
        nothing = np.zeros(self.vectors.shape[1], np.float32)
        linear = np.stack([nothing if pull.linear is None else pull.linear for pull in pulls])
        strength = np.asarray([[pull.strength] for pull in pulls], np.float32)
        self._pull = linear, strength, self.vectors.copy()

    def look(self, x: Stack, labels: Labels, mask: Stack) -> Told:
        """Carry a batch of each device forward; return figures."""
        for layer, (kernel, bias) in zip(self._layers, self._weights, strict=True):
            x = layer.forward(x, kernel, bias)
        self._scores = x
        return judge(x, labels, mask)

    def step(self, labels: Labels, mask: Stack, rate: Stack) -> None:
        """Move by the batch that was looked at last; `rate` is of shape (devices, 1)."""
        back = slopes_of(self._scores, labels, mask, np.float32(1))
        for i in reversed(range(len(self._layers))):
            back = self._layers[i].backward(back, self._weights[i][0], self._weight_slopes[i], last=i == 0)
        if self._pull is not None:
            linear, strength, start = self._pull
            self._slopes += linear + strength * (self.vectors - start)
        self._moves *= self._momentum
        self._moves -= rate * self._slopes
        self.vectors += np.where(rate > 0, self._moves, np.float32(0))


def _paired(layout: Layout, vectors: Stack) -> list[tuple[Stack, Stack]]:
    """Return kernel and bias of each layer."""
    found = variables(layout, vectors)
    return list(zip(found[::2], found[1::2], strict=True))
