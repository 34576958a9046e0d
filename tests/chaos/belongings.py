"""One device's disk through many rounds, recorded: its outbox, and the residual of error feedback beside it.

The device's own parts, without a network: what it is told comes from a seed. Trainings are whole numbers, so what was
trained, what was counted and what is owed can be added up exactly, whatever a power cut leaves.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fedmq.codecs import parse
from fedmq.device.interface import Trained
from fedmq.device.keepsakes import DiskKeepsakes
from fedmq.device.outbox import DiskOutbox
from fedmq.device.settling import Settling
from fedmq.device.training import Training
from fedmq.protocol.messages import DELTA, Receipt, Task, TaskKind, Update, Verdict
from fedmq.protocol.seeds import update_seed
from fedmq.vectors import Layout, Variable
from fedmq.wire.envelope import decode
from tests.chaos.disk import Recorder, Said
from tests.chaos.remains import Luck, Remains, cut
from tests.chaos.site import demand

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from fedmq.descent import Pull
    from fedmq.device.interface import Setting
    from fedmq.vectors import Vector

LAYOUT: Final = Layout((Variable("w", (24,)),))
CODEC: Final = "feedback | float16"
RUN: Final = b"8 bytes!"
ROUNDS: Final = 12
FATES: Final = ("counted", "abandoned", "late", "duplicate", "unheard", "unheard and counted")
"""What becomes of an update. Refused ones are left out: they take the residual with them, as they should."""
VERDICTS: Final = {
    "counted": Verdict.ACCEPTED,
    "abandoned": Verdict.ACCEPTED,
    "late": Verdict.LATE,
    "duplicate": Verdict.DUPLICATE,
}


class WholeNumbers:
    """Trains whole numbers, and says what they were."""

    layout, name, examples = LAYOUT, "whole numbers", 1

    def __init__(self, recorder: Recorder, seed: int) -> None:
        self._recorder, self._chance = recorder, np.random.default_rng(seed)

    def initial(self) -> Vector:
        """Return zeros."""
        return np.zeros(LAYOUT.size, np.float32)

    def train(
        self, model: Vector, settings: Mapping[str, Setting], *, seed: int, pull: Pull | None = None
    ) -> Trained:
        """Return the model, changed by whole numbers that its codec has to round."""
        delta = 2 * self._chance.integers(-3000, 3000, model.size).astype(np.float32)
        self._recorder.say(delta)
        return Trained(model + delta, 1, 1, {})

    def evaluate(self, model: Vector) -> Mapping[str, float]:
        """Hold nothing out."""
        return {}


@dataclass(frozen=True, slots=True)
class Put:
    """An update is in the outbox."""

    update: bytes
    body: bytes
    delivered: Vector


@dataclass(frozen=True, slots=True)
class Settled:
    """An update may leave the outbox from now on."""

    update: bytes


@dataclass
class Life:
    """What was recorded of one device."""

    recorder: Recorder
    counted: set[bytes] = field(default_factory=set)

    def remains(self, point: int, luck: Luck, random: Random) -> Remains:
        """Return what may be left when the power goes after that much of the log."""
        return cut(self.recorder.log[:point], self.recorder.folders, luck, random)

    @property
    def points(self) -> list[int]:
        """How long the log was after each operation of the disk."""
        return [at + 1 for at, done in enumerate(self.recorder.log) if not isinstance(done, Said)]

    def check(self, root: Path, point: int) -> None:
        """Look into what is left below `root`. Raises Lost, or StoreError where nothing can be read."""
        said = [done.what for done in self.recorder.log[:point] if isinstance(done, Said)]
        put = {what.update: what for what in said if isinstance(what, Put)}
        gone = {what.update for what in said if isinstance(what, Settled)}
        outbox = DiskOutbox(root / "outbox")
        bodies = {update: outbox.get(update) for update in outbox.entries()}
        for update in put.keys() - gone:
            demand(bodies.get(update) == put[update].body, "an update without a receipt is not in the outbox")
        keepsakes = DiskKeepsakes(root / "keepsakes")
        trained = [what for what in said if isinstance(what, np.ndarray)]
        there = self._there(keepsakes, put)
        fine = [sum(trained[: len(put)], np.zeros(LAYOUT.size)), sum(trained, np.zeros(LAYOUT.size))]
        demand(
            any(np.array_equal(there, whole) for whole in fine),
            "what was trained is neither in the model nor owed to it, or is in both",
        )
        self._goes_on(outbox, keepsakes)

    def _there(self, keepsakes: DiskKeepsakes, put: dict[bytes, Put]) -> Any:  # noqa: ANN401
        total = np.zeros(LAYOUT.size)
        for piece in keepsakes.owed(RUN):
            total += piece.vector
        for update in keepsakes.waiting():
            change = keepsakes._read_change(update)
            assert change is not None
            assert change.back is not None
            total += change.back
        for update in self.counted & put.keys() - keepsakes.waiting().keys():
            total += put[update].delivered
        return total

    def _goes_on(self, outbox: DiskOutbox, keepsakes: DiskKeepsakes) -> None:
        """Train once more, from what is left."""
        training = Training("device", WholeNumbers(Recorder(outbox._folder), 1), outbox, keepsakes)
        stored = training.answer(task(ROUNDS + 1, 1), np.zeros(LAYOUT.size, np.float32))
        demand(outbox.get(stored.update) == stored.body, "the device cannot go on")


def task(round_: int, model: int) -> Task:
    """Return a task; updates of the rounds before it are taken no more."""
    return Task(RUN, round_, round_, TaskKind.TRAIN, model, LAYOUT.digest, b"salt", 1.0, 60.0, CODEC, 10_000)


async def record(root: Path, seed: int) -> Life:
    """Let a device live for some rounds, killed and started again in between."""
    random, recorder = Random(seed), Recorder(root)
    life, trainer = Life(recorder), WholeNumbers(recorder, seed)
    with recorder.recording():
        device, model = _Device(root, trainer, life), 1
        for round_ in range(1, ROUNDS + 1):
            now = task(round_, model)
            await device.tasked(now)
            update = device.train(now)
            if random.random() < 0.3:
                device = _Device(root, trainer, life)
                await device.tasked(now)
            fate = random.choice(FATES)
            if fate in {"counted", "unheard and counted"}:
                life.counted.add(update)
                model += 1
            if fate in VERDICTS:
                await device.told(update, VERDICTS[fate])
    return life


class _Device:
    """The parts of a device that have to do with its disk."""

    def __init__(self, root: Path, trainer: WholeNumbers, life: Life) -> None:
        self.outbox, self.keepsakes = DiskOutbox(root / "outbox"), DiskKeepsakes(root / "keepsakes")
        self.training = Training("device", trainer, self.outbox, self.keepsakes)
        self.settling = Settling(self.keepsakes, self.outbox, asyncio.ensure_future)
        self._life = life

    def train(self, now: Task) -> bytes:
        """Answer the task; return the update's id."""
        stored = self.training.answer(now, np.zeros(LAYOUT.size, np.float32))
        update = decode(stored.body, Update)
        seed = update_seed(RUN, now.round, stored.update)
        delivered = parse(CODEC).decode(update.sections[DELTA], LAYOUT.sizes, seed=seed)
        self._life.recorder.say(Put(stored.update, stored.body, delivered))
        return stored.update

    async def tasked(self, now: Task) -> None:
        """Hear of a round: give up what is of rounds before it, and ask what became of it."""
        for update, (_, round_) in self.outbox.entries().items():
            if round_ < now.oldest:
                self._life.recorder.say(Settled(update))
                self.settling.forget(update, None)
        for round_, update, _ in self.settling.tasked(now, self.outbox.entries()):
            verdict = Verdict.ACCEPTED if update in self._life.counted else Verdict.LATE
            self.settling.heard(Receipt(RUN, round_, update, verdict))
        await self._done()

    async def told(self, update: bytes, verdict: Verdict) -> None:
        """Hear what became of an update."""
        self._life.recorder.say(Settled(update))
        self.settling.forget(update, verdict)
        await self._done()

    async def _done(self) -> None:
        while self.settling._running:
            await self.settling.done()
