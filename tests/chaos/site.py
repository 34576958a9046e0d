"""A small federation, aggregator and devices, with every disk recorded; and what it owes to whom at any moment.

`record` lets it live, restarts included, and returns a `Tape`. `Tape.remains` cuts the power after any operation of any
disk, `Tape.check` looks into what that leaves, `Tape.go_on` starts the federation again from it and looks at the end.
"""

from __future__ import annotations

import contextlib
import threading
from collections import defaultdict
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Final
from unittest.mock import patch

import numpy as np

from fedmq.aggregator.settings import Encoding, Federation
from fedmq.codecs import parse
from fedmq.config.kept import written
from fedmq.device.keepsakes import DiskKeepsakes
from fedmq.device.outbox import DiskOutbox, next_session
from fedmq.protocol import coordinator
from fedmq.protocol.messages import Manifest, Receipt, Task, Update, Verdict
from fedmq.protocol.policy import Policy, StopWhen
from fedmq.replay.course import Replay
from fedmq.store.archive import UPDATES, Archive, read_archive
from fedmq.store.checkpoint import CheckpointFolder
from fedmq.testing.federation import SMALL, Rig, ShiftTrainer, rig
from fedmq.transport.memory import MemoryBroker
from fedmq.vectors import fingerprint
from fedmq.wire.envelope import decode
from fedmq.wire.topics import Topics
from tests.chaos.disk import Named, Recorder, Said, Written
from tests.chaos.remains import Luck, Remains, cut

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path
    from random import Random

    from fedmq.store.archive import Recording
    from fedmq.transport.interface import Outgoing
    from fedmq.vectors import Vector

NAME: Final = "test"
TOPICS: Final = Topics(NAME)
DEVICES: Final = ("device-0", "device-1", "slow")
SLOW: Final = "slow"
ROUNDS: Final = 4
POLICY: Final = Policy(min_devices=3, quorum=3, soft_deadline_s=60, hard_deadline_s=60)
FIRST: Final = np.zeros(SMALL.size, np.float32)

Name = tuple[str, bytes]
"""A device and the id of an update."""


def federation(rounds: int) -> Federation:
    """Return the federation's settings; its codec loses something, so that devices keep a residual."""
    return Federation(
        NAME, policy=POLICY, stop=StopWhen(rounds=rounds), encoding=Encoding(up=parse("feedback | float16"))
    )


class Lost(AssertionError):
    """A promise was broken by a power cut; the message says what and where."""


def demand(holds: object, sentence: str) -> None:
    """Raise Lost unless it holds."""
    if not holds:
        raise Lost(sentence)


# --- the federation ---------------------------------------------------------------------------------------------------


