"""A fleet whose every training can be foretold, and whose every step is written down; in one process, or in many.

A training's result hangs on the device's name and every bit of the model that it starts from: one wrong bit in one
round, and all later models are others. So two runs that end with the same bytes counted the same updates, each once.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np

from fedmq.aggregator.aggregator import Aggregator
from fedmq.config.kept import written
from fedmq.device.device import Device, Identity
from fedmq.device.interface import Trained
from fedmq.device.outbox import DiskOutbox, next_session
from fedmq.protocol.messages import Update
from fedmq.store.archive import UPDATES, Archive
from fedmq.store.checkpoint import CheckpointFolder
from fedmq.store.modelfile import StoredModel
from fedmq.transport.address import Credentials, open_transport
from fedmq.transport.mosquitto import Mosquitto
from fedmq.transport.mqtt import MqttConnection
from fedmq.vectors import Layout, Variable
from fedmq.wire.envelope import decode
from tests.chaos.ledger import ACCEPTED, TRAINED, Audit, Ledger, Line, audit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fedmq.aggregator.settings import Federation
    from fedmq.descent import Pull
    from fedmq.device.interface import Setting
    from fedmq.device.outbox import Stored
    from fedmq.protocol.messages import Report, Task
    from fedmq.protocol.participation import Forget
    from fedmq.transport.interface import Connection, Limits, Message, Outgoing, Profile, Transport
    from fedmq.vectors import Vector

NAME: Final = "weather"
LAYOUT: Final = Layout((Variable("w", (15, 4)), Variable("b", (4,))))
KEEP_BYTES: Final = 2**33

DEFAULTS: Final = (
    "max_inflight_messages 20",
    "max_queued_messages 1000",
    "max_queued_bytes 0",
)
"""What mosquitto does where nobody says otherwise; fedmq's own broker for trials is more generous."""
PERSISTENT: Final = (*DEFAULTS, "persistence true", "persistence_location ./")
"""Debian's mosquitto: what it holds goes to disk each half hour, and when it is stopped in good order."""


def wide(numbers: int) -> Layout:
    """Return a layout of so many numbers: updates of four bytes each."""
    return Layout((Variable("w", (numbers,)),))


Pause: TypeAlias = Callable[[], Awaitable[object]]
"""What a device waits for before it trains."""

Door: TypeAlias = "Callable[[str], str | Transport]"
"""Where who finds the broker: its address, or a transport of one's own."""


async def at_once() -> None:
    """Wait for nothing."""


class HashTrainer:
    """Adds to the model what the device's name and the model's own bytes give."""

    name = "hash"

    def __init__(self, device: str, layout: Layout = LAYOUT) -> None:
        self.device, self.layout = device, layout
        self.examples = 1 + hashlib.sha256(device.encode()).digest()[0]

    def initial(self) -> Vector:
        """Return zeros."""
        return np.zeros(self.layout.size, np.float32)

    def train(
        self, model: Vector, settings: Mapping[str, Setting], *, seed: int, pull: Pull | None = None
    ) -> Trained:
        """Return the model, moved."""
        drawn = np.random.default_rng(list(hashlib.sha256(self.device.encode() + model.tobytes()).digest()))
        moved = model + drawn.standard_normal(model.size, np.float32)
        return Trained(moved.astype(np.float32), self.examples, 1, {})

    def evaluate(self, model: Vector) -> Mapping[str, float]:
        """Hold nothing out."""
        return {}


class WatchedOutbox(DiskOutbox):
    """An outbox that says in a ledger what comes into it, before it does."""

    def __init__(self, folder: Path, device: str, ledger: Ledger) -> None:
        super().__init__(folder)
        self._device, self._ledger = device, ledger

    def put(self, stored: Stored) -> None:
        """Write it down and keep it."""
        model = decode(stored.body, Update).model
        self._ledger.write(Line(self._device, TRAINED, stored.round, stored.update.hex(), model))
        super().put(stored)


@dataclass(slots=True)
class Sent:
    """Messages that carried updates, those of them that were acknowledged; bytes, with questions about updates."""

    messages: int = 0
    acknowledged: int = 0
    nbytes: int = 0


