"""A thousand small federations, the same wherever they are made: what make_rules.py feeds Flower and the tests us.

Python promises the numbers of `random.Random.random` for a seed, NumPy's generators do not.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

CASES, ROUNDS, SIZE = 1000, 3, 3


@dataclass(frozen=True)
class Case:
    """One federation: its first model, what each device sends in each round, and its rule's settings.

    `deltas` has shape (rounds, devices, numbers); its numbers, and those of `start`, are exact in float32.
    """

    start: NDArray[np.float64]
    deltas: NDArray[np.float64]
    examples: list[int]
    losses: list[float]
    settings: dict[str, float]


def cases() -> list[Case]:
    random = Random(20_240_607)
    return [_case(random) for _ in range(CASES)]


def _case(random: Random) -> Case:
    devices = 1 + int(5 * random.random())
    size = 10 ** (-3 * random.random())
    return Case(
        _numbers(random, (SIZE,), 1.0),
        _numbers(random, (ROUNDS, devices, SIZE), size),
        [1 + int(1000 * random.random()) for _ in range(devices)],
        [0.02 + 5 * random.random() for _ in range(devices)],
        {
            "rate": 0.01 + random.random(),
            "beta": 0.99 * random.random(),
            "beta2": 0.5 + 0.499 * random.random(),
            "tau": 10 ** (-1 - 3 * random.random()),
            "q": 3 * random.random(),
            "learning_rate": 0.01 + random.random(),
        },
    )


def _numbers(random: Random, shape: tuple[int, ...], size: float) -> NDArray[Any]:
    count = int(np.prod(shape))
    numbers = [size * (2 * random.random() - 1) for _ in range(count)]
    return np.array(numbers, np.float32).astype(np.float64).reshape(shape)
