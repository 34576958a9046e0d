"""A private broker on this machine, whichever kind is there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol, Self, TypeAlias

from fedmq.errors import ConfigError
from fedmq.transport.embedded import Embedded, has_embedded
from fedmq.transport.mosquitto import Mosquitto, find_mosquitto

if TYPE_CHECKING:
    from types import TracebackType

Preference: TypeAlias = Literal["auto", "mosquitto", "embedded"]


class PrivateBroker(Protocol):
    """A broker that runs while it is entered."""

    @property
    def name(self) -> str:
        """Its kind, for people."""

    @property
    def address(self) -> str:
        """Where it listens."""

    async def __aenter__(self) -> Self:
        """Start it, and wait until it accepts connections. Raises ConfigError."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it, for certain."""


def private_broker(prefer: Preference = "auto") -> PrivateBroker:
    """Return a private broker to be entered (``async with``): mosquitto where it is installed, else the embedded one.

    Raises ConfigError where neither is there.
    """
    if prefer == "mosquitto" or (prefer == "auto" and find_mosquitto() is not None):
        return Mosquitto()
    if prefer == "embedded" or has_embedded():
        return Embedded()
    raise ConfigError(
        "there is no broker on this machine: install mosquitto (apt install mosquitto, brew install mosquitto), "
        "or the embedded one (pip install 'fedmq[embedded]')"
    )
