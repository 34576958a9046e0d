"""The simulated broker and the links to it: retained messages, durable sessions, wills, and everything late or lost.

What stands on a topic comes in order, as MQTT has it, except for the wills of dead links: those may come at any time.
Tasks and manifests are lost only with a link, and then come again because they are retained. Updates and receipts can
be lost at any time, because a broker's queue is only so long; so can certificates, but those stand all the same, and
come again with the aggregator's next subscription, if there is room for them then.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from fedmq.protocol.messages import Beacon, Birth, Manifest, Receipt, Task

if TYPE_CHECKING:
    from collections.abc import Callable

    from fedmq.testing.world import World
    from fedmq.testing.world_device import DeviceShell

QUICK_S = 0.2
STRAY_S = 40.0
WILL_S = 30.0
ORDER_S = 1e-6


@dataclass(frozen=True, slots=True)
class SimulatedUpdate:
    """An update in the outbox or on its way. `base` is what the device really trained from: (run, version)."""

    id: bytes
    device: str
    run: bytes
    round: int
    model: int
    layout: bytes
    base: tuple[bytes, int]
    bad: bool
    chunks: int

    @property
    def key(self) -> tuple[str, int]:
        """Who made it, for which round."""
        return self.device, self.round


@dataclass(frozen=True, slots=True)
class Piece:
    """One message of an update."""

    update: SimulatedUpdate
    index: int


@dataclass(frozen=True, slots=True)
class Question:
    """A device's question which pieces of an update are missing."""

    update: SimulatedUpdate
    number: int


@dataclass(frozen=True, slots=True)
class Status:
    """A device's certificate, with its name."""

    device: str
    birth: Birth


Upward: TypeAlias = Piece | Question | Status
Downward: TypeAlias = Task | Manifest | Receipt | Beacon


@dataclass(slots=True, eq=False)
class Link:
    """One device's connection; `alive` turns False once."""

    shell: DeviceShell
    session: int
    alive: bool = True


