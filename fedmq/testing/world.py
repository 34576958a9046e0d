"""A federation in virtual time, with everything going wrong that can go wrong, from one seed.

One coordinator and a few participants, the real machines, live in shells made of a few lists. Links break, messages
are lost, doubled and overtake each other, disks are wiped, the broker forgets. The "model" is the set of updates in
it, so every promise can be checked exactly, after every step (`fedmq.testing.invariants`). Then the weather turns
calm, and what ought to happen in the end has to happen soon::

    python -m fedmq.testing.world --seed 7 --trace
    python -m fedmq.testing.world --seeds 1000
    python -m fedmq.testing.world --seeds 1000 --async
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from heapq import heappop, heappush
from random import Random
from typing import TYPE_CHECKING, Any, Final, Protocol

from fedmq.protocol import coordination as co
from fedmq.protocol.coordinator import Coordinator
from fedmq.protocol.coordinator import Phase as Round
from fedmq.protocol.participant import LONGEST_PAUSE_S, Participant
from fedmq.protocol.policy import StopWhen
from fedmq.testing.invariants import Invariants
from fedmq.testing.violation import Violation, demand
from fedmq.testing.world_aggregator import AggregatorDisk, AggregatorShell
from fedmq.testing.world_broker import Broker
from fedmq.testing.world_device import DeviceDisk, DeviceShell
from fedmq.testing.world_faults import CALM, Faults, Setting

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MOST_STEPS: Final = 300_000
"""Steps of one world; more means that something goes round in circles."""
CALM_ROUNDS: Final = 2
"""Rounds that have to move the model once the weather is calm; the one after them has to be a perfect one."""


def settling_s(faults: Faults) -> float:
    """Return how long after a storm things may still be on their way: strays, slow trainings, links that come back."""
    if faults.straggle:
        return 100.0
    return 65.0 if faults.stray else 35.0


class Life(Protocol):
    """Something that acts for as long as it lives."""

    @property
    def alive(self) -> bool:
        """False for good once it is over."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What a world is built of; a test puts a broken part in, to see that it is found."""

    coordinator: type[Coordinator] = Coordinator
    participant: type[Participant] = Participant
    aggregator: type[AggregatorShell] = AggregatorShell
    device: type[DeviceShell] = DeviceShell


@dataclass(frozen=True, slots=True)
class Summary:
    """What came of a world."""

    steps: int
    seconds: float
    rounds: int
    models: int
    receipts: int


