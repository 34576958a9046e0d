"""Which devices of a fleet live in which process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from fedmq.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

T = TypeVar("T")

SESSIONS: Final = 5_000
"""MQTT sessions that one process bears well; a fleet of more is spread over several."""


@dataclass(frozen=True, slots=True)
class Share:
    """One of `count` equal parts of a fleet, `number` of them from 1: every `count`-th device.

    Every `count`-th, as neighbours often are alike (one person's, of one size), and shares should not differ in work.
    """

    number: int = 1
    count: int = 1

    def __post_init__(self) -> None:
        """Raise ConfigError for a part that does not exist."""
        if not 1 <= self.number <= self.count:
            raise ConfigError(f"there is no part {self.number} of {self.count}: parts are numbered from 1")

    def of(self, fleet: Sequence[T]) -> Sequence[T]:
        """Return the part of `fleet`, in its order."""
        return fleet[self.number - 1 :: self.count]

    def __str__(self) -> str:
        return f"{self.number} of {self.count}"


WHOLE: Final = Share()


def shares(count: int) -> list[Share]:
    """Return all of `count` shares."""
    return [Share(number, count) for number in range(1, count + 1)]


def enough(devices: int, wanted: int, least: int = 1) -> int:
    """Return over how many processes to spread a fleet: as many as `wanted`, or where that is 0, as few as bear it.

    There are at least `least` of the latter, and never more than there are devices.
    """
    return min(devices, wanted or max(least, -(-devices // SESSIONS)))
