"""A fleet in virtual time: weeks of a hundred thousand devices in minutes, on one core, without a socket.

The machines are those of the real thing, and so are training, codecs, fold and messages' lengths. What is simulated is
what the world does: when devices are up, what their links and processors take, when links break. A device that no task
invites costs nothing but its share of the sums over the whole fleet in each round: who is up, whom does the task ask?
"""

from __future__ import annotations

import time
from random import Random
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fedmq.device.keepsakes import MemoryKeepsakes
from fedmq.device.outbox import MemoryOutbox
from fedmq.device.verdicts import Verdicts
from fedmq.protocol import coordination as co
from fedmq.protocol.cohort import members
from fedmq.protocol.coordinator import Phase
from fedmq.simulate.judging import Judge
from fedmq.simulate.simulation import Outcome
from fedmq.simulate.virtual.aggregator import VirtualAggregator
from fedmq.simulate.virtual.clock import Clock
from fedmq.simulate.virtual.device import ActiveDevice
from fedmq.simulate.virtual.power import Power
from fedmq.simulate.virtual.roster import make_roster
from fedmq.simulate.virtual.rows import VirtualRow
from fedmq.simulate.virtual.school import School
from fedmq.simulate.virtual.surroundings import Locker
from fedmq.simulate.virtual.traffic import Traffic
from fedmq.store.modelfile import StoredModel
from fedmq.wire.envelope import encode
from fedmq.worlds import Population, World
from fedmq.worlds.availability import DAY_S, HOUR_S

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fedmq.protocol.messages import Manifest, Receipt, Report, Task
    from fedmq.simulate.settings import SimulationSettings
    from fedmq.simulate.virtual.roster import Roster
    from fedmq.vectors import Vector

LOOK_S: Final = 60.0
"""Pause between two looks for devices in a large fleet while too few are there for a round."""
ASKED_EACH: Final = 2000
"""Devices of a fleet that is small enough to ask each of them when it comes."""
PATIENCE_DAYS: Final = 30.0
"""Days without a round after which a run gives up."""
SESSION: Final = 1
"""What devices' certificates say of how often they have started: nobody asks here."""


