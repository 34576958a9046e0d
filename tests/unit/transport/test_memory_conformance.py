"""The conformance suite over the in-process broker, in virtual time."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import pytest

from fedmq.testing.transport import Capabilities, Rig, TransportConformance
from fedmq.transport.memory import Abilities, MemoryBroker

if TYPE_CHECKING:
    from fedmq.transport.interface import Connection, Profile


class Fragile:
    """Remembers who connected through it, so that just those are cut."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker
        self._identities: set[str] = set()

    @property
    def address(self) -> str:
        return self._broker.address

    async def connect(self, profile: Profile) -> Connection:
        self._identities.add(profile.identity)
        return await self._broker.connect(profile)

    async def cut(self) -> None:
        for identity in self._identities:
            self._broker.cut(identity)

    def hold(self) -> None:
        """It answers at once: there is no link to hold anything back."""


@pytest.mark.looptime
class TestMemory(TransportConformance):
    capabilities: ClassVar = Capabilities()

    @pytest.fixture
    def rig(self) -> Rig:
        abilities = Abilities(
            packet_bytes=1_000_000, may_publish=lambda _, topic: not topic.startswith("forbidden/")
        )
        broker = MemoryBroker(abilities=abilities)
        fragile = Fragile(broker)
        return Rig(broker, fragile, fragile.cut, fragile.hold, self.capabilities)
