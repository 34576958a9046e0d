"""How much memory processes hold."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path
from typing import Final

_MB: Final = 1e6


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