class World:
    """See the module's text. Everything follows from `seed`, `setting` (drawn from the seed if None) and `parts`."""

    alive = True

    def __init__(
        self,
        seed: int,
        *,
        setting: Setting | None = None,
        parts: Parts | None = None,
        asynchronous: bool = False,
        note: Callable[[str], None] | None = None,
    ) -> None:
        """Make the world, in which nobody is connected yet; `note` is given one line for everything that happens.

        A setting that is drawn is `asynchronous` or not.
        """
        self.seed, self.random = seed, Random(seed)
        self.setting = setting or Setting.draw(self.random, asynchronous=asynchronous)
        self.parts = parts or Parts()
        self.faults = self.setting.faults
        self.now, self.steps = 0.0, 0
        self._heap: list[tuple[float, int, Life, Any, tuple[object, ...]]] = []
        self._note, self._names, self._runs = note, 0, 0
        self.devices = [f"device-{number}" for number in range(self.setting.devices)]
        self.disks = {name: DeviceDisk() for name in self.devices}
        self.shells: dict[str, DeviceShell] = {}
        self.invariants = Invariants(self)
        self.broker = Broker(self)
        self.disk = self._new_disk()
        self.aggregator = self.parts.aggregator(self, self.disk, StopWhen())

    # --- virtual time -------------------------------------------------------------------------------------------------

    def after(self, delay: float, life: Life, action: Any, *arguments: object) -> None:  # noqa: ANN401 - any callable
        """Call `action` in `delay` seconds, if `life` is alive then."""
        self.steps += 1
        heappush(self._heap, (self.now + delay, self.steps, life, action, arguments))

    def chance(self, share: float) -> bool:
        """Draw: true in this share of cases."""
        return share > 0 and self.random.random() < share

    def note(self, who: str, *what: object) -> None:
        """Tell the one who listens."""
        if self._note is not None:
            self._note(f"{self.now:10.3f} {who}: {' -> '.join(map(str, what))}")

    def new_name(self, device: str) -> bytes:
        """Return the name of a new update of this device."""
        self._names += 1
        return f"{device}/{self._names}".encode()

    def run_until(self, end: float, done: Callable[[], bool] | None = None) -> bool:
        """Let time pass; stop early and return True once `done` says so."""
        heap, invariants = self._heap, self.invariants
        while heap and heap[0][0] <= end:
            self.now, _, life, action, arguments = heappop(heap)
            invariants.tick()
            if life.alive:
                action(*arguments)
                if done is not None and done():
                    return True
        demand(self.steps < MOST_STEPS, f"after {self.steps} steps it is only {self.now:.0f} s")
        self.now = end
        return False

    # --- a world's life -----------------------------------------------------------------------------------------------

    def run(self) -> Summary:
        """Live through storm, calm and end. Raises Violation, which tells how to see it again."""
        try:
            self.begin()
            self.run_until(self.setting.storm_s)
            self.calm()
            self.end()
        except Exception as error:
            kind = " --async" if self.setting.policy.asynchronous else ""
            again = f"python -m fedmq.testing.world --seed {self.seed}{kind} --trace"
            kind = "" if isinstance(error, Violation) else f"{type(error).__name__}: "
            raise Violation(
                f"{kind}{error}\nat {self.now:.3f} s of world {self.seed}; to see it: {again}"
            ) from error
        seen = self.invariants
        return Summary(self.steps, self.now, len(seen.tasks), len(seen.models), seen.told)

    def begin(self) -> None:
        """Connect everybody, and let the faults begin."""
        self.aggregator.connect()
        for name in self.devices:
            self._start_device(name)
            self.after(self.random.random() * 3.0, self.shells[name], self.shells[name].connect)
        faults = self.faults
        for every, strike in (
            (faults.cut_every_s, self._cut),
            (faults.crash_every_s, self._crash),
            (faults.restart_every_s, self._restart),
            (faults.offline_every_s, self.unlink_aggregator),
            (faults.rollback_every_s, self.broker.roll_back),
            (faults.stop_every_s, self._stop),
            (faults.rerun_every_s, self._rerun),
        ):
            if every:
                self._schedule(every, strike)

    def _schedule(self, every: float, strike: Callable[[], None]) -> None:
        self.after(self.random.expovariate(1.0 / every), self, self._strike, every, strike)

    def _strike(self, every: float, strike: Callable[[], None]) -> None:
        if self.faults is not CALM:
            self.note("fault", strike.__name__)
            strike()
            self._schedule(every, strike)

    def calm(self) -> None:
        """Let the faults end: rounds have to move the model again soon, and to become perfect."""
        self.faults = CALM
        self.note("calm")
        dead = self.devices[0] if self.setting.mourned else None
        for name in self.devices:
            if name == dead:
                self._bury(name)
            elif not self.shells[name].alive:
                self._start_device(name)
                self.shells[name].connect()
        self.run_until(self.now + settling_s(self.setting.faults))
        hard = self.setting.policy.hard_deadline_s
        for _ in range(CALM_ROUNDS):
            seen = len(self.invariants.models)
            soon = self.now + LONGEST_PAUSE_S + 4 * hard
            moved = self.run_until(soon, lambda seen=seen: len(self.invariants.models) > seen)  # type: ignore[misc]
            demand(
                moved,
                f"the weather is calm since {LONGEST_PAUSE_S + 4 * hard:.0f} s, and no round moves the model",
            )
        self._check_perfect(len(self.invariants.reports))

    def _check_perfect(self, seen: int) -> None:
        """In calm weather everybody answers well before the deadline; only a cohort that came out small may fail."""
        policy, reports = self.setting.policy, self.invariants.reports
        done = lambda: any(r.outcome == "stepped" for r in reports[seen + 1 :])  # noqa: E731 - short
        demand(self.run_until(self.now + LONGEST_PAUSE_S, done), "no report comes in calm weather")
        report = reports[-1]
        demand(
            report.seconds < policy.soft_deadline_s,
            f"round {report.round} took {report.seconds:.1f} s in calm weather",
        )
        if policy.asynchronous:
            enough = report.accepted >= min(policy.buffer, report.expected)
            demand(enough, f"buffer {report.round} closed with {report.accepted} in calm weather")
        elif policy.over_selection == 1 and not policy.adaptive:
            whole = report.accepted == report.expected
            demand(
                whole, f"{report.accepted} of {report.expected} answered round {report.round} in calm weather"
            )

    def end(self) -> None:
        """Stop the federation: every outbox has to drain, every device to retire."""
        self.aggregator.tell(co.StopAsked("the test is over"))
        living = [shell for shell in self.shells.values() if shell.alive]
        drained = self.run_until(
            self.now + 2 * LONGEST_PAUSE_S,
            lambda: not any(s.machine.outbox or s.machine.phase.value != "retired" for s in living),
        )
        demand(self.aggregator.machine.phase is Round.STOPPED, "the federation was to stop, and goes on")
        left = [shell.name for shell in living if shell.machine.outbox or shell.disk.outbox]
        demand(drained and not left, f"the federation has ended; not so for {left or 'a device'}")

    # --- faults -------------------------------------------------------------------------------------------------------

    def _start_device(self, name: str) -> None:
        self.shells[name] = self.parts.device(self, name, self.disks[name])

    def _cut(self) -> None:
        name = self.random.choice(self.devices)
        if name in self.broker.links:
            self.broker.cut(name)

    def _crash(self) -> None:
        name = self.random.choice(self.devices)
        self.shells[name].alive = False
        if name in self.broker.links:
            self.broker.cut(name)
        if self.chance(self.faults.wipe):
            sessions = self.disks[name].sessions
            self.disks[name] = DeviceDisk(sessions=sessions)
        self.after(self.random.random() * 20.0, self, self._revive, name)

    def _revive(self, name: str) -> None:
        if not self.shells[name].alive:
            self._start_device(name)
            self.shells[name].connect()

    def _bury(self, name: str) -> None:
        self.shells[name].alive = False
        self.shells[name] = self.parts.device(self, name, DeviceDisk())
        self.shells[name].alive = False
        if name in self.broker.links:
            self.broker.mourn(name)

    def _restart(self) -> None:
        self.aggregator.alive = False
        self.after(self.random.random() * 10.0, self, self._revive_aggregator)

    def _revive_aggregator(self) -> None:
        if not self.aggregator.alive:
            self.aggregator = self.parts.aggregator(self, self.disk, StopWhen())
            self.aggregator.connect()

    def unlink_aggregator(self) -> None:
        """Break the aggregator's link."""
        self.aggregator.linked = False
        self.after(self.random.random() * 10.0, self.aggregator, self._relink, self.aggregator)

    def _relink(self, aggregator: AggregatorShell) -> None:
        if not aggregator.linked:
            aggregator.connect()

    def _stop(self) -> None:
        if self.aggregator.alive:
            self.aggregator.tell(co.StopAsked("somebody said so"))
            self.after(self.random.random() * 20.0, self.aggregator, self._restart)

    def _rerun(self) -> None:
        self.disk = self._new_disk()
        self._restart()

    def _new_disk(self) -> AggregatorDisk:
        self._runs += 1
        return AggregatorDisk(b"run-%d" % self._runs, b"seed-%d" % self.seed)


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run worlds from the command line; return 1 when one of them breaks a promise."""
    parser = argparse.ArgumentParser(
        prog="python -m fedmq.testing.world", description="Simulated federations under fire."
    )
    parser.add_argument("--seed", type=int, default=0, help="the first (or only) world")
    parser.add_argument("--seeds", type=int, default=1, help="how many worlds, one after the other")
    parser.add_argument("--async", dest="asynchronous", action="store_true", help="without rounds")
    parser.add_argument("--trace", action="store_true", help="print everything that happens")
    options = parser.parse_args(arguments)
    out = sys.stdout.write
    note = _print if options.trace else None
    begin, steps, models = time.perf_counter(), 0, 0
    for seed in range(options.seed, options.seed + options.seeds):
        try:
            summary = World(seed, asynchronous=options.asynchronous, note=note).run()
        except Violation as violation:
            out(f"{violation}\n")
            return 1
        steps, models = steps + summary.steps, models + summary.models
    took = time.perf_counter() - begin
    out(f"{options.seeds} worlds, {models} models, {steps} steps in {took:.1f} s: every promise held\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
