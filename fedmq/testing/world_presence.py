"""Who is there in a simulated world, for all that its aggregator has heard; on whom a round may wait, and how long."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from fedmq.protocol.attendance import UNBORN
from fedmq.protocol.coordination import Absorbed, Born, Died, Offered
from fedmq.protocol.ledger import Standing
from fedmq.protocol.messages import Verdict
from fedmq.protocol.progress import Phase
from fedmq.testing.violation import demand

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from fedmq.protocol import coordination as co
    from fedmq.protocol.coordinator import Coordinator
    from fedmq.protocol.policy import Policy
    from fedmq.testing.world_aggregator import AggregatorShell


class Presence:
    """What one life of the aggregator has heard of each device, kept beside the machine and by other means."""

    def __init__(self, policy: Policy) -> None:
        """Begin with nothing heard."""
        self.policy = policy
        self.there: dict[str, int] = {}
        self._heard: set[str] = set()
        self._asked: set[tuple[str, int]] = set()
        self._died: dict[str, float] = {}

    def note(self, shell: AggregatorShell, event: co.CoordinatorEvent, before: Phase, now: float) -> None:
        """Take in what the machine was told in the phase `before`, and check on whom it counts since."""
        if isinstance(event, Born):
            self.there[event.device] = event.session
            self._died.pop(event.device, None)
        elif isinstance(event, Died) and event.session >= self.there.get(event.device, UNBORN):
            self.there.pop(event.device, None)
            self._died.setdefault(event.device, now)
        elif isinstance(event, Offered) and event.run == shell.disk.run and event.round <= shell.counting:
            self._hear(event)
            self._check_found(shell.machine, event, before)
        elif isinstance(event, Absorbed):
            self._check_counted(shell.machine, event)
        self._check_the_unborn(shell.machine)

    def _hear(self, event: Offered) -> None:
        self._heard.add(event.device)
        self._died.pop(event.device, None)
        if event.question is not None:
            self._asked.add((event.device, event.round))

    def _check_found(self, machine: Coordinator, event: Offered, before: Phase) -> None:
        """Check that while a round waits for devices, nobody is overlooked who sends something."""
        found = before not in (Phase.NEW, Phase.WAITING) or event.device in machine.present
        demand(found, f"{event.device} is not there, for all that it sends, and a round waits for devices")

    def _check_counted(self, machine: Coordinator, event: Absorbed) -> None:
        """Check that an update which is accepted stands for the birth of its device."""
        entry = machine.ledger.find(event.device, event.round)
        accepted = (
            entry is not None and entry.standing is Standing.SETTLED and entry.verdict is Verdict.ACCEPTED
        )
        known = event.device in machine.present or event.device in self._died
        demand(known or not accepted, f"{event.device} is not there, and its update was accepted")

    def _check_the_unborn(self, machine: Coordinator) -> None:
        """Check that whoever is counted without a birth was heard since it died; for how long, the machine says."""
        unborn = {device for device, session in machine.present.items() if session == UNBORN}
        demand(unborn <= self._heard, "a device is counted of which nothing was heard")
        dead = unborn & self._died.keys()
        demand(
            not dead or self.policy.asynchronous, "a device is counted of which nothing came since it died"
        )
        born = {device: session for device, session in self.there.items() if session != UNBORN}
        self.there = dict.fromkeys(unborn, UNBORN) | born

    # --- waiting ------------------------------------------------------------------------------------------------------

    def waited_until(self, machine: Coordinator, cohort: Collection[str]) -> float:
        """Return until when there may be somebody to wait for, as it stands: -inf where there is nobody."""
        return max(self._waits(machine, cohort), default=-math.inf)

    def _waits(self, machine: Coordinator, cohort: Collection[str]) -> Iterator[float]:
        def unanswered(name: str) -> bool:
            return name in cohort and not machine.ledger.settled(name, machine.progress.round)

        yield from (math.inf for name in self.there if unanswered(name))
        for (name, _), entry in machine.ledger.entries.items():
            if entry.standing is not Standing.SETTLED:
                yield self._grace_ends(name) if entry.standing is Standing.ARRIVING else math.inf
        for name, number in self._asked if self.policy.gracious else ():
            if number == machine.progress.round and unanswered(name):
                yield self._grace_ends(name)

    def _grace_ends(self, device: str) -> float:
        """Return when the round need not wait for the device any more, of whose update something is there."""
        if self.policy.asynchronous or device not in self._died:
            return math.inf
        return self._died[device] + self.policy.grace_s

    def left_behind(self, machine: Coordinator, now: float) -> list[str]:
        """Return the devices whose grace is not over, of whose update something is there, but not all."""
        return [
            name
            for (name, _), entry in machine.ledger.entries.items()
            if entry.standing is Standing.ARRIVING and name in self._died and now < self._grace_ends(name)
        ]
