"""Quantisers that send few numbers, the large ones, and leave the others at zero."""
# ruff: noqa: ARG002 - a stage takes the arguments that its family's protocol names, needed or not

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

import numpy as np

from fedmq.codecs.rate import Rate
from fedmq.codecs.scales import Binary32
from fedmq.codecs.stages import Alphabet, Bound, ErrorSize, Quantised, ScaleForm, Sizes
from fedmq.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fedmq.codecs.stages import Symbols
    from fedmq.vectors import Vector

LEVELS: Final = 127
"""Most steps on either side of zero."""

_WIDEST: Final = 1000.0
_MOST: Final = float(np.finfo(np.float32).max)
_LEAST: Final = float(np.finfo(np.float32).smallest_subnormal)
_ROUNDINGS: Final = 2.0**-20
"""What float32's own roundings may add to an error, as a share of the number's magnitude."""


def root_mean_square(vector: Vector) -> float:
    """Return the root of the mean of squares, 0 for an empty vector; summed in float64."""
    if not vector.size:
        return 0.0
    return float(np.sqrt(np.mean(np.square(vector, dtype=np.float64))))


@dataclass(frozen=True, slots=True)
class Deadzone:
    """Numbers below `threshold` root mean squares of the vector become 0; the others are counted in equal steps.

    A step is `step` times the threshold. Where in its step a number is taken to lie is the mean over all that are sent,
    and goes with the message: so the sum of magnitudes is kept.
    """

    name: ClassVar[str] = "deadzone"
    examples: ClassVar[tuple[str, ...]] = ("deadzone", "deadzone(1.5)", "deadzone(4.0, step=0.25)")
    alphabet: ClassVar[Alphabet] = Alphabet("i1", -LEVELS, LEVELS)
    scale_form: ClassVar[ScaleForm] = Binary32()
    unbiased: ClassVar[bool] = False
    error: ClassVar[ErrorSize] = "large"
    even_error: ClassVar[ErrorSize] = "large"
    rate: ClassVar[Rate] = Rate("threshold", least=0.5, most=20.0, slope=-3.0)

    threshold: float = 3.0
    step: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 < self.threshold <= _WIDEST:
            raise ConfigError(
                f"deadzone leaves out what is below {self.threshold} root mean squares: "
                f"choose above 0, up to {_WIDEST:g}"
            )
        if not 1 / _WIDEST <= self.step <= _WIDEST:
            raise ConfigError(
                f"deadzone's step is {self.step} thresholds: choose one from {1 / _WIDEST:g} to {_WIDEST:g}"
            )

    def scales(self, sizes: Sizes) -> int:
        """Return 2: the step, and the magnitude of the first level."""
        return 2

    def encode(self, vector: Vector, sizes: Sizes, seed: int) -> Quantised:
        """Return levels, 0 for what is left out, and the two scales."""
        threshold, step = self._grid(vector)
        magnitudes = np.abs(vector)
        places = np.flatnonzero(magnitudes >= threshold)
        sent = magnitudes[places]
        below = np.minimum(np.floor((sent - threshold) / step), np.float32(LEVELS - 1))
        symbols = np.zeros(vector.size, dtype=np.int8)
        symbols[places] = np.copysign(below + np.float32(1), vector[places])
        return Quantised(np.array([step, _first(sent, below, threshold, step)], dtype=np.float32), symbols)

    def decode(self, quantised: Quantised, sizes: Sizes) -> Vector:
        """Return the sign times (first + (level - 1) · step), in operations of float32, at most its largest number."""
        step, first = quantised.scales
        levels = np.minimum(first + np.arange(LEVELS, dtype=np.float32) * step, np.float32(_MOST))
        return _placed(levels, quantised.symbols)

    def bound(self, vector: Vector, sizes: Sizes) -> Bound:
        """Return |x| below the threshold, a step above it, and beyond the last level the distance to it."""
        threshold, step = (float(number) for number in self._grid(vector))
        magnitudes = np.abs(vector.astype(np.float64))
        beyond = magnitudes - (threshold + (LEVELS - 1) * step)
        errors = np.where(magnitudes < threshold, magnitudes, np.maximum(step, beyond))
        return errors + magnitudes * _ROUNDINGS + 2.0**-149

    def _grid(self, vector: Vector) -> tuple[np.float32, np.float32]:
        """Return threshold and step: above 0, so that zeros stay zeros, and finite."""
        threshold = _scale(self.threshold * root_mean_square(vector))
        return threshold, _scale(self.step * float(threshold))


def _scale(number: float) -> np.float32:
    """Return the nearest number of float32 that is above 0 and finite."""
    return np.float32(min(max(number, _LEAST), _MOST))


@dataclass(frozen=True, slots=True)
class Ternary:
    """The sign of each number that is not zero, times the mean magnitude of them all.

    Behind `topk` it is sparse ternary compression (Sattler et al. 2019), behind nothing it is signs with one scale.
    """

    name: ClassVar[str] = "ternary"
    examples: ClassVar[tuple[str, ...]] = ("ternary",)
    alphabet: ClassVar[Alphabet] = Alphabet("i1", -1, 1)
    scale_form: ClassVar[ScaleForm] = Binary32()
    unbiased: ClassVar[bool] = False
    error: ClassVar[ErrorSize] = "large"
    even_error: ClassVar[ErrorSize] = "large"

    def scales(self, sizes: Sizes) -> int:
        """Return 1: the mean magnitude."""
        return 1

    def encode(self, vector: Vector, sizes: Sizes, seed: int) -> Quantised:
        """Return signs, and the mean magnitude of what is not zero."""
        return Quantised(
            np.array([_mean_magnitude(vector)], dtype=np.float32), np.sign(vector).astype(np.int8)
        )

    def decode(self, quantised: Quantised, sizes: Sizes) -> Vector:
        """Return signs times the mean magnitude, which is exact."""
        return _placed(quantised.scales, quantised.symbols)

    def bound(self, vector: Vector, sizes: Sizes) -> Bound:
        """Return how far each magnitude is from the mean, and 0 for zeros."""
        magnitudes = np.abs(vector.astype(np.float64))
        mean = _mean_magnitude(vector)
        return np.where(vector, np.abs(magnitudes - mean) + mean * _ROUNDINGS + 2.0**-149, 0.0)


def _mean_magnitude(vector: Vector) -> float:
    """Return the mean magnitude of the numbers that are not zero, 0 where there are none."""
    total = float(np.sum(np.abs(vector), dtype=np.float64))
    return total / max(1, int(np.count_nonzero(vector)))


def _first(sent: Vector, below: Vector, threshold: np.float32, step: np.float32) -> float:
    """Return the mean of what `sent` exceeds its steps `below` by, leaving out what the last level cuts off."""
    inside = below < LEVELS - 1
    if not inside.any():
        return min(float(threshold) + float(step) / 2, _MOST)
    return float(np.mean(sent[inside].astype(np.float64) - below[inside].astype(np.float64) * float(step)))


def _placed(levels: NDArray[np.float32], symbols: Symbols) -> Vector:
    """Return `levels` with the symbols' signs, where they are not 0."""
    places = np.flatnonzero(symbols)
    sent = symbols[places].astype(np.int64)
    vector = np.zeros(symbols.size, dtype=np.float32)
    vector[places] = np.copysign(levels[np.abs(sent) - 1], sent)
    return vector
