"""How far a federation has come, what it has agreed on for its life, and whether it is time to stop."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fedmq.protocol.messages import Setting, Task
    from fedmq.protocol.policy import StopWhen


class Phase(Enum):
    """Where the federation stands."""

    NEW = "new"
    WAITING = "waiting"
    OPEN = "open"
    DRAINING = "draining"
    STEPPING = "stepping"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Terms:
    """What every task of this federation says; but for the codec, which may be turned between rounds, for its life."""

    run: bytes
    layout: bytes
    seed: bytes
    codec: str
    update_bytes: int
    training: Mapping[str, Setting]


@dataclass(frozen=True, slots=True)
class Opened:
    """What the task of a round said, as far as an update of that round is checked against it, or decoded by it."""

    round: int
    model: int
    salt: bytes
    fraction: float = 1.0
    codec: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """What must survive a restart: numbers that only grow, and how the stop conditions stand.

    `round` is the last round number given out, `version` the model's (1 is the first model), `steps` how often the
    model moved, `best` the best metric so far, `stale` rounds since then, `abandoned` rounds in a row. `recent` are the
    rounds whose updates may still be taken, oldest first: the open one, and in an asynchronous federation those before
    it within `Policy.max_staleness`. `fleet` is about how many devices there are: as many as were there when the last
    round was opened, but no fewer than half of those before, for after a restart they come in one by one; and more as
    soon as more are there.
    `arrivals` are the times by which most updates of the last rounds were in (see `fedmq.protocol.deadlines`).
    """

    round: int = 0
    version: int = 1
    steps: int = 0
    best: float | None = None
    stale: int = 0
    abandoned: int = 0
    recent: tuple[Opened, ...] = ()
    fleet: int = 0
    arrivals: tuple[float, ...] = ()

    def seen(self, devices: int) -> Progress:
        """Return the progress with so many devices there as a round is opened."""
        return replace(self, fleet=max(devices, self.fleet // 2))

    def counted(self, devices: int) -> Progress:
        """Return the progress with so many devices there at any time."""
        return self if devices <= self.fleet else replace(self, fleet=devices)

    def opened(self, task: Task) -> Progress:
        """Return the progress with the task's round open; what is older than the task's oldest is recent no longer."""
        earlier = tuple(one for one in self.recent if task.oldest <= one.round < task.round)
        now = Opened(task.round, task.model, task.salt, task.fraction, task.codec)
        return replace(self, round=task.round, recent=(*earlier, now))

    def stepped(self, version: int) -> Progress:
        """Return the progress after one more step, to this version."""
        return replace(self, version=version, steps=self.steps + 1, abandoned=0)

    def find(self, round_: int) -> Opened | None:
        """Return what is known of a round whose updates may still be taken."""
        return next((one for one in self.recent if one.round == round_), None)

    def judged(self, metrics: Mapping[str, float], stop: StopWhen) -> Progress:
        """Note whether the metric got better; without that metric, patience does not run."""
        value = metrics.get(stop.metric)
        if value is None:
            return self
        if stop.better(value, self.best):
            return replace(self, best=value, stale=0)
        return replace(self, stale=self.stale + 1)

    def reason_to_stop(self, stop: StopWhen) -> str:
        """Return which stop condition holds, in a few words; nothing where none does."""
        if stop.rounds and self.steps >= stop.rounds:
            return f"{self.steps} rounds are done"
        if self.best is not None and stop.reached(self.best):
            return f"{stop.metric} reached {self.best:.4g}, the target was {stop.target:.4g}"
        if stop.patience and self.stale >= stop.patience:
            return f"{stop.metric} has not got better for {self.stale} rounds"
        if stop.abandoned and self.abandoned >= stop.abandoned:
            return f"{self.abandoned} rounds in a row were abandoned"
        return ""