class WatchedConnection:
    """A connection that counts what leaves it of updates."""

    def __init__(self, inner: Connection, sent: Sent) -> None:
        self.inner, self._sent = inner, sent

    @property
    def limits(self) -> Limits:
        """What the broker granted."""
        return self.inner.limits

    async def publish(self, outgoing: Outgoing) -> None:
        """Send and count."""
        if "/update/" in outgoing.topic:
            await self.publish_update(outgoing)
            return
        if "/query/" in outgoing.topic:
            self._sent.nbytes += len(outgoing.payload)
        await self.inner.publish(outgoing)

    async def publish_update(self, outgoing: Outgoing) -> None:
        """Send an update, or a chunk of one."""
        self._sent.messages += 1
        self._sent.nbytes += len(outgoing.payload)
        await self.inner.publish(outgoing)
        self._sent.acknowledged += 1

    async def subscribe(self, *filters: str) -> None:
        """Pass it on."""
        await self.inner.subscribe(*filters)

    async def unsubscribe(self, *filters: str) -> None:
        """Pass it on."""
        await self.inner.unsubscribe(*filters)

    async def receive(self) -> Sequence[Message]:
        """Pass it on."""
        return await self.inner.receive()

    async def close(self) -> None:
        """Pass it on."""
        await self.inner.close()


class WatchedTransport:
    """Makes connections that count."""

    def __init__(self, inner: Transport, sent: Sent) -> None:
        self._inner, self._sent = inner, sent

    @property
    def address(self) -> str:
        """The broker's."""
        return self._inner.address

    async def connect(self, profile: Profile) -> WatchedConnection:
        """Connect."""
        return WatchedConnection(await self._inner.connect(profile), self._sent)


class WatchedDevice(Device):
    """A device that writes each receipt down before anything follows from it, and takes its time to train."""

    def __init__(
        self,
        name: str,
        transport: Transport,
        folder: Path,
        ledger: Ledger,
        *,
        layout: Layout = LAYOUT,
        pause: Pause = at_once,
    ) -> None:
        self.ledger, self.pause, self.sent = ledger, pause, Sent()
        super().__init__(
            Identity(NAME, name, next_session(folder)),
            WatchedTransport(transport, self.sent),
            HashTrainer(name, layout),
            outbox=WatchedOutbox(folder / "outbox", name, ledger),
        )
        self.due: list[float] = []
        self._session._sleep = self._sleep

    async def _sleep(self, seconds: float) -> None:
        """Note when the next connection is due, and wait for it."""
        self.due.append(time.monotonic() + seconds)
        await asyncio.sleep(seconds)

    async def _train(self, task: Task) -> None:
        await self.pause()
        await super()._train(task)

    def _forget(self, effect: Forget) -> None:
        word = effect.verdict.name.lower() if effect.verdict else "dropped"
        self.ledger.write(Line(self.identity.name, word, effect.round, effect.update.hex()))
        super()._forget(effect)

    @property
    def accepted(self) -> int:
        """How many of its updates were accepted in this life."""
        return self.counters.verdicts.get(ACCEPTED, 0)