class HeardBroker(MemoryBroker):
    """A broker that tells the recorder of all that goes over it, and knows who had his receipt for which round."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder
        self.accepted: defaultdict[int, set[str]] = defaultdict(set)

    def route(self, outgoing: Outgoing) -> None:
        """Note it before anybody hears of it."""
        heard = _heard(outgoing)
        if heard is not None:
            self._recorder.say(heard)
        if isinstance(heard, Receipted) and heard.receipt.verdict is Verdict.ACCEPTED:
            self.accepted[heard.receipt.round].add(heard.device)
        super().route(outgoing)


@dataclass(frozen=True, slots=True)
class Receipted:
    """A device was told of its update."""

    device: str
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class Sent:
    """A device has sent an update: so it is in its outbox."""

    device: str
    round: int
    update: bytes
    body: bytes


def _heard(outgoing: Outgoing) -> Receipted | Sent | Manifest | Task | None:
    """Return what a message commits its sender to; questions without sections do not."""
    topic, payload = outgoing.topic, outgoing.payload
    if topic == TOPICS.task:
        return decode(payload, Task)
    if topic == TOPICS.manifest:
        return decode(payload, Manifest)
    for device in DEVICES:
        if topic == TOPICS.receipt(device):
            return Receipted(device, decode(payload, Receipt))
        if topic.startswith(TOPICS.update(device, 1)[:-1]):
            update = decode(payload, Update)
            round_ = int(topic.rpartition("/")[2])
            return Sent(device, round_, update.update, payload) if update.sections else None
    return None


class Site:
    """Aggregator and devices with their folders below one root."""

    def __init__(self, running: Rig, root: Path) -> None:
        self.running, self.root = running, root
        self.gate = threading.Semaphore(0)

    def start(self) -> None:
        """Start everybody."""
        self.start_aggregator()
        for name in DEVICES:
            self.start_device(name)

    def start_aggregator(self) -> None:
        """Start it from its folder."""
        folder = self.running.folder / UPDATES
        self.running.start_aggregator(archive=Archive(folder, written(self.running.federation), 2**30))

    def start_device(self, name: str) -> None:
        """Start a device from its folder; the slow one trains once for each time that the gate is opened."""
        folder = self.root / name
        next_session(folder)
        trainer = ShiftTrainer(become=_jump(DEVICES.index(name)), gate=self._wait if name == SLOW else None)
        outbox, keepsakes = DiskOutbox(folder / "outbox"), DiskKeepsakes(folder / "keepsakes")
        self.running.start_device(name, trainer, outbox=outbox, keepsakes=keepsakes)

    def _wait(self) -> None:
        self.gate.acquire(timeout=30)


def _jump(number: int) -> Callable[[Vector], Vector]:
    def become(model: Vector) -> Vector:
        chance = np.random.default_rng([number, int(1e3 * np.abs(model).sum())])
        return model + chance.standard_normal(model.size).astype(np.float32)

    return become


@contextlib.asynccontextmanager
async def site(root: Path, broker: MemoryBroker, rounds: int) -> AsyncIterator[Site]:
    """Give a federation whose disks are below `root`; nobody runs yet."""
    with patch.object(coordinator, "CENSUS_S", 0.05):
        async with rig(federation(rounds), lambda: broker, root / "aggregator") as running:
            there = Site(running, root)
            try:
                yield there
            finally:
                there.gate.release(1000)


async def record(root: Path) -> Tape:
    """Let a federation live for a few rounds; in each, before it ends, aggregator and devices are started again."""
    recorder = Recorder(root)
    broker = HeardBroker(recorder)
    with recorder.recording():
        async with site(root, broker, ROUNDS) as there:
            there.start()
            for round_ in range(1, ROUNDS + 1):
                await there.running.until(partial(_all_but_the_slow, broker, round_))
                await _restart(there, round_)
                there.gate.release()
            await there.running.ended()
    return Tape(root, recorder)


def _all_but_the_slow(broker: HeardBroker, round_: int) -> bool:
    return len(broker.accepted[round_] - {SLOW}) == len(DEVICES) - 1


async def _restart(there: Site, round_: int) -> None:
    if round_ % 2:
        await there.running.stop("aggregator")
        there.start_aggregator()
    else:
        name = DEVICES[round_ // 2 % 2]
        await there.running.stop(name)
        there.start_device(name)


# --- what was recorded ------------------------------------------------------------------------------------------------


@dataclass
class Owed:
    """What must be there after a power cut at one moment."""

    version: int = 0
    run: bytes = b""
    oldest: int = 0
    accepted: set[Name] = field(default_factory=set)
    outboxes: dict[Name, Sent] = field(default_factory=dict)

    def take(self, said: object) -> None:
        """Note what somebody was told."""
        match said:
            case Receipted(device, receipt):
                self._receipted(device, receipt)
            case Sent():
                if said.round >= self.oldest:
                    self.outboxes[said.device, said.update] = said
            case Manifest():
                self.run, self.version = said.run, max(self.version, said.version)
            case Task():
                self.oldest = said.oldest
                self.outboxes = {
                    name: sent for name, sent in self.outboxes.items() if sent.round >= said.oldest
                }

    def _receipted(self, device: str, receipt: Receipt) -> None:
        if receipt.verdict is Verdict.ACCEPTED:
            self.accepted.add((device, receipt.update))
        if receipt.verdict.settled:
            self.outboxes.pop((device, receipt.update), None)


@dataclass
class Tape:
    """Everything that the disks did, and everybody was told, in order."""

    root: Path
    recorder: Recorder
    before: Owed = field(default_factory=Owed)

    @cached_property
    def points(self) -> list[int]:
        """How long the log was after each operation of a disk; not of those that found what was there."""
        return [
            at + 1
            for at, done in enumerate(self.recorder.log)
            if at >= self.recorder.found and not isinstance(done, Said)
        ]

    @cached_property
    def appends(self) -> list[int]:
        """The points in the middle of an append to a journal: written, not synced."""
        log, journals = self.recorder.log, set[int]()
        for done in log:
            if isinstance(done, Named):
                journals |= {number for _, name, number in done.names if number and name.endswith(".journal")}
        return [
            at for at in self.points if isinstance(done := log[at - 1], Written) and done.file in journals
        ]

    @cached_property
    def counted(self) -> dict[int, frozenset[Name]]:
        """The updates in each version of the model."""
        return _counted(read_archive(self.root / "aggregator" / UPDATES))

    @cached_property
    def models(self) -> dict[int, bytes]:
        """The SHA-256 of each version of the model."""
        recording = read_archive(self.root / "aggregator" / UPDATES)
        first = {recording.weights.version: fingerprint(recording.weights.vector)}
        return first | {kept.version: kept.model for kept in recording.rounds}

    def remains(self, point: int, luck: Luck, random: Random) -> Remains:
        """Return what may be left when the power goes after that much of the log."""
        return cut(self.recorder.log[:point], self.recorder.folders, luck, random)

    def owed(self, point: int) -> Owed:
        """Return what had been promised by then."""
        owed = deepcopy(self.before)
        for done in self.recorder.log[:point]:
            if isinstance(done, Said):
                owed.take(done.what)
        return owed

    # --- a look into the folders

    def check(self, root: Path, owed: Owed) -> None:
        """Look into what is left below `root`. Raises Lost, or StoreError where nothing can be read."""
        self._check_outboxes(root, owed)
        folder = CheckpointFolder(root / "aggregator")
        found = folder.load()
        if found is None:
            demand(not owed.run and not owed.accepted, "there is no checkpoint, and a model was published")
            return
        state, weights = found
        demand(not owed.run or state.run == owed.run, "the checkpoint is of another run")
        demand(
            weights.version >= owed.version,
            f"model {owed.version} was published, the disk has {weights.version}",
        )
        demand(
            fingerprint(weights.vector) == self.models[weights.version],
            f"model {weights.version} has changed",
        )
        Archive(root / "aggregator" / UPDATES, "", 2**30).begin(state, SMALL, weights)
        counted = _until(self.counted, weights.version)
        resumed: set[Name] = set()
        for journal, pieces in folder.journals():
            task = decode(journal.opening, Task)
            closed = max(state.verdicts, default=0)
            if task.run == state.run and task.model == weights.version and task.round > closed:
                last = {piece.device: decode(piece.payload, Update).update for piece, _ in pieces}
                resumed |= set(last.items())
            journal.close()
        lost = owed.accepted - counted - resumed
        demand(not lost, f"{len(lost)} receipted updates are neither in the model nor in the journal")
        demand(not counted & resumed, "an update that is in the model is in the open journal too")

    def _check_outboxes(self, root: Path, owed: Owed) -> None:
        for device in DEVICES:
            outbox = DiskOutbox(root / device / "outbox")
            bodies = {update: outbox.get(update) for update in outbox.entries()}
            for (name, update), sent in owed.outboxes.items():
                if name == device:
                    demand(
                        update in bodies, f"{device} has lost an update that it had sent, without a receipt"
                    )
                    demand(bodies[update] == sent.body, f"an update in the outbox of {device} has changed")
            for body in bodies.values():
                decode(body or b"", Update)

    # --- starting again

    async def go_on(self, root: Path, owed: Owed) -> Tape:
        """Start everybody below `root` again, let rounds pass, and look at the result. Raises Lost."""
        recorder = Recorder(root)
        with recorder.recording():
            async with site(root, HeardBroker(recorder), ROUNDS + 2) as there:
                there.gate.release(1000)
                there.start()
                await there.running.ended(seconds=20)
        recording = read_archive(root / "aggregator" / UPDATES)
        both = [name for names in _counted(recording).values() for name in names]
        demand(len(both) == len(set(both)), "an update was counted twice")
        lost = owed.accepted - set(both)
        demand(not lost, f"{len(lost)} receipted updates are in no model")
        replay = Replay(recording, [])
        demand(all(points[0].same for points in replay.run()), "a model is not what its updates make")
        return Tape(root, recorder, owed)


def _counted(recording: Recording) -> dict[int, frozenset[Name]]:
    return {
        kept.version: frozenset(
            (piece.device, decode(piece.payload, Update).update) for piece in recording.pieces(kept)
        )
        for kept in recording.rounds
    }


def _until(counted: dict[int, frozenset[Name]], version: int) -> set[Name]:
    return {name for made, names in counted.items() if made <= version for name in names}
