"""What each codec preset makes of a real update: bytes, error and time; and of the whole model, in bytes.

The update is what one device's training gives: an MLP of 101,770 parameters (or with more, `--hidden 1200 1200`), two
epochs on a share of 5,000 MNIST images (20 devices, Dirichlet 0.5). Times are CPU time, the least of many; codecs take
turns, so that a busy moment of the machine falls upon all of them.

    python -m benchmarks.codecs --json
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Final

import numpy as np

from benchmarks.report import Goal, report
from fedmq.codecs import PRESETS, parse
from fedmq.datasets import deal, mnist
from fedmq.trainers.numpy import Mlp, NumpyTrainer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fedmq.codecs.stages import Sizes
    from fedmq.vectors import Layout, Vector

ONE_IN: Final = (10, 20, 50)
"""Numbers of the vector for one bit of the averaging codecs' messages."""

CHAINS: Final = {
    **PRESETS,
    **{name: name for name in ("float32", "float16", "int8")},
    "lzma": "int8 | lzma",
    **{f"fold_{layers}": f"fold({layers}) | rotate | eden" for layers in ONE_IN},
    **{f"sample_{layers}": f"rotate | sample({1 / layers}) | eden" for layers in ONE_IN},
}
GOALS_MS: Final = {name: 1.0 if name == "stateless" else 5.0 for name in PRESETS}


@dataclass(frozen=True, slots=True)
class Times:
    """Of one codec: CPU time in milliseconds."""

    encode_ms: float
    decode_ms: float

    @property
    def both_ms(self) -> float:
        """Encode and decode."""
        return self.encode_ms + self.decode_ms


def real_update(hidden: Sequence[int] = (128,)) -> tuple[Vector, Layout]:
    """Return the delta of one device's training, and its model's layout."""
    first, trained, layout = real_training(hidden)
    return trained - first, layout


def real_training(hidden: Sequence[int]) -> tuple[Vector, Vector, Layout]:
    """Return the model that one device is given and what it makes of it."""
    digits = mnist()
    rows = deal("dirichlet(0.5)", digits, devices=20)[0]
    flat = digits.x.reshape(len(digits.x), -1)
    trainer = NumpyTrainer(Mlp(784, tuple(hidden), classes=10), flat[rows], digits.y[rows], learning_rate=0.1)
    first = trainer.initial()
    trained = trainer.train(first, {"epochs": 2, "batch_size": 16}, seed=1)
    return first, trained.vector, trainer.layout


def least_ms(work: Callable[[], object], times: int) -> float:
    """Return the least CPU time of several runs, in milliseconds."""
    return min(_ms(work) for _ in range(times))


def least_times(lines: Sequence[str], delta: Vector, sizes: Sizes, times: int) -> dict[str, Times]:
    """Return each codec's least times of so many; they take turns."""
    codecs = {line: parse(line) for line in lines}
    bodies = {line: codec.encode(delta, sizes, seed=1) for line, codec in codecs.items()}
    spent = {line: ([math.inf], [math.inf]) for line in lines}
    for _, (line, codec) in product(range(times), codecs.items()):
        spent[line][0].append(_ms(partial(codec.encode, delta, sizes, seed=1)))
        spent[line][1].append(_ms(partial(codec.decode, bodies[line], sizes, seed=1)))
    return {line: Times(min(encode), min(decode)) for line, (encode, decode) in spent.items()}


def _ms(work: Callable[[], object]) -> float:
    before = time.process_time()
    work()
    return 1000 * (time.process_time() - before)


def figures_of(name: str, delta: Vector, model: Vector, sizes: Sizes) -> dict[str, float]:
    """Return bytes and error of one codec."""
    codec = parse(CHAINS[name])
    data = codec.encode(delta, sizes)
    error = float(np.linalg.norm(codec.decode(data, sizes) - delta) / np.linalg.norm(delta))
    return {
        f"{name}_bytes": len(data),
        f"{name}_times_fewer": 4 * delta.size / len(data),
        f"{name}_relative_error": error,
        f"{name}_model_times_fewer": 4 * model.size / len(codec.encode(model, sizes)),
    }


def main() -> None:
    """Measure every preset."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer repeats")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    parser.add_argument("--repeats", type=int, default=100, help="how many times each is timed")
    parser.add_argument(
        "--hidden", type=int, nargs="+", default=[128], help="units of the MLP's hidden layers"
    )
    arguments = parser.parse_args()
    first, trained, layout = real_training(arguments.hidden)
    delta, lines = trained - first, list(CHAINS.values())
    spent = least_times(lines, delta, layout.sizes, 3 if arguments.quick else arguments.repeats)
    figures: dict[str, float] = {"parameters": delta.size}
    for name, line in CHAINS.items():
        figures |= figures_of(name, delta, trained, layout.sizes)
        figures |= {f"{name}_encode_ms": spent[line].encode_ms, f"{name}_decode_ms": spent[line].decode_ms}
    per_100k = 100_000 / delta.size
    goals = [
        Goal(f"{name}: encode and decode 100 k parameters, ms", both, "<=", GOALS_MS[name])
        for name, line in PRESETS.items()
        for both in [per_100k * spent[line].both_ms]
    ]
    report(figures, goals, arguments.json)


if __name__ == "__main__":
    main()
