"""The random numbers of dropout and its like, the same as TensorFlow draws for Keras from the same seed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from fedmq.trainers.batches import layer_seeds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from fedmq.trainers.litert.file import Description

    Words = Sequence[NDArray[np.uint64]]

_LOW: Final = np.uint64(0xFFFFFFFF)
_HALF: Final = np.uint64(32)
_MULTIPLIERS: Final = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_STEPS: Final = 0x9E3779B9, 0xBB67AE85
_SCRAMBLING_KEY: Final = 0x3EC8F720, 0x02461E29
_ROUNDS: Final = 10


class Drawing:
    """What a round's layers draw, step by step: Keras gives each layer a generator, whose seed comes from ours."""

    def __init__(self, description: Description, seed: int) -> None:
        self._draws = description.draws
        self._seeds = [int(number) for number in layer_seeds(seed, description.generators)]
        self._steps = 0

    def step(self, rows: int) -> list[NDArray[np.float32]]:
        """Return the numbers of the next step, for a batch of `rows`, one array for each of the model's draws."""
        done, self._steps = self._steps, self._steps + 1
        return [
            uniform((self._seeds[draw.generator], done * draw.draws + draw.place), (rows, *draw.shape))
            for draw in self._draws
        ]


def uniform(seed: tuple[int, int], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return what ``tf.random.stateless_uniform(shape, seed)`` does on a CPU: float32 in [0, 1), from Philox4x32-10.

    Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3" (Philox); TensorFlow first makes a key and half a
    counter out of the seed, by way of the same function.
    """
    size = math.prod(shape)
    parts = [np.asarray([word & 0xFFFFFFFF], np.uint64) for s in seed for word in (s, s >> 32)]
    key0, key1, high0, high1 = (int(word[0]) for word in _philox(parts, _SCRAMBLING_KEY))
    blocks = np.arange(-(-size // 4), dtype=np.uint64)
    counter = [blocks & _LOW, blocks >> _HALF, np.full_like(blocks, high0), np.full_like(blocks, high1)]
    words = np.stack(_philox(counter, (key0, key1)), axis=1).reshape(-1)[:size].astype(np.uint32)
    return (((words & np.uint32(0x7FFFFF)) | np.uint32(0x3F800000)).view(np.float32) - np.float32(1)).reshape(
        shape
    )


def _philox(counter: Words, key: tuple[int, int]) -> Words:
    """Return Philox4x32-10 of counters, four words each (in 64 bits, so that products fit)."""
    one, two, three, four = counter
    for number in range(_ROUNDS):
        key0, key1 = (
            np.uint64((k + number * step) & 0xFFFFFFFF) for k, step in zip(key, _STEPS, strict=True)
        )
        first, second = one * _MULTIPLIERS[0], three * _MULTIPLIERS[1]
        one, two = (second >> _HALF) ^ two ^ key0, second & _LOW
        three, four = (first >> _HALF) ^ four ^ key1, first & _LOW
    return one, two, three, four
