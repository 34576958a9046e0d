"""One sentence's worth of checking for the fields of rules' parts."""

from __future__ import annotations

from fedmq.errors import ConfigError


def require(holds: bool, sentence: str) -> None:  # noqa: FBT001 # reads as `require(0 < rate, "…")`
    """Raise ConfigError with `sentence` unless the condition `holds`; comparisons make NaN fail it too."""
    if not holds:
        raise ConfigError(sentence)
