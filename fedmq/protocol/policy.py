"""How a federation runs its rounds: who is asked, how long it waits, when it stops."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fedmq.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Policy:
    """Settings of the synchronous rounds.

    fraction: share of the fleet that a round wants updates from, above 0 up to 1.
    over_selection: how many times more devices are asked than are waited for; at 1.3 a round of 100 wanted updates
        asks about 130 devices and ends with the first 100 (Bonawitz et al. 2019, "Towards federated learning at
        scale").
    min_devices: a round opens once this many devices are there.
    quorum: fewest accepted updates that may move the model.
    soft_deadline_s: from here on a quorum is enough to end the round.
    hard_deadline_s: the round ends here: with a quorum it moves the model, without one it is abandoned.
    """

    fraction: float = 1.0
    over_selection: float = 1.0
    min_devices: int = 2
    quorum: int = 1
    soft_deadline_s: float = 60.0
    hard_deadline_s: float = 120.0

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
