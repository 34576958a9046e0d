"""Reducers beside Flower's aggregation functions and plain NumPy: time and memory for 100 updates of 1 M numbers.

Every figure comes from a process of its own. Ours take updates as they come, and count in full: absorbing all of them
(robust ones write them to a file) and the result. Flower's and NumPy's have all updates in memory before their time
begins. What making an update costs is in no one's time. The goals are for time on the wall, and hold on a machine with
nothing else to do: robust rules work in two threads. Memory is the peak of the whole process; `added` is how far it
rises above what it was with one update and nothing absorbed.

Flower runs in the Python that is named, which needs ``flwr`` 1.42 and nothing of ours; without one, its figures and the
goals that hang on them are left out.

    python -m benchmarks.rules --flower PYTHON [--quick] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks import rules_peers
from benchmarks.report import Goal, report
from benchmarks.rules_peers import CUT, Watch, peak_megabytes, update

COMPARED: Final = ("mean", "median", "trimmed_mean", "krum")
ROBUST: Final = COMPARED[1:]
GOAL_TIMES: Final = 5.0
GOAL_MEGABYTES: Final = 100.0
GOAL_MODELS: Final = 3.0

Measured = dict[str, float]


def measure_ours(kind: str, count: int, size: int) -> Measured:
    """Absorb and reduce `count` updates in this process."""
    from fedmq.rules import REDUCERS  # noqa: PLC0415 # what importing costs is in the process that pays it
    from fedmq.vectors import Layout, Variable  # noqa: PLC0415

    fields = {"attackers": CUT} if kind in {"trimmed_mean", "mean_around_median", "krum"} else {}
    reducer = REDUCERS[kind](**fields)
    delta = update(0, np.empty(size, np.float32))
    before = peak_megabytes()
    absorbing, reducing = Watch(), Watch()
    with tempfile.TemporaryDirectory() as folder:
        state = reducer.zero(Layout((Variable("w", (size,)),)), Path(folder))
        for number in range(count):
            update(number, delta)
            with absorbing:
                reducer.add(state, delta, 10.0)
        del delta  # as in a round: when it ends, no update is at hand
        with reducing:
            reducer.rounded(state)
        peak = peak_megabytes()
        del state
    first, second = absorbing.figures(), reducing.figures()
    return {
        **{name: first[name] + second[name] for name in first},
        **absorbing.figures("absorb_"),
        "megabytes": peak,
        "added_megabytes": peak - before,
    }


def measured(command: list[str], runs: int) -> Measured:
    """Run `command` in that many new processes, one after the other; return the one that took the least time.

    By way of a shell: a process starts with its parent's peak of memory as its own, and a shell's is small.
    """
    shell = ["/bin/sh", "-c", '"$@"; exit $?', "sh", *command]
    outputs = [
        subprocess.run(shell, check=True, stdout=subprocess.PIPE, text=True).stdout for _ in range(runs)
    ]
    found: list[Measured] = [json.loads(output) for output in outputs]
    return min(found, key=lambda figures: figures["seconds"])


def kinds() -> list[str]:
    """Return the compared kinds, then all others but `minimum_diameter`, which refuses as many as a hundred updates."""
    from fedmq.rules import REDUCERS  # noqa: PLC0415 # as above

    return [*COMPARED, *(kind for kind in REDUCERS if kind not in {*COMPARED, "minimum_diameter"})]


def figures_of(kind: str, flower: str | None, arguments: list[str], runs: int) -> dict[str, float]:
    """Measure one reducer, and those of others that do the same."""
    ours = measured([sys.executable, "-m", "benchmarks.rules", "--one", kind, *arguments], runs)
    figures = {f"{kind}_{name}": value for name, value in ours.items()}
    if kind in COMPARED:
        peers = [("numpy", sys.executable), *([("flower", flower)] if flower else [])]
        for whose, python in peers:
            found = measured([python, str(Path(rules_peers.__file__)), whose, kind, *arguments], runs)
            figures |= {f"{kind}_{whose}_{name}": value for name, value in found.items()}
            figures[f"{kind}_times_faster_than_{whose}"] = found["seconds"] / ours["seconds"]
            figures[f"{kind}_times_less_cpu_than_{whose}"] = found["cpu_seconds"] / ours["cpu_seconds"]
    return figures


def goals_of(figures: dict[str, float], size: int) -> list[Goal]:
    """Return the goals that were measured."""
    models = figures["mean_added_megabytes"] / (4 * size / 1e6)
    goals = [Goal("mean: memory above one update, in models", models, "<=", GOAL_MODELS)]
    for kind in COMPARED:
        name = f"{kind}_times_faster_than_flower"
        if name in figures:
            least = GOAL_TIMES if kind in ROBUST else 1.0
            goals.append(Goal(f"{kind}: times faster than Flower's", figures[name], ">=", least))
        if kind in ROBUST and f"{kind}_megabytes" in figures:
            goals.append(Goal(f"{kind}: MB in all", figures[f"{kind}_megabytes"], "<", GOAL_MEGABYTES))
    return goals


def parsed() -> Any:  # noqa: ANN401 # argparse has no types
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--flower", metavar="PYTHON", help="a Python that has flwr 1.42")
    parser.add_argument("--quick", action="store_true", help="one run of each, 100,000 numbers")
    parser.add_argument("--only", nargs="+", metavar="KIND", help="measure these reducers alone")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    parser.add_argument("--one", nargs=3, metavar=("KIND", "UPDATES", "NUMBERS"), help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Measure all reducers, or, as a child of oneself, one."""
    arguments = parsed()
    if arguments.one:
        kind, count, size = arguments.one
        print(json.dumps(measure_ours(kind, int(count), int(size))))
        return
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # its threads wait for each other by spinning
    updates, size = 100, 100_000 if arguments.quick else 1_000_000
    figures: dict[str, float] = {"updates": updates, "numbers": size}
    for kind in arguments.only or kinds():
        sizes = [str(updates), str(size)]
        figures |= figures_of(kind, arguments.flower, sizes, 1 if arguments.quick else 3)
    report(figures, goals_of(figures, size), arguments.json)


if __name__ == "__main__":
    main()
