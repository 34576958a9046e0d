"""Numbers of bytes as people write and read them: 1 kB is 1,000 bytes, as on a bill."""

from __future__ import annotations

import re
from typing import Final, NewType

from fedmq.errors import ConfigError

ByteCount = NewType("ByteCount", int)
"""A number of bytes; in a file a whole number, or a text such as ``2 MB``."""

_UNITS: Final = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9}
_TEXT: Final = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?) ?([A-Za-z]{1,5})")
_LONG: Final = 1000  # from here on the next unit is shorter
_PRECISE: Final = 100  # from here on digits behind the point say nothing


def read_bytes(text: str) -> ByteCount:
    """Return what a text such as ``2 MB`` or ``1.5kB`` says. Raises ConfigError."""
    found = _TEXT.fullmatch(text.strip())
    units = {unit.lower(): size for unit, size in _UNITS.items()}
    if found is None or found[2].lower() not in units:
        raise ConfigError(f"is {text!r}; a number of bytes was wanted, such as 1500 or '1.5 kB' or '2 MB'")
    return ByteCount(round(float(found[1]) * units[found[2].lower()]))


def spell_bytes(count: float) -> str:
    """Return a number of bytes in three digits or so, with the unit that suits it."""
    for unit in ("B", "kB", "MB"):
        if count < _LONG:
            return f"{count:.0f} {unit}" if unit == "B" or count >= _PRECISE else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
