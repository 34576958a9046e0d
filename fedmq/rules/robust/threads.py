"""Work in two threads: NumPy, SHA-256 and reading from files let another thread run meanwhile."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")

_WORKERS: Final = min(2, os.cpu_count() or 1)

_SMALL: Final = 2**18
"""Numbers that are worked on in less time than it takes to start a thread."""


def share_out(work: Callable[[Sequence[T]], None], items: Sequence[T], numbers: int) -> None:
    """Give `items`, of so many `numbers` in all, to `work`: every second one in a thread of its own, if they are many.

    Raises what `work` raises. Two threads, however many processors there are: each has buffers of its own.
    """
    if numbers < _SMALL:
        work(items)
        return
    with ThreadPoolExecutor(_WORKERS) as pool:
        list(pool.map(work, (items[first::_WORKERS] for first in range(_WORKERS))))
