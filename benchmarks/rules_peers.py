"""The other side of benchmarks.rules: Flower's aggregation functions, or NumPy's own, over updates held in memory.

Run by path, with any Python that has NumPy (and flwr for Flower's); it must not need fedmq. Prints one JSON object:
``seconds``, ``cpu_seconds`` of all threads, and ``megabytes``, the peak of resident memory.

    python benchmarks/rules_peers.py flower median 100 1000000
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Updates: TypeAlias = list[NDArray[np.float32]]

CUT = 0.2
"""What share of the updates is cut off at either end, or taken for liars."""


def update(number: int, into: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return `into`, filled with one made-up update: the same numbers for everyone who is measured."""
    return np.random.default_rng(number).standard_normal(dtype=np.float32, out=into)


def peak_megabytes() -> float:
    """Return the peak of this process's resident memory, in MB (10^6 bytes)."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


class Watch:
    """A stop-watch of the time on the wall, and of the processor time of all threads of this process."""

    def __init__(self) -> None:
        self._total = [0.0, 0.0]
        self._begin = (0.0, 0.0)

    def __enter__(self) -> None:
        self._begin = time.perf_counter(), time.process_time()

    def __exit__(self, *_: object) -> None:
        for index, now in enumerate((time.perf_counter(), time.process_time())):
            self._total[index] += now - self._begin[index]

    def figures(self, name: str = "") -> dict[str, float]:
        """Return both sums, in seconds; their names begin with `name`."""
        return {f"{name}seconds": self._total[0], f"{name}cpu_seconds": self._total[1]}


def flower(name: str) -> Callable[[Updates], object]:
    """Return Flower's function, as its strategies call it: each update is one array and a number of examples."""
    from flwr.server.strategy import aggregate as flwr  # type: ignore[import-not-found]  # noqa: PLC0415

    ways: dict[str, Callable[[Any], object]] = {
        "mean": flwr.aggregate,
        "median": flwr.aggregate_median,
        "trimmed_mean": lambda results: flwr.aggregate_trimmed_avg(results, CUT),
        "krum": lambda results: flwr.aggregate_krum(results, int(CUT * len(results)), 0),
    }
    return lambda updates: ways[name]([([update], 10) for update in updates])


def plain(name: str) -> Callable[[Updates], object]:
    """Return the line of NumPy that one would write."""
    ways: dict[str, Callable[[NDArray[np.float32]], object]] = {
        "mean": lambda rows: np.mean(rows, axis=0),
        "median": lambda rows: np.median(rows, axis=0),
        "trimmed_mean": _trimmed,
        "krum": _krum,
    }
    return lambda updates: ways[name](np.array(updates))


def _trimmed(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    cut = int(CUT * len(rows))
    return np.asarray(np.sort(rows, axis=0)[cut : len(rows) - cut].mean(axis=0))


def _krum(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    gram = rows @ rows.T
    squares = gram.diagonal()[:, None] + gram.diagonal() - 2 * gram
    near = len(rows) - int(CUT * len(rows)) - 2
    return np.asarray(rows[np.argmin(np.sort(squares, axis=1)[:, 1 : 1 + near].sum(axis=1))])


def main() -> None:
    """Measure one function."""
    whose, name = sys.argv[1:3]
    count, size = map(int, sys.argv[3:5])
    way = {"flower": flower, "numpy": plain}[whose](name)
    updates = [update(number, np.empty(size, np.float32)) for number in range(count)]
    watch = Watch()
    with watch:
        way(updates)
    print(json.dumps({**watch.figures(), "megabytes": peak_megabytes()}))


if __name__ == "__main__":
    main()
