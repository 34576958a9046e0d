"""What `benchmarks.fleet` trains: a perceptron of 101,770 parameters on 50 examples of 784 numbers a device.

There are a hundred different shares, and every hundredth device has the same one: what ten thousand shares take in
memory is no property of a simulation.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from fedmq.trainers.numpy import Mlp

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Share = tuple[NDArray[np.float32], NDArray[np.int64]]

EXAMPLES, INPUTS, CLASSES, SHARES = 50, 784, 10, 100


def model() -> Mlp:
    """Return one hidden layer of 128."""
    return Mlp(INPUTS, (128,), classes=CLASSES)


def data(device: str) -> Share:
    """Return noise: how fast a device trains has nothing to do with what it learns."""
    return _share(int(re.findall(r"\d+", device)[-1]) % SHARES)


@lru_cache(SHARES)
def _share(number: int) -> Share:
    chance = np.random.Generator(np.random.Philox(number))
    x = chance.standard_normal((EXAMPLES, INPUTS), dtype=np.float32)
    return x, chance.integers(0, CLASSES, EXAMPLES)
