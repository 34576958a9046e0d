"""How a federation runs its rounds: who is asked, how long it waits, when it stops."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from fedmq.errors import ConfigError

MOST_STALENESS: Final = 1000
"""Rounds whose verdicts an asynchronous federation remembers, in memory and in each checkpoint, at most."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How rounds are run: all together, or, with a `buffer`, without waiting for each other.

    fraction: share of the fleet that a round wants updates from, above 0 up to 1.
    over_selection: how many times more devices are asked than are waited for; at 1.3 a round of 100 wanted updates
        asks about 130 devices and ends with the first 100 (Bonawitz et al. 2019, "Towards federated learning at
        scale").
    min_devices: a round opens once this many devices are there.
    quorum: fewest accepted updates that may move the model.
    soft_deadline_s: from here on a quorum is enough to end the round.
    hard_deadline_s: the round ends here: with a quorum it moves the model, without one it is abandoned.
    grace_s: how long a round still counts on a device that died while its update was coming in, for it may be back with
        the rest; never beyond the soft deadline. 0 switches this off; synchronous rounds only. In 30 s a device whose
        link broke has tried four times to come back (`fedmq.transport.backoff`: 15 s at most), and a thousand devices
        that lost their broker at one moment once each (`fedmq.protocol.pacing`: 17 s).
    buffer: 0 for synchronous rounds. Above 0 the federation is asynchronous: the model moves with every so many
        updates, whatever recent model each of them started from (FedBuff: Nguyen et al. 2022, "Federated learning with
        buffered asynchronous aggregation"; with 1, FedAsync: Xie et al. 2019, "Asynchronous federated optimization").
        A round is then the time in which one buffer fills.
    max_staleness: how many rounds an update may be behind and still be taken; asynchronous federations only.
    adaptive: let the soft deadline come earlier, by how fast updates came in lately; synchronous rounds only.
    """

    fraction: float = 1.0
    over_selection: float = 1.0
    min_devices: int = 2
    quorum: int = 1
    soft_deadline_s: float = 60.0
    hard_deadline_s: float = 120.0
    grace_s: float = 30.0
    buffer: int = 0
    max_staleness: int = 16
    adaptive: bool = False

    def __post_init__(self) -> None:
        """Raise ConfigError for settings that cannot work together."""
        _want(0 < self.fraction <= 1, f"fraction is {self.fraction}; it must be above 0 and at most 1")
        _want(self.over_selection >= 1, f"over_selection is {self.over_selection}; it must be at least 1")
        _want(self.quorum >= 1, f"quorum is {self.quorum}; it must be at least 1")
        _want(
            self.min_devices >= self.quorum,
            f"min_devices is {self.min_devices}, below the quorum of {self.quorum}: such a round could never end well",
        )
        _want(
            0 < self.soft_deadline_s <= self.hard_deadline_s < math.inf,
            f"soft_deadline_s is {self.soft_deadline_s} and hard_deadline_s {self.hard_deadline_s}; the soft one must "
            "be above 0 and not after the hard one, which must be finite: without it a round could wait for ever",
        )
        _want(
            0 <= self.grace_s < math.inf,
            f"grace_s is {self.grace_s}; it must be 0 (nobody is waited for who died) or more, and finite",
        )
        _want(self.buffer >= 0, f"buffer is {self.buffer}; it must be 0 (synchronous rounds) or more")
        _want(
            0 <= self.max_staleness <= MOST_STALENESS,
            f"max_staleness is {self.max_staleness}; it must be from 0 to {MOST_STALENESS}",
        )
        if self.asynchronous:
            self._check_buffer()

    def _check_buffer(self) -> None:
        _want(
            not self.adaptive,
            "adaptive is set beside a buffer: an asynchronous federation waits for nobody, so leave it out",
        )
        _want(
            self.quorum <= self.buffer,
            f"quorum is {self.quorum}, the buffer {self.buffer}: a full buffer must be enough to move the model",
        )
        _want(
            self.over_selection == 1,
            f"over_selection is {self.over_selection} beside a buffer: an asynchronous federation waits for nobody, so "
            "leave it at 1",
        )

    @property
    def asynchronous(self) -> bool:
        """Whether updates of earlier rounds are taken into the open one."""
        return self.buffer > 0

    @property
    def window(self) -> int:
        """How many rounds before the open one still have their updates taken."""
        return self.max_staleness if self.asynchronous else 0

    @property
    def gracious(self) -> bool:
        """Whether a round goes on counting on devices that died in the middle of an update."""
        return self.grace_s > 0 and not self.asynchronous

    @property
    def invited(self) -> float:
        """Share of the fleet that a task invites."""
        return min(1.0, self.fraction * self.over_selection)


@dataclass(frozen=True, slots=True)
class StopWhen:
    """When a federation has ended; whichever comes first. Zero switches a condition off.

    rounds: this many rounds have moved the model.
    target: `metric` has reached this value.
    patience: `metric` has not got better for this many rounds.
    abandoned: this many rounds in a row were abandoned.
    lower_is_better: for a `metric` such as ``loss``.
    """

    rounds: int = 0
    target: float = 0.0
    patience: int = 0
    abandoned: int = 0
    metric: str = "accuracy"
    lower_is_better: bool = False

    def __post_init__(self) -> None:
        """Raise ConfigError for a negative count."""
        for name in ("rounds", "patience", "abandoned"):
            count = getattr(self, name)
            _want(count >= 0, f"{name} is {count}; it must be 0 (off) or more")

    def better(self, value: float, than: float | None) -> bool:
        """Say whether `value` beats `than` (None: nothing seen yet)."""
        if than is None:
            return True
        return value < than if self.lower_is_better else value > than

    def reached(self, value: float) -> bool:
        """Say whether `value` meets the target, if there is one."""
        if not self.target:
            return False
        return value <= self.target if self.lower_is_better else value >= self.target


def _want(holds: bool, sentence: str) -> None:  # noqa: FBT001 - reads as an assertion
    if not holds:
        raise ConfigError(sentence)
