"""How much memory processes hold, and how seldom Python looks for what nobody needs any more."""

from __future__ import annotations

import gc
import os
import resource
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_MB: Final = 1e6
_OBJECTS: Final = 20_000
"""New objects between two searches for cycles, not Python's 700: a thousand devices make those in a moment."""


def resident_mb(pid: int | None = None) -> float:
    """Return the resident memory of a process, of this one where none is named, in megabytes (of a million bytes).

    Where the system does not tell (all but Linux): this one's highest until now, and 0 for others.
    """
    try:
        pages = int(Path(f"/proc/{pid or 'self'}/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return peak_mb() if pid in {None, os.getpid()} else 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / _MB


def peak_mb() -> float:
    """Return the most memory that this process has held at a time, in megabytes."""
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / _MB


@contextmanager
def seldom_collected() -> Iterator[None]:
    """Have Python search for unused cycles seldom meanwhile: what a fleet is made of stays as long as its run does.

    The searches took an eighth of the event loop's time (400 devices in one process).
    """
    before = gc.get_threshold()
    gc.set_threshold(_OBJECTS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