class VirtualSimulation:
    """One run."""

    def __init__(
        self,
        settings: SimulationSettings,
        *,
        roster: Roster | None = None,
        on_round: Callable[[VirtualRow], None] = lambda _: None,
    ) -> None:
        """Prepare a run in the settings' world, or in a lab. Raises ConfigError."""
        seed, world = settings.fleet.seed, settings.world or World()
        self.settings, self.clock = settings, Clock()
        self.population = Population(world, seed)
        self.roster = roster or make_roster(settings, self.population)
        self.school = School(self.roster, self.population, seed)
        self.power, self.traffic = Power(world.battery), Traffic()
        self.outcome, self._days, self._on_round = Outcome(), settings.days, on_round
        self.rows: list[VirtualRow] = []
        self._numbers = {name: number for number, name in enumerate(self.roster.names)}
        self._everyone = np.arange(len(self._numbers))
        self._present = np.zeros(len(self._numbers), np.bool_)
        self._held = np.zeros(len(self._numbers), np.int64)
        self._held_since = np.zeros(len(self._numbers))
        self._active: dict[int, ActiveDevice] = {}
        self._lockers: dict[int, Locker] = {}
        self._seen = (Traffic(), 0.0, 0.0)
        self._waits_since: float | None = None
        self._most_present = 0
        self._judge = Judge(settings.algorithm, self.roster.trainers, self.roster.pooled)
        self.aggregator = self._make_aggregator(seed)

    def _make_aggregator(self, seed: int) -> VirtualAggregator:
        first = self.roster.first()
        return VirtualAggregator(
            self.settings.federation,
            StoredModel(first.layout, first.initial()),
            self.clock,
            self,
            entropy=Random(seed).randbytes,
            evaluate=self._judge,
        )

    def run(self) -> Outcome:
        """Run to the end. Blocking."""
        began = time.monotonic()
        self._seen = (Traffic(), 0.0, began)
        until = self._days * DAY_S if self._days else np.inf
        self.aggregator.start()
        while not self.aggregator.reason:
            if self.aggregator.coordinator.phase is Phase.WAITING and self._waits_since is None:
                self._wait()
            if not self.clock.step(until):
                break
        self.outcome.reason = self.aggregator.reason or self._why_not_on()
        self.outcome.seconds = time.monotonic() - began
        return self.outcome

    def _why_not_on(self) -> str:
        if self._days and self.aggregator.coordinator.progress.round:
            return f"{self._days:g} days are over"
        days = self._days or PATIENCE_DAYS
        return (
            f"too few devices came in {days:g} days: {self._most_present:,} at most were seen at one time, "
            f"min_devices is {self.settings.rounds.min_devices:,}; lower that, or have more devices"
        )

    @property
    def model(self) -> Vector:
        """The model to save."""
        return self.aggregator.modelling.served()

    def summary(self) -> dict[str, Any]:
        """Return the final figures as plain data."""
        return {
            **self.outcome.summary(),
            "hours": round(self.clock.now / HOUR_S, 3),
            "trainings": self.school.trainings,
            "cuts": self.traffic.cuts,
            "joules": round(self.power.used_j, 1),
            "bytes_calls": self.traffic.bytes_calls,
        }

    # --- who is there -------------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Tell the coordinator who has come and gone since the last look."""
        up = self.population.up(self._everyone, self.clock.now)
        for number, device in self._active.items():
            up[number] = device.up
        for number in np.flatnonzero(up != self._present).tolist():
            self._note(number, up=bool(up[number]))
        self._most_present = max(self._most_present, int(self._present.sum()))

    def came(self, device: int) -> None:
        """Have a device's certificate at the aggregator."""
        self._note(device, up=True)

    def went(self, device: int) -> None:
        """Have a device's good-bye at the aggregator."""
        self._note(device, up=False)

    def _note(self, device: int, *, up: bool) -> None:
        if bool(self._present[device]) == up:
            return
        self._present[device] = up
        name = self.roster.names[device]
        if up:
            self.traffic.greeted()
            layout = self.aggregator.coordinator.terms.layout
            self.aggregator.tell(co.Born(name, SESSION, layout))
        else:
            self.aggregator.tell(co.Died(name, SESSION))

    def _wait(self) -> None:
        """Look again when enough devices may be there for a round."""
        self._waits_since = self.clock.now
        self.clock.at(self._next_chance(), self._look_again)

    def _look_again(self) -> None:
        self.look()
        if self.aggregator.coordinator.phase is not Phase.WAITING:
            self._waits_since = None
        elif self.clock.now < (self._waits_since or 0.0) + PATIENCE_DAYS * DAY_S:
            self.clock.at(self._next_chance(), self._look_again)

    def _next_chance(self) -> float:
        """Return a time before which there cannot be enough devices: when as many have come as are missing."""
        if len(self._everyone) > ASKED_EACH:
            return self.clock.now + LOOK_S
        down = np.flatnonzero(~self._present).tolist()
        comes = sorted(self.population.spell(number, self.clock.now).until for number in down)
        missing = self.settings.rounds.min_devices - len(self.aggregator.coordinator.present)
        return comes[missing - 1] if missing <= len(comes) else np.inf

    # --- what the aggregator does -------------------------------------------------------------------------------------

    def published(self, manifest: Manifest, nbytes: int) -> None:  # noqa: ARG002 - it stands at the aggregator
        """Have a manifest go to everyone."""
        self.traffic.called(nbytes, int(self._present.sum()))
        self._greet()

    def announced(self, task: Task, nbytes: int) -> None:
        """Have a task go to everyone, and wake those who have something to do about it."""
        self.traffic.called(nbytes, int(self._present.sum()))
        self._greet()
        for number, locker in list(self._lockers.items()):
            locker.verdicts.task = task
            locker.verdicts.settle()
            self._clear(number)
        at = self.clock.now + self.population.world.link.latency_s
        for number in list(self._active):
            self.clock.at(at, self._tell, number, task)
        for name in members(self.roster.names, task.salt, task.fraction):
            self.clock.at(at, self._invite, self._numbers[name], task)

    def _greet(self) -> None:
        """Take the length of what stands retained for whoever connects."""
        task = self.aggregator.task
        called = len(encode(self.aggregator.manifest)) + (len(encode(task)) if task is not None else 0)
        self.traffic.greeting = called + self.aggregator.beacon_bytes

    def _tell(self, number: int, task: Task) -> None:
        if number in self._active:
            self._active[number].hear(task)

    def _invite(self, number: int, task: Task) -> None:
        if number not in self._active and self._comes_in_time(number, task):
            self._active[number] = device = ActiveDevice(number, self)
            device.wake()

    def _comes_in_time(self, number: int, task: Task) -> bool:
        spell = self.population.spell(number, self.clock.now)
        policy = self.settings.rounds
        return spell.up or spell.until < self.clock.now + task.seconds * (1 + policy.window)

    def replied(self, device: str, receipt: Receipt) -> None:
        """Have a receipt go to a device."""
        self.traffic.carried(0, len(encode(receipt)))
        at = self.clock.now + self.population.world.link.latency_s
        self.clock.at(at, self._deliver, self._numbers[device], receipt)

    def _deliver(self, number: int, receipt: Receipt) -> None:
        device = self._active.get(number)
        if device is not None:
            device.receive(receipt)

    def told(self, report: Report) -> None:
        """Make the row of a round."""
        (before, joules, wall), now = self._seen, time.monotonic()
        traffic = self.traffic
        row = VirtualRow.made(
            report,
            bytes_up=traffic.bytes_up - before.bytes_up,
            bytes_down=traffic.bytes_down - before.bytes_down,
            hours=self.clock.now / HOUR_S,
            wall_s=now - wall,
            present=len(self.aggregator.coordinator.present),
            trained=traffic.trained - before.trained,
            dropped=traffic.dropped - before.dropped,
            cuts=traffic.cuts - before.cuts,
            joules=self.power.used_j - joules,
            bytes_calls=traffic.bytes_calls - before.bytes_calls,
        )
        self._seen = (traffic.copy(), self.power.used_j, now)
        self.outcome.rows.append(row)
        self.rows.append(row)
        self._on_round(row)

    # --- what devices find around them --------------------------------------------------------------------------------

    def held(self, device: int) -> int:
        """Return the version that the device holds, if it has not been switched off since it came."""
        version, since = int(self._held[device]), float(self._held_since[device])
        if version and self.population.world.availability.forgets:
            return version if self.clock.now < self.population.spell(device, since).until else 0
        return version

    def hold(self, device: int, version: int) -> None:
        """Note the version that the device holds."""
        self._held[device], self._held_since[device] = version, self.clock.now

    def locker(self, device: int) -> Locker:
        """Return what the device keeps."""
        if device not in self._lockers:
            outbox, keepsakes = MemoryOutbox(), MemoryKeepsakes()
            self._lockers[device] = Locker(outbox, keepsakes, Verdicts(keepsakes, outbox))
        return self._lockers[device]

    def idle(self, device: int) -> None:
        """Let the device go."""
        del self._active[device]
        self._clear(device)

    def _clear(self, number: int) -> None:
        """Forget what a sleeping device keeps where that is nothing."""
        locker = self._lockers[number]
        kept = locker.keepsakes.waiting() or locker.keepsakes.kept(self.aggregator.run)
        if number not in self._active and not kept and not locker.outbox.entries():
            del self._lockers[number]

    @property
    def busy(self) -> Mapping[int, ActiveDevice]:
        """The devices that have something to do."""
        return self._active
