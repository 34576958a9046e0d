"""What is in the devices' batteries: charged all the time, used by training and by the radio."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedmq.worlds.availability import DAY_S

if TYPE_CHECKING:
    from fedmq.worlds import Battery


class Power:
    """The batteries of one fleet; only those that were ever used are held."""

    def __init__(self, battery: Battery | None) -> None:
        """Begin with full ones; without a battery power is no matter."""
        self._battery = battery
        self._charges: dict[int, tuple[float, float]] = {}
        self.used_j = 0.0

    def enough(self, device: int, time: float) -> bool:
        """Tell whether the device may take part."""
        battery = self._battery
        return battery is None or self.charge(device, time) >= battery.level * battery.capacity_j

    def charge(self, device: int, time: float) -> float:
        """Return what is in the device's battery, in joules."""
        if self._battery is None:
            return 0.0
        since, charge = self._charges.get(device, (0.0, self._battery.capacity_j))
        return min(self._battery.capacity_j, charge + (time - since) / DAY_S * self._battery.daily_j)

    def trained(self, device: int, time: float, seconds: float) -> None:
        """Use what so many seconds of training take."""
        if self._battery is not None:
            self._use(device, time, seconds * self._battery.train_w)

    def radioed(self, device: int, time: float, seconds: float) -> None:
        """Use what so many seconds of sending or fetching take."""
        if self._battery is not None:
            self._use(device, time, seconds * self._battery.radio_w)

    def _use(self, device: int, time: float, joules: float) -> None:
        self.used_j += joules
        self._charges[device] = time, max(0.0, self.charge(device, time) - joules)
