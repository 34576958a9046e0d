"""A simulated fleet's devices, wherever they run: in this process, in several, on many machines."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from fedmq.errors import FedmqError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


DEVICES: Final = "devices "
"""What the name of a process of nothing but devices begins with, where memory is told."""


class ShareLost(FedmqError):
    """A process that runs some of the devices has ended before its time, or cannot do its work."""


@dataclass(frozen=True, slots=True)
class Count:
    """What devices have sent and received until now, in bytes of MQTT payloads, and what their processes take.

    `memory` is megabytes by process: resident, so what processes share counts in each of them.
    """

    bytes_up: int = 0
    bytes_down: int = 0
    memory: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def read(cls, table: Mapping[str, Any]) -> Count:
        """Return the count that `asdict` made a table of."""
        return cls(int(table["bytes_up"]), int(table["bytes_down"]), dict(table["memory"]))

    @classmethod
    def sum(cls, counts: Iterable[Count]) -> Count:
        """Return all counts as one; processes of one name are one process."""
        counts, memory = list(counts), dict[str, float]()
        for each in counts:
            memory |= each.memory
        return cls(sum(each.bytes_up for each in counts), sum(each.bytes_down for each in counts), memory)


class Crowd(Protocol):
    """The devices of a run."""

    async def live(self) -> None:
        """Connect, and take part until the federation has ended. Raises FedmqError when a device cannot go on."""

    async def count(self) -> Count:
        """Return what has been sent and received, and the memory of all processes."""
