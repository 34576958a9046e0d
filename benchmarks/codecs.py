"""What each codec preset makes of a real update: bytes, error and time.

The update is what one device's training gives: an MLP of 101,770 parameters, two epochs on a share of 5,000 MNIST
images (20 devices, Dirichlet 0.5). Times are CPU time, the least of several.

    python -m benchmarks.codecs --json
"""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, Final

import numpy as np

from benchmarks.report import Goal, report
from fedmq.codecs import PRESETS, parse
from fedmq.datasets import deal, mnist
from fedmq.trainers.numpy import Mlp, NumpyTrainer

if TYPE_CHECKING:
    from collections.abc import Callable

    from fedmq.vectors import Layout, Vector

ONE_IN: Final = (10, 20, 50)
"""Numbers of the vector for one bit of the averaging codecs' messages."""

CHAINS: Final = {
    **PRESETS,
    **{name: name for name in ("float32", "float16", "int8")},
    **{f"fold_{layers}": f"fold({layers}) | rotate | eden" for layers in ONE_IN},
    **{f"sample_{layers}": f"rotate | sample({1 / layers}) | eden" for layers in ONE_IN},
}
GOALS_MS: Final = {name: 1.0 if name == "stateless" else 5.0 for name in PRESETS}


def real_update() -> tuple[Vector, Layout]:
    """Return the delta of one device's training, and its model's layout."""
    digits = mnist()
    rows = deal("dirichlet(0.5)", digits, devices=20)[0]
    flat = digits.x.reshape(len(digits.x), -1)
    trainer = NumpyTrainer(Mlp(784, (128,), classes=10), flat[rows], digits.y[rows], learning_rate=0.1)
    first = trainer.initial()
    trained = trainer.train(first, {"epochs": 2, "batch_size": 16}, seed=1)
    return trained.vector - first, trainer.layout


def least_ms(work: Callable[[], object], times: int) -> float:
    """Return the least CPU time of several runs, in milliseconds."""
    spent = []
    for _ in range(times):
        before = time.process_time()
        work()
        spent.append(time.process_time() - before)
    return 1000 * min(spent)


def figures_of(name: str, delta: Vector, layout: Layout, times: int) -> dict[str, float]:
    """Measure one codec."""
    codec = parse(CHAINS[name])
    data = codec.encode(delta, layout.sizes)
    error = float(np.linalg.norm(codec.decode(data, layout.sizes) - delta) / np.linalg.norm(delta))
    return {
        f"{name}_bytes": len(data),
        f"{name}_times_fewer": 4 * delta.size / len(data),
        f"{name}_relative_error": error,
        f"{name}_encode_ms": least_ms(lambda: codec.encode(delta, layout.sizes), times),
        f"{name}_decode_ms": least_ms(lambda: codec.decode(data, layout.sizes), times),
    }


def main() -> None:
    """Measure every preset."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer repeats")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    arguments = parser.parse_args()
    delta, layout = real_update()
    figures: dict[str, float] = {"parameters": delta.size}
    for name in CHAINS:
        figures |= figures_of(name, delta, layout, 3 if arguments.quick else 20)
    goals = [
        Goal(f"{name}: encode and decode 100 k parameters, ms", both, "<=", GOALS_MS[name])
        for name in PRESETS
        for both in [figures[f"{name}_encode_ms"] + figures[f"{name}_decode_ms"]]
    ]
    report(figures, goals, arguments.json)


if __name__ == "__main__":
    main()
