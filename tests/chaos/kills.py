"""Broker, aggregator and devices are killed with SIGKILL, hundreds of times, at moments and places drawn from a seed.

Each party is a process; mosquitto keeps to Debian's persistence. Two kills in three strike at a place in the protocol
that was chosen beforehand, such as between the journal's sync and the receipt; the rest at some moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from statistics import median
from typing import TYPE_CHECKING, Final

import numpy as np

from fedmq.errors import MessageError
from fedmq.protocol.messages import Beacon, Report
from fedmq.store.modelfile import StoredModel, save_model
from fedmq.transport.address import Credentials, open_transport
from fedmq.transport.backoff import Backoff
from fedmq.transport.interface import Profile
from fedmq.transport.mosquitto import Mosquitto
from fedmq.transport.session import Session
from fedmq.vectors import fingerprint
from fedmq.wire.envelope import decode
from fedmq.wire.topics import Topics
from tests.chaos.fleet import LAYOUT, NAME, PERSISTENT, HashTrainer, check_report, hushed, names
from tests.chaos.ledger import Audit, Ledger, audit, mean_of
from tests.chaos.lives import Host, Party
from tests.chaos.points import AGGREGATOR, DEVICE
from tests.chaos.row import Row

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fedmq.transport.interface import Connection, Message

GOAL_S: Final = 2.0
PATIENCE_S: Final = 8.0
"""How long a process may take to come to the place where it is to die; then it is killed where it is."""
STARTS_S: Final = 120.0
ENDS_S: Final = 240.0

FEDERATION: Final = """
[federation]
name = "{name}"
folder = "aggregator"

[model]
file = "first.fedmq"

[broker]
address = "{address}"

[encoding]
up = "float32"
down = "float32"
key = "float32"
keyframe_every = 1

[rounds]
min_devices = {devices}
quorum = {devices}
soft_deadline_s = 300
hard_deadline_s = 300

