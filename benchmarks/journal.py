"""What it costs to have updates on the disk before their receipts: fedmq's journal beside SQLite, for the same groups.

Each way takes the same groups of updates, commits one group at a time, and is told that it is durable only when it is
(fdatasync; in SQLite WAL with ``synchronous=FULL``). The ways take turns, group by group, so that a busy moment of the
disk meets all of them; the figure is the first quartile over the groups: slower ones waited for others.

- `journal`: one file of records, one sync (what fedmq does).
- `blobs`: rows with the payload in them, one transaction.
- `index`: payloads appended to a file and synced, then a transaction of rows that say where they stand.

    python -m benchmarks.journal --json
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import quantiles
from typing import TYPE_CHECKING, Final, Protocol

from benchmarks.report import Goal, report
from fedmq.store.journal import Journal, Piece

if TYPE_CHECKING:
    from collections.abc import Sequence

CASES: Final = ((1, 1_000), (20, 1_000), (1, 100_000), (20, 100_000), (1, 1_000_000), (20, 1_000_000))
"""Updates in a group, and bytes of each."""
GROUPS: Final = 40
QUICK_GROUPS: Final = 5


class Way(Protocol):
    """Somewhere to commit updates to."""

    def commit(self, group: Sequence[bytes]) -> None:
        """Return when all of them are durable."""

    def close(self) -> None:
        """Close the files."""


class Records:
    """fedmq's journal."""

    def __init__(self, folder: Path) -> None:
        """Begin one."""
        self._journal = Journal.create(folder / "round-a.journal", b"the task")

    def commit(self, group: Sequence[bytes]) -> None:
        """Append and sync."""
        self._journal.append([Piece(f"device-{number}", None, body) for number, body in enumerate(group)])

    def close(self) -> None:
        """Close it."""
        self._journal.close()


class Blobs:
    """A table with the payloads in it."""

    def __init__(self, folder: Path) -> None:
        """Begin one."""
        self._base = database(folder / "blobs.sqlite", "device TEXT, round INTEGER, payload BLOB")

    def commit(self, group: Sequence[bytes]) -> None:
        """Insert them in one transaction."""
        rows = [(f"device-{number}", 1, body) for number, body in enumerate(group)]
        with self._base:
            self._base.executemany("INSERT INTO updates VALUES (?, ?, ?)", rows)

    def close(self) -> None:
        """Close it."""
        self._base.close()


class Index:
    """Payloads in a file, and a table that says where they stand."""

    def __init__(self, folder: Path) -> None:
        """Begin both."""
        self._base = database(
            folder / "index.sqlite", "device TEXT, round INTEGER, at INTEGER, length INTEGER"
        )
        self._file = os.open(folder / "payloads", os.O_WRONLY | os.O_CREAT)
        self._end = 0

    def commit(self, group: Sequence[bytes]) -> None:
        """Append and sync, then insert in one transaction."""
        rows = []
        for number, body in enumerate(group):
            rows.append((f"device-{number}", 1, self._end, len(body)))
            self._end += len(body)
        os.writev(self._file, group)
        os.fdatasync(self._file)
        with self._base:
            self._base.executemany("INSERT INTO updates VALUES (?, ?, ?, ?)", rows)

    def close(self) -> None:
        """Close both."""
        self._base.close()
        os.close(self._file)


def database(path: Path, columns: str) -> sqlite3.Connection:
    """Return a new database that is durable after each transaction."""
    base = sqlite3.connect(path)
    base.execute("PRAGMA journal_mode = WAL")
    base.execute("PRAGMA synchronous = FULL")
    base.execute(f"CREATE TABLE updates ({columns})")
    return base


WAYS: Final[dict[str, type[Records | Blobs | Index]]] = {"journal": Records, "blobs": Blobs, "index": Index}


def measure(count: int, size: int, groups: int) -> dict[str, float]:
    """Return what each way takes for one group, in milliseconds."""
    group = [os.urandom(size) for _ in range(count)]
    with ExitStack() as open_things:
        where = open_things.enter_context(tempfile.TemporaryDirectory(dir=os.environ.get("BENCHMARK_FOLDER")))
        ways: dict[str, Way] = {}
        for name, way in WAYS.items():
            ways[name] = way(Path(where))
            open_things.callback(ways[name].close)
        spent: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(groups):
            for name, each in ways.items():
                began = time.perf_counter()
                each.commit(group)
                spent[name].append(time.perf_counter() - began)
    return {name: 1e3 * quantiles(times, n=4)[0] for name, times in spent.items()}


def main() -> None:
    """Measure all cases."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_GROUPS} groups of each")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    given = parser.parse_args()
    figures: dict[str, float] = {}
    goals: list[Goal] = []
    for count, size in CASES:
        found = measure(count, size, QUICK_GROUPS if given.quick else GROUPS)
        case = f"{count}x{size // 1000}kB"
        figures |= {f"{case}_{name}_ms": milliseconds for name, milliseconds in found.items()}
        goals += [
            Goal(f"{case}: times {other}'s", found["journal"] / found[other], "<=", 1.0)
            for other in ("blobs", "index")
        ]
    report(figures, goals, given.json)


if __name__ == "__main__":
    main()
