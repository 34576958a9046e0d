"""What the tables of a world are held to, in one sentence each."""

from __future__ import annotations

import math

from fedmq.errors import ConfigError


def want(holds: bool, sentence: str) -> None:  # noqa: FBT001 - reads as an assertion
    """Raise ConfigError with the sentence unless it holds."""
    if not holds:
        raise ConfigError(sentence)


def want_positive(name: str, value: float) -> None:
    """Raise ConfigError unless `value` is above 0 and finite."""
    want(0 < value < math.inf, f"{name} is {value}; it must be above 0 and finite")


def want_at_least_zero(name: str, value: float) -> None:
    """Raise ConfigError unless `value` is finite and not below 0."""
    want(0 <= value < math.inf, f"{name} is {value}; it must be 0 or more, and finite")


def want_share(name: str, value: float) -> None:
    """Raise ConfigError unless `value` is from 0 to 1."""
    want(0 <= value <= 1, f"{name} is {value}; it must be a share from 0 to 1")
