"""What the process of a share does, however it is reached."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fedmq.errors import FedmqError
from fedmq.simulate.crowd import DEVICES
from fedmq.simulate.fleet import build_fleet
from fedmq.simulate.memory import seldom_collected
from fedmq.simulate.party import Party

if TYPE_CHECKING:
    from fedmq.simulate.crowd import Count
    from fedmq.simulate.spread.order import Order


class Work:
    """The devices of one share."""

    def __init__(self, order: Order, where: str = "") -> None:
        """Build trainers and devices, which may take a while; `where` is said with the memory. Raises ConfigError."""
        settings = order.settings
        fleet = build_fleet(settings.fleet, settings.training, order.share, pooled=False)
        name = f"{DEVICES}{order.share}{where and f' on {where}'}"
        folder = Path(order.folder) if order.folder else None
        self._party = Party(settings.name, fleet, order.place.open, process=name, folder=folder)

    async def live(self) -> None:
        """Take part until the federation has ended. Raises FedmqError."""
        with seldom_collected():
            await self._party.live()

    async def count(self) -> Count:
        """Return what it took until now."""
        return await self._party.count()


def sentence(error: Exception) -> str:
    """Return what went wrong in one line, short enough to be passed on."""
    text = " ".join(str(error).split())[:1_000]
    return text if isinstance(error, FedmqError) else f"{type(error).__name__}: {text}"
