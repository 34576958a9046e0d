"""A package that is installed, and is not to be imported for a while because something would only do so if it could."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def absent(package: str) -> Iterator[None]:
    """Have `package` look as if it were not installed; where it has been imported already, nothing changes."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]  # Python's mark for "cannot be imported"
    try:
        yield
    finally:
        del sys.modules[package]