[store]
keep_updates = true
"""


@dataclass(frozen=True, slots=True)
class Plan:
    """How many processes host how many devices each, and how often which party is killed."""

    hosts: int
    each: int
    broker: int
    aggregator: int
    devices: int

    @property
    def fleet(self) -> int:
        """How many devices there are."""
        return self.hosts * self.each

    @property
    def kills(self) -> int:
        """How many kills there are in all."""
        return self.broker + self.aggregator + self.devices


@dataclass(frozen=True, slots=True)
class Aim:
    """Where aggregators are to die, and what share of all kills is aimed at a place."""

    places: Sequence[str] = AGGREGATOR
    share: float = 0.67


LONG: Final = Plan(hosts=4, each=6, broker=40, aggregator=50, devices=110)
QUICK: Final = Plan(hosts=2, each=3, broker=1, aggregator=2, devices=2)


@dataclass(slots=True)
class Toll:
    """What came of it: kills by party and place, and how many struck where they were meant to.

    accepting: seconds from the aggregator's start until it took updates again, without those in which it could have run
    and others had the processor; accepting_wall: with them.
    """

    kills: Counter[str] = field(default_factory=Counter)
    places: Counter[str] = field(default_factory=Counter)
    aimed: int = 0
    accepting: list[float] = field(default_factory=list)
    accepting_wall: list[float] = field(default_factory=list)
    found: Audit = field(default_factory=Audit)


async def run(*, quick: bool, seed: int) -> Row:
    """Kill everybody, and hold the books against each other."""
    plan = QUICK if quick else LONG
    toll = await massacre(plan, seed)
    found, slowest = toll.found, max(toll.accepting)
    where = ", ".join(f"{place} {count}" for place, count in sorted(toll.places.items()))
    return Row(
        promise="processes killed anywhere: what was receipted is neither lost nor counted twice; the models are those "
        "of a run that nobody killed; the aggregator takes updates again at once",
        figure=f"{toll.kills.total()} kills ({toll.kills['broker']} broker, {toll.kills['aggregator']} aggregator, "
        f"{toll.kills['devices']} device processes), {toll.aimed} of them where they were aimed ({where}); "
        f"{found.receipts:,} receipts, {found.updates:,} updates counted in {found.rounds} rounds; accepting again "
        f"{median(toll.accepting):.2f} s after its start, at most {slowest:.2f} s (with the waiting for a processor "
        f"{median(toll.accepting_wall):.2f} and {max(toll.accepting_wall):.2f} s); "
        f"{found.said or 'none lost, none twice, every model bit for bit'}",
        goal=f"{plan.kills} kills, 0 violations, accepting within {GOAL_S:.0f} s of its start",
        met=toll.kills.total() == plan.kills
        and not found.violations
        and slowest <= GOAL_S
        and found.rounds > 1,
        figures={
            "kills": float(toll.kills.total()),
            "aimed": float(toll.aimed),
            "places": float(len(toll.places)),
            "rounds": float(found.rounds),
            "receipts": float(found.receipts),
            "violations": float(len(found.violations)),
            "accepting_s": slowest,
            "accepting_median_s": median(toll.accepting),
            "accepting_wall_s": max(toll.accepting_wall),
        },
    )


async def massacre(
    plan: Plan, seed: int, *, fault: str = "", aim: Aim | None = None, ends_s: float = ENDS_S
) -> Toll:
    """Run a federation of processes, with a fault planted if so told; kill as planned, and audit.

    Rounds that do not go on for `ends_s` seconds are a violation like any other.
    """
    random = Random(f"kills {seed}")
    # the watcher loses its link with each broker, and would say so
    with hushed(), tempfile.TemporaryDirectory(prefix="fedmq-chaos-") as name:
        folder = Path(name)
        async with Mosquitto(PERSISTENT) as broker, watching(broker.address) as watcher:
            prepare(folder, broker.address, plan.fleet)
            parties, stuck = Parties(plan, folder, broker, watcher, fault), ""
            try:
                await parties.begin(ends_s)
                await parties.strike_all(random, aim or Aim())
                await parties.rounds(2, ends_s)
            except TimeoutError as slow:
                stuck = str(slow)
            finally:
                parties.end()
            parties.toll.found = settled(folder, plan.fleet, watcher.reports)
            parties.toll.found.require(not stuck, stuck)
            return parties.toll


def prepare(folder: Path, address: str, devices: int) -> None:
    """Write what the aggregator reads."""
    text = FEDERATION.format(name=NAME, address=address, devices=devices)
    (folder / "federation.toml").write_text(text)
    save_model(folder / "first.fedmq", StoredModel(LAYOUT, np.zeros(LAYOUT.size, np.float32)))


def settled(folder: Path, devices: int, reports: Mapping[int, Report]) -> Audit:
    """Return the audit, with every model held against those of an undisturbed run."""
    ledger = Ledger(folder / "ledger")
    found = audit(ledger.read(), folder / "aggregator")
    ledger.close()
    for report in reports.values():
        check_report(found, report)
    refused = found.told["rejected"]
    found.require(not refused, f"{refused} updates of honest devices were refused")
    other = undisturbed(devices, found.rounds)
    same = sum(ours == theirs for ours, theirs in zip(found.models, other, strict=True))
    found.require(
        same == found.rounds,
        f"{found.rounds - same} of {found.rounds} models are not those of an undisturbed run",
    )
    return found


def undisturbed(devices: int, rounds: int) -> list[bytes]:
    """Return the models' SHA-256 of a run in which every device answers each round once."""
    trainers = [HashTrainer(name) for name in names(devices)]
    vector, models = trainers[0].initial(), []
    for _ in range(rounds):
        deltas = [trainer.train(vector, {}, seed=0).vector - vector for trainer in trainers]
        mean = mean_of(deltas, [trainer.examples for trainer in trainers])
        vector = np.add(vector, mean, dtype=np.float32)
        models.append(fingerprint(vector))
    return models


# --- watching ---------------------------------------------------------------------------------------------------------


class Watcher:
    """Hears what the aggregator tells everybody: its beacons, and each round's report."""

    def __init__(self) -> None:
        self.reports: dict[int, Report] = {}
        self.life = 0
        self.garbled = 0
        self._topics = Topics(NAME)

    async def greet(self, connection: Connection) -> None:
        """Subscribe."""
        await connection.subscribe(self._topics.beacon, self._topics.report)

    async def hear(self, messages: Sequence[Message]) -> None:
        """Take down what is told."""
        for message in messages:
            with contextlib.suppress(MessageError):
                self._hear(message)

    def _hear(self, message: Message) -> None:
        if message.topic == self._topics.report:
            report = decode(message.payload, Report)
            self.reports[report.round] = report
        elif (beacon := decode(message.payload, Beacon)).alive:
            self.life = max(self.life, beacon.epoch)