class Fleet:
    """An aggregator and its devices, started, stopped and killed one by one."""

    def __init__(
        self,
        federation: Federation,
        folder: Path,
        door: Door,
        *,
        layout: Layout = LAYOUT,
        pause: Pause = at_once,
    ) -> None:
        """Keep everything in `folder`; `door` says for each name where it finds the broker."""
        self.federation, self.folder, self._door = federation, folder, door
        self.layout, self.pause = layout, pause
        self.reports: list[Report] = []
        self.devices: dict[str, WatchedDevice] = {}
        self.aggregator: Aggregator | None = None
        self.ledger = Ledger(folder / "ledger")
        self._tasks: dict[str, asyncio.Task[object]] = {}

    # --- lives --------------------------------------------------------------------------------------------------------

    def start_aggregator(self) -> Aggregator:
        """Start the aggregator, from its folder where that holds a checkpoint."""
        folder = self.folder / "aggregator"
        self.aggregator = Aggregator(
            self.federation,
            self._transport("aggregator"),
            CheckpointFolder(folder),
            StoredModel(self.layout, np.zeros(self.layout.size, np.float32)),
            on_report=self.reports.append,
            archive=Archive(folder / UPDATES, written(self.federation), KEEP_BYTES),
        )
        self._tasks["aggregator"] = asyncio.create_task(self.aggregator.run())
        return self.aggregator

    def start_device(self, name: str) -> WatchedDevice:
        """Start one device, from its folder where there is one."""
        device = WatchedDevice(
            name, self._transport(name), self.folder / name, self.ledger, layout=self.layout, pause=self.pause
        )
        self.devices[name] = device
        self._tasks[name] = asyncio.create_task(device.run())
        return device

    def _transport(self, name: str) -> Transport:
        door = self._door(name)
        return open_transport(door, Credentials()) if isinstance(door, str) else door

    async def kill(self, name: str) -> None:
        """End ``aggregator`` or a device without a word to the broker, as far as that goes within a process."""
        life = self.aggregator if name == "aggregator" else self.devices[name]
        assert life is not None
        connection = life._session.connection
        while isinstance(connection, WatchedConnection):
            connection = connection.inner
        if isinstance(connection, MqttConnection):
            connection._link.abandon("it was killed")
        await self.stop(name)

    async def stop(self, name: str) -> None:
        """End ``aggregator`` or a device as SIGTERM would."""
        task = self._tasks.pop(name)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def close(self) -> None:
        """Stop everything that still runs."""
        tasks, self._tasks = list(self._tasks.values()), {}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.ledger.close()

    # --- what goes on -------------------------------------------------------------------------------------------------

    async def until(self, holds: Callable[[], object], seconds: float, wanted: str) -> None:
        """Wait until `holds()`; raise TimeoutError that says what was `wanted`, or what a life of ours died of."""
        try:
            async with asyncio.timeout(seconds):
                while not holds():
                    self._check()
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise TimeoutError(f"{wanted} did not come within {seconds:.0f} s: {self.state()}") from None

    def _check(self) -> None:
        for name, task in self._tasks.items():
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                raise RuntimeError(f"{name} died") from error

    def state(self) -> str:
        """Return in a few words how far it has come."""
        if self.aggregator is None:
            return "no aggregator"
        coordinator = self.aggregator._coordinator
        return (
            f"round {coordinator.progress.round} is {coordinator.phase.value} with {coordinator.ledger.accepted} "
            f"accepted of {len(coordinator.present)} present; {self.linked} devices have a link, and are "
            f"{self._doing()}; the aggregator {'has one' if self.aggregator._session.connection else 'has none'}"
        )

    def _doing(self) -> str:
        """Return how many devices do what in which round."""
        machines = [device._participant for device in self.devices.values()]
        doing = Counter(
            f"{machine.phase.value} in round {machine.task.round if machine.task else 0}"
            f"{' with an update' if machine.outbox else ''}"
            for machine in machines
        )
        return ", ".join(f"{what} ({count})" for what, count in sorted(doing.items()))

    @property
    def present(self) -> int:
        """How many devices the aggregator knows of."""
        return len(self.aggregator._coordinator.present) if self.aggregator else 0

    @property
    def linked(self) -> int:
        """How many devices have a link that is ready for use."""
        return sum(device._session.connection is not None for device in self.devices.values())

    @property
    def accepted(self) -> int:
        """How many updates of the open round are accepted."""
        return self.aggregator._coordinator.ledger.accepted if self.aggregator else 0

    @property
    def round(self) -> int:
        """The newest round that was opened."""
        return self.aggregator._coordinator.progress.round if self.aggregator else 0

    @property
    def sent(self) -> Sent:
        """What the present devices' updates took, in all."""
        each = [device.sent for device in self.devices.values()]
        return Sent(*(sum(column) for column in zip(*map(astuple, each), strict=True)))

    def audit(self) -> Audit:
        """Hold the ledgers against what was kept, and add up every report."""
        abandoned = {report.round for report in self.reports if report.outcome != "stepped"}
        found = audit(self.ledger.read(), self.folder / "aggregator", abandoned)
        for report in self.reports:
            check_report(found, report)
        return found


def check_report(found: Audit, report: Report) -> None:
    """Every update that came has one of four verdicts; as many were accepted as there are."""
    told = report.accepted + report.duplicate + report.late + report.rejected
    found.require(
        report.received == told,
        f"round {report.round} received {report.received} updates, {told} have a verdict",
    )
    kept = found.kept.get(report.round, report.accepted)  # none are kept of a round that moved nothing
    found.require(
        report.accepted == kept,
        f"round {report.round} counted {report.accepted} updates, and there are {kept}",
    )


@contextlib.asynccontextmanager
async def fleet(
    federation: Federation,
    folder: Path,
    door: Door,
    **options: Any,  # noqa: ANN401
) -> AsyncIterator[Fleet]:
    """Give a `Fleet` and stop whatever of it still runs at the end."""
    running = Fleet(federation, folder, door, **options)
    try:
        with hushed():  # each cut link would be told of by its device
            yield running
    finally:
        await running.close()


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """Let fedmq's log say nothing."""
    log = logging.getLogger("fedmq")
    before = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        log.setLevel(before)


def names(count: int) -> list[str]:
    """Return the names of so many devices."""
    return [f"device-{number:04d}" for number in range(count)]


def broker_log(broker: Mosquitto) -> str:
    """Return all that the broker has written since it was first started."""
    assert broker._folder is not None
    return Path(broker._folder.name, "log").read_text(errors="replace")
