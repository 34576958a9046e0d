"""What devices are made of: processors, links, batteries; and how many of them attack."""

from __future__ import annotations

from dataclasses import dataclass, field

from fedmq.worlds.attacks import Attack, SignFlip
from fedmq.worlds.checks import want, want_at_least_zero, want_positive, want_share


@dataclass(frozen=True, slots=True)
class Hardware:
    """``[world.hardware]``: how long training takes.

    example_s: seconds for one example in one epoch, on a device of speed 1. setup_s: seconds before the first one.
    spread: standard deviation of the logarithm of what devices take (a lognormal distribution; 0.7 means that one in
    six takes twice as long as most). noise: the same from one training to the next of one device.
    speeds: classes of hardware, each for an equal share of the devices: [1, 1, 4] is two in three of speed 1 and one in
    three that is four times as fast.
    """

    example_s: float = 0.001
    setup_s: float = 0.0
    spread: float = 0.0
    noise: float = 0.0
    speeds: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        """Raise ConfigError for what cannot be."""
        for name in ("example_s", "setup_s", "spread", "noise"):
            want_at_least_zero(name, getattr(self, name))
        want(bool(self.speeds), "speeds is empty; one at least was wanted, such as 1")
        for speed in self.speeds:
            want_positive("a speed", speed)


@dataclass(frozen=True, slots=True)
class Connection:
    """``[world.link]``: what devices' links are like.

    latency_s: one way. up_kbit_s, down_kbit_s: thousands of bits a second. spread: standard deviation of the logarithm
    of what devices' links take for a byte. cuts_per_hour: how often a link breaks; what is on its way then is sent
    again. reconnect_s: until the link is there again.
    """

    latency_s: float = 0.001
    up_kbit_s: float = 100_000.0
    down_kbit_s: float = 100_000.0
    spread: float = 0.0
    cuts_per_hour: float = 0.0
    reconnect_s: float = 5.0

    def __post_init__(self) -> None:
        """Raise ConfigError for what cannot be."""
        for name in ("latency_s", "spread", "cuts_per_hour", "reconnect_s"):
            want_at_least_zero(name, getattr(self, name))
        for name in ("up_kbit_s", "down_kbit_s"):
            want_positive(name, getattr(self, name))


@dataclass(frozen=True, slots=True)
class Battery:
    """``[world.battery]``: what devices may use.

    capacity_j: what a full battery holds, in joules; devices begin with a full one. daily_j: what it gets a day.
    level: share of the capacity below which a device takes no part in a round. train_w: power while it trains, radio_w:
    power while it sends or fetches, both beyond what it uses anyway, which `daily_j` is without.
    """

    capacity_j: float = 10_000.0
    daily_j: float = 1_000.0
    level: float = 0.3
    train_w: float = 2.0
    radio_w: float = 1.0

    def __post_init__(self) -> None:
        """Raise ConfigError for what cannot be."""
        want_positive("capacity_j", self.capacity_j)
        for name in ("daily_j", "train_w", "radio_w"):
            want_at_least_zero(name, getattr(self, name))
        want_share("level", self.level)


@dataclass(frozen=True, slots=True)
class Attackers:
    """``[world.attackers]``: what `share` of the devices does not play by the rules, and how they attack.

    Those whose trainings run side by side know of each other's data, and of nobody else's.
    """

    share: float = 0.2
    attack: Attack = field(default_factory=SignFlip)

    def __post_init__(self) -> None:
        """Raise ConfigError for what is no share."""
        want_share("share", self.share)
