"""What a process and all that it has started take of processor and memory, read from Linux' /proc."""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Taken:
    """What one process has taken: `cpu_s` until now; `rss_mb` is resident, `pss_mb` has what is shared shared out.

    `loop_s` of `cpu_s` is its first thread's, which in a process of ours has the event loop.
    """

    name: str
    cpu_s: float
    rss_mb: float
    pss_mb: float
    loop_s: float = 0.0


def family(pid: int, *, pss: bool = True) -> dict[int, Taken]:
    """Return what a process and its descendants have taken, by process number; without `pss` that is left 0."""
    children, stats = defaultdict[int, list[int]](list), dict[int, tuple[str, list[str]]]()
    for path in Path("/proc").iterdir():
        if path.name.isdigit() and (found := _stat(path)):
            stats[int(path.name)] = found
            children[int(found[1][1])].append(int(path.name))
    taken, waiting = dict[int, Taken](), [pid]
    while waiting:
        each = waiting.pop()
        waiting += children[each]
        if each in stats:
            name, fields = stats[each]
            first = _stat(Path(f"/proc/{each}/task/{each}"))
            taken[each] = Taken(
                name,
                _cpu_s(fields),
                int(fields[21]) * _PAGE / 1e6,
                _pss_mb(each) if pss else 0.0,
                _cpu_s(first[1]) if first else 0.0,
            )
    return taken


def _cpu_s(fields: Sequence[str]) -> float:
    return (int(fields[11]) + int(fields[12])) / _TICK


def _stat(path: Path) -> tuple[str, list[str]] | None:
    """Return the name of a process or thread, and the fields behind it; None where it has ended."""
    try:
        text = (path / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    name, _, rest = text.partition("(")[2].rpartition(")")
    return name, rest.split()


def _pss_mb(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024 / 1e6
