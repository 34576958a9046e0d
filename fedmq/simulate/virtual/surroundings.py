"""What a device in virtual time finds around it, and what stays of it while it sleeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from fedmq.device.keepsakes import Keepsakes
    from fedmq.device.outbox import Outbox
    from fedmq.device.verdicts import Verdicts
    from fedmq.simulate.virtual.aggregator import VirtualAggregator
    from fedmq.simulate.virtual.clock import Clock
    from fedmq.simulate.virtual.power import Power
    from fedmq.simulate.virtual.roster import Roster
    from fedmq.simulate.virtual.school import School
    from fedmq.simulate.virtual.traffic import Traffic
    from fedmq.worlds import Population


@dataclass(slots=True)
class Locker:
    """What a device keeps when it goes down, on its disk or in a memory that is not switched off."""

    outbox: Outbox
    keepsakes: Keepsakes
    verdicts: Verdicts


class Surroundings(Protocol):
    """What a device finds around it."""

    clock: Clock
    population: Population
    roster: Roster
    school: School
    power: Power
    traffic: Traffic
    aggregator: VirtualAggregator

    def held(self, device: int) -> int:
        """Return the version of the model that the device holds; 0 for none."""

    def hold(self, device: int, version: int) -> None:
        """Note that the device holds this version now."""

    def locker(self, device: int) -> Locker:
        """Return what the device keeps."""

    def came(self, device: int) -> None:
        """Hear that the device has announced itself."""

    def went(self, device: int) -> None:
        """Hear that the device, or its last will, has said good-bye."""

    def idle(self, device: int) -> None:
        """Hear that the device has nothing to do."""