@contextlib.asynccontextmanager
async def watching(address: str):  # type: ignore[no-untyped-def] # noqa: ANN201 -- an asynchronous context
    """Give a `Watcher` that is connected as long as there is a broker."""
    watcher = Watcher()
    session = Session(
        open_transport(address, Credentials()),
        Profile("watcher", durable=False),
        on_connected=watcher.greet,
        on_messages=watcher.hear,
        random=Random(),
        backoff=Backoff(base_s=0.05, cap_s=0.1),
    )
    async with session:
        yield watcher


# --- parties ----------------------------------------------------------------------------------------------------------


class Parties:
    """All of them, and their death."""

    def __init__(self, plan: Plan, folder: Path, broker: Mosquitto, watcher: Watcher, fault: str) -> None:
        self.plan, self.broker, self.watcher = plan, broker, watcher
        flags = ["--fault", fault] if fault else []
        self.aggregator = Party(folder, "aggregator", "aggregator", str(folder), *flags)
        self.hosts = [
            Host(
                folder,
                f"host-{number}",
                "devices",
                str(folder),
                broker.address,
                str(number * plan.each),
                str(plan.each),
                *flags,
            )
            for number in range(plan.hosts)
        ]
        self.toll = Toll()

    async def begin(self, patience_s: float) -> None:
        """Start everybody and see a round through."""
        for each in (self.aggregator, *self.hosts):
            each.start()
        await self.rounds(1, patience_s)

    def end(self) -> None:
        """End everybody."""
        for each in (self.aggregator, *self.hosts):
            each.kill()

    async def rounds(self, count: int, patience_s: float) -> None:
        """Wait for so many more reports."""
        last = max(self.watcher.reports, default=0)
        wanted = f"the end of round {last + count}"
        await self._until(lambda: max(self.watcher.reports, default=0) >= last + count, patience_s, wanted)

    async def strike_all(self, random: Random, aim: Aim) -> None:
        """Kill as planned, in a random order."""
        plan = self.plan
        victims = ["broker"] * plan.broker + ["aggregator"] * plan.aggregator + ["devices"] * plan.devices
        random.shuffle(victims)
        for victim in victims:
            self.toll.kills[victim] += 1
            if victim == "broker":
                await self._strike_broker(random)
            elif victim == "aggregator":
                await self._strike(self.aggregator, random, aim.places, aim.share)
                await self._accepting()
            else:
                await self._strike(random.choice(self.hosts), random, DEVICE, aim.share)
            for each in (self.aggregator, *self.hosts):
                assert not each.dead

    async def _strike_broker(self, random: Random) -> None:
        await asyncio.sleep(random.uniform(0.0, 1.0))
        await self.broker.kill()
        await asyncio.sleep(random.uniform(0.0, 0.5))
        await self.broker.start()

    async def _strike(self, victim: Party, random: Random, places: Sequence[str], share: float) -> None:
        """Kill a party at a place, or at some moment; and start it again."""
        aim = random.choice(places) if random.random() < share else ""
        moment = random.uniform(0.0, 1.0)
        victim.points.arm(aim)
        until = time.monotonic() + (PATIENCE_S if aim else moment)
        while not victim.dead and time.monotonic() < until:
            await asyncio.sleep(0.005)
        self.toll.aimed += victim.dead
        victim.kill()
        self.toll.places[victim.points.last or "starting"] += 1
        victim.start()

    async def _accepting(self) -> None:
        """Wait until the aggregator that was started just now is heard of."""
        before, began = self.watcher.life, time.monotonic()
        await self._until(lambda: self.watcher.life >> 16 > before >> 16, STARTS_S, "the aggregator's return")
        seconds = time.monotonic() - began
        self.toll.accepting_wall.append(seconds)
        self.toll.accepting.append(seconds - self.aggregator.waited)

    async def _until(self, holds: object, seconds: float, wanted: str) -> None:
        assert callable(holds)
        end = time.monotonic() + seconds
        while not holds():
            for each in (self.aggregator, *self.hosts):
                if each.dead:
                    raise RuntimeError(f"{each.name} is dead")
            if time.monotonic() > end:
                raise TimeoutError(f"{wanted} did not come within {seconds:.0f} s")
            await asyncio.sleep(0.005)
