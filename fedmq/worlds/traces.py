"""Availability as it was measured: a CSV file that says from when to when each device was up.

The first line is ``device,from_s,to_s``; each further one is a session: the device's name (any text without a comma)
and two times in seconds from the beginning of the trace. The sessions of one device come in the order of time and do
not overlap; devices may come in any order. A fleet with more devices than the trace gives several the same sessions;
after its last second the trace begins anew.
"""

from __future__ import annotations

import csv
import math
from typing import TYPE_CHECKING, Final

import numpy as np

from fedmq.errors import ConfigError
from fedmq.worlds.availability import Booleans, Spell

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from fedmq.worlds.chance import Integers

HEADING: Final = ["device", "from_s", "to_s"]
MOST_SESSIONS: Final = 5_000_000
"""Sessions that a file may hold: some 80 MB of them."""


class Trace:
    """Sessions from a file; device number i has those of the i-th device in the file, counted round and round."""

    def __init__(self, sessions: Sequence[Sequence[tuple[float, float]]]) -> None:
        """Take for each device of the trace its sessions, in order."""
        counts = [len(own) for own in sessions]
        self._edges = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        flat = np.array([pair for own in sessions for pair in own], np.float64)
        self._first, self._last = flat[:, 0].copy(), flat[:, 1].copy()
        self._length = float(self._last.max())
        owners = np.repeat(np.arange(len(sessions)), counts)
        self._keys = (
            owners * self._length + self._first
        )  # rises, for a device's sessions begin within the length

    def up(self, devices: Integers, time: float) -> Booleans:
        """Tell of each."""
        within, owners = time % self._length, devices % (len(self._edges) - 1)
        at = np.searchsorted(self._keys, owners * self._length + within, side="right") - 1
        known = at >= self._edges[owners]
        return np.asarray(known & (within < self._last[np.maximum(at, 0)]))

    def spell(self, device: int, time: float) -> Spell:
        """Return the spell; a session that lasts to the trace's end goes on where one begins with it."""
        turn, within = divmod(time, self._length)
        owner = device % (len(self._edges) - 1)
        first, last = self._edges[owner], self._edges[owner + 1]
        at = int(np.searchsorted(self._last[first:last], within, side="right")) + int(first)
        if at == last:
            return Spell(up=False, until=(turn + 1) * self._length + float(self._first[first]))
        if within < self._first[at]:
            return Spell(up=False, until=turn * self._length + float(self._first[at]))
        return Spell(up=True, until=turn * self._length + float(self._last[at]))


def read_trace(path: Path) -> Trace:
    """Read a trace. Raises ConfigError with the line where the file is not one."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            sessions = _sessions(path, csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"cannot read the trace {path}: {reason}") from None
    if not sessions:
        raise ConfigError(f"{path} holds no session: write lines of {','.join(HEADING)}")
    return Trace(list(sessions.values()))


def _sessions(path: Path, rows: Iterable[list[str]]) -> dict[str, list[tuple[float, float]]]:
    found: dict[str, list[tuple[float, float]]] = {}
    for number, row in enumerate(rows, 1):
        if number == 1:
            _require(row == HEADING, path, number, f"begins with {row!r}; {','.join(HEADING)} was wanted")
            continue
        _require(
            number <= MOST_SESSIONS + 1, path, number, f"is one session too many: {MOST_SESSIONS} are taken"
        )
        _require(
            len(row) == len(HEADING), path, number, f"has {len(row)} fields; {','.join(HEADING)} were wanted"
        )
        own = found.setdefault(row[0], [])
        own.append((_seconds(path, number, row[1]), _seconds(path, number, row[2])))
        _require(own[-1][0] < own[-1][1], path, number, "ends before it begins")
        if len(own) > 1:
            (_, before), (begins, _) = own[-2:]
            _require(
                before <= begins,
                path,
                number,
                f"begins before {row[0]!r} was down: sort its sessions by time",
            )
    return found


def _seconds(path: Path, number: int, word: str) -> float:
    try:
        seconds = float(word)
    except ValueError:
        seconds = math.nan
    _require(0 <= seconds < math.inf, path, number, f"has {word[:40]!r} where a time in seconds was wanted")
    return seconds


def _require(holds: bool, path: Path, number: int, sentence: str) -> None:  # noqa: FBT001 - reads as an assertion
    if not holds:
        raise ConfigError(f"{path}, line {number}: {sentence}")