class Broker:
    """See the module's text."""

    alive = True

    def __init__(self, world: World) -> None:
        """Begin with nothing retained and nobody connected."""
        self.world = world
        self.task: list[Task] = []
        self.manifest: list[Manifest] = []
        self.status: dict[str, list[Birth]] = {}
        self.links: dict[str, Link] = {}
        self.pieces = 0
        self._offline_for_aggregator: list[Piece | Question] = []
        self._offline_for_device: dict[str, list[Receipt]] = {}
        self._last: dict[object, float] = {}

    # --- how long, how often ------------------------------------------------------------------------------------------

    def _transit(self, stream: object = None) -> float:
        """Draw how long one message takes; those of one `stream` do not overtake each other."""
        random, stray = self.world.random, self.world.faults.stray
        delay = random.random() * (STRAY_S if stray and random.random() < stray else QUICK_S)
        if stream is None:
            return delay
        due = max(self.world.now + delay, self._last.get(stream, 0.0) + ORDER_S)
        self._last[stream] = due
        return due - self.world.now

    def _risk(self, deliver: Callable[..., None], *arguments: object) -> None:
        """Carry an update or a receipt: it may be lost, or come twice, or be overtaken."""
        world = self.world
        faults, random = world.faults, world.random
        if faults.drop and random.random() < faults.drop:
            world.note("lost", arguments[-1])
            return
        world.after(self._transit(), self, deliver, *arguments)
        if faults.duplicate and random.random() < faults.duplicate:
            world.after(self._transit(), self, deliver, *arguments)

    # --- devices ------------------------------------------------------------------------------------------------------

    def connect(self, shell: DeviceShell, session: int) -> Link:
        """Take over a device's session: its old link ends, what is retained and what waited comes."""
        name = shell.name
        old = self.links.get(name)
        if old is not None and old.alive:
            self.cut(name)
        link = self.links[name] = Link(shell, session)
        self.announce(link)
        for retained in (self.manifest, self.task):
            if retained:
                self._to_link(link, retained[-1])
        for receipt in self._offline_for_device.pop(name, ()):
            self.world.after(self._transit(), self, self._deliver, link, receipt)
        return link

    def announce(self, link: Link) -> None:
        """Retain a device's birth, and hand it to the aggregator."""
        name = link.shell.name
        birth = Birth(alive=True, session=link.session, layout=link.shell.layout)
        self.status.setdefault(name, []).append(birth)
        self._to_aggregator(Status(name, birth), stream=name)

    def cut(self, name: str, *, mourn: bool = False) -> None:
        """Break a device's link; its will follows, late or never, at once with `mourn`."""
        link, random = self.links[name], self.world.random
        if not link.alive:
            return
        link.alive = False
        if mourn or random.random() >= self.world.faults.will_lost:
            delay = 0.0 if mourn else random.random() * WILL_S
            self.world.after(delay, self, self._will, name, link.session)
        self.world.after(random.random() * 20.0, link.shell, link.shell.lost, link)

    def mourn(self, name: str) -> None:
        """Break a device's link for good, and be sure that its will comes."""
        self.cut(name, mourn=True)
        self._will(name, self.links[name].session)

    def _will(self, name: str, session: int) -> None:
        will = Birth(alive=False, session=session)
        current = self.links[name].session == session
        if current:
            self.status[name].append(will)
        self._to_aggregator(Status(name, will), stream=name if current else None)

    def receipt(self, name: str, receipt: Receipt) -> None:
        """Carry a receipt down; while the device is away it waits."""
        link = self.links.get(name)
        if link is None or not link.alive:
            self._offline_for_device.setdefault(name, []).append(receipt)
        else:
            self._risk(self._deliver, link, receipt)

    def _to_link(self, link: Link, message: Downward) -> None:
        self.world.after(self._transit((link, type(message))), self, self._deliver, link, message)

    def _deliver(self, link: Link, message: Downward) -> None:
        if link.alive and link.shell.alive:
            link.shell.take(message)

    # --- the aggregator -----------------------------------------------------------------------------------------------

    def update(self, message: Piece | Question) -> None:
        """Carry a piece of an update up, or a question about one."""
        self.pieces += isinstance(message, Piece)
        self._risk(self._arrive, message)

    def _to_aggregator(self, status: Status, stream: object = None) -> None:
        if self.world.chance(self.world.faults.status_lost):
            self.world.note("lost", status)
        else:
            self.world.after(self._transit(stream), self, self._arrive, status)

    def _arrive(self, message: Upward) -> None:
        aggregator = self.world.aggregator
        if aggregator.alive and aggregator.linked:
            aggregator.take(message)
        elif not isinstance(message, Status):  # certificates are retained, and come again in any case
            self._offline_for_aggregator.append(message)

    def subscribe(self) -> None:
        """The aggregator is back: it hears what is retained, and what its session has kept."""
        waiting, self._offline_for_aggregator = self._offline_for_aggregator, []
        for piece in waiting:
            self.world.after(self._transit(), self, self._arrive, piece)
        for name, births in self.status.items():
            self._to_aggregator(Status(name, births[-1]), stream=name)

    def publish(self, message: Task | Manifest | Beacon) -> None:
        """Retain a task or a manifest, and hand it to all who are there, as a beacon."""
        if isinstance(message, Task):
            self.task.append(message)
        elif isinstance(message, Manifest):
            self.manifest.append(message)
        for link in self.links.values():
            if link.alive:
                self._to_link(link, message)

    def stands(self, run: bytes, version: int) -> bool:
        """Say whether the frames that lead to this version can be fetched."""
        return bool(self.manifest) and (self.manifest[-1].run, self.manifest[-1].version) == (run, version)

    # --- the broker itself --------------------------------------------------------------------------------------------

    def roll_back(self) -> None:
        """Be killed: retained messages are older ones, what waited is gone, every link breaks."""
        random = self.world.random
        everything: list[list[Any]] = [self.task, self.manifest, *self.status.values()]
        for retained in everything:
            if len(retained) > 1 and random.choice((True, True, False)):
                retained.pop()
        self._offline_for_aggregator.clear()
        self._offline_for_device.clear()
        for name in self.links:
            self.cut(name)
        self.world.unlink_aggregator()
