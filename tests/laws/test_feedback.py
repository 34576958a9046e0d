"""Error feedback loses nothing: what was trained is in the model or in the residual, whatever links and power do.

Numbers are whole and small, so that float32 adds them without rounding and the law is an equality.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmq.codecs import parse
from fedmq.device.interface import Setting, Trained
from fedmq.device.keepsakes import DiskKeepsakes, Keepsakes, MemoryKeepsakes
from fedmq.device.outbox import DiskOutbox, MemoryOutbox, Outbox, Stored
from fedmq.device.settling import Settling
from fedmq.device.training import Training
from fedmq.protocol.messages import DELTA, Receipt, Task, TaskKind, Update, Verdict
from fedmq.protocol.seeds import update_seed
from fedmq.vectors import Layout, Variable, Vector
from fedmq.wire.envelope import decode
from tests.unit.device.test_keepsakes import Power, PowerCutError

RUN: Final = b"run-0001"
LAYOUT: Final = Layout((Variable("w", (3,)), Variable("mean", (2,), "statistic")))
LARGEST: Final = 3000  # of a delta's numbers: a whole history of them stays below what float16 can hold


class WholeNumbers:
    """A trainer whose deltas are whole numbers drawn by round: trained twice, a round gives the same."""

    name, layout, examples = "whole numbers", LAYOUT, 1

    def __init__(self) -> None:
        self.round = 0

    def initial(self) -> Vector:
        return np.zeros(LAYOUT.size, np.float32)

    def delta(self) -> Vector:
        chance = np.random.default_rng(self.round)
        return chance.integers(-LARGEST, LARGEST, LAYOUT.size).astype(np.float32)

    def train(self, model: Vector, settings: Mapping[str, Setting], *, seed: int) -> Trained:  # a trainer's
        return Trained(model + self.delta(), 1, 1)

    def evaluate(self, model: Vector) -> Mapping[str, float]:
        return {}


@dataclass(frozen=True)
class Fate:
    """What becomes of one round: whether and how the device trains, what its update meets, when its receipt comes.

    trains: ``no``, ``yes``, ``cut`` (the power goes between residual and outbox; it trains again) or ``full`` (the
    outbox cannot be written). meets: ``counted``, ``late``, ``lost``. given_up: the round moves nothing. receipt: with
    which round's task it comes, never if that is beyond the last. answers: whether questions are answered.
    """

    trains: str = "yes"
    meets: str = "counted"
    given_up: bool = False
    receipt: int = 0
    answers: bool = True
    restarts: bool = False


FATES: Final = st.builds(
    Fate,
    trains=st.sampled_from(["yes", "yes", "yes", "no", "cut", "full"]),
    meets=st.sampled_from(["counted", "counted", "late", "lost"]),
    given_up=st.sampled_from([False, False, False, True]),
    receipt=st.sampled_from([0, 0, 0, 1, 2, 5, 99]),
    answers=st.sampled_from([True, True, False]),
    restarts=st.booleans(),
)


@dataclass
class Device:
    """The parts of a device that train, keep and settle; a restart makes them anew from what is on disk."""

    folder: Path | None
    codec: str
    trainer: WholeNumbers = field(default_factory=WholeNumbers)
    outbox: Outbox = field(default_factory=MemoryOutbox)
    keepsakes: Keepsakes = field(default_factory=MemoryKeepsakes)

    def __post_init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        if self.folder is not None:
            self.outbox, self.keepsakes = DiskOutbox(self.folder / "o"), DiskKeepsakes(self.folder / "k")
        self.training = Training("device", self.trainer, self.outbox, self.keepsakes)
        self.settling = Settling(self.keepsakes, self.outbox, self._run)
        self.running: list[asyncio.Task[None]] = []

    def _run(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        self.running.append(asyncio.get_running_loop().create_task(work))
        return self.running[-1]

    async def settled(self) -> None:
        """Wait until all is written; raise what came in between."""
        await self.settling.done()
        for task in self.running:
            task.result()
        self.running.clear()

    def residual(self) -> Vector:
        total = np.zeros(LAYOUT.size, np.float32)
        for piece in self.keepsakes.owed(RUN):
            total += piece.vector
        return total


@dataclass
class History:
    """One device's rounds, with the aggregator's account of them."""

    device: Device
    model: int = 1
    round: int = 1
    met: bool = False
    trained: Vector = field(default_factory=lambda: np.zeros(LAYOUT.size, np.float32))
    counted: Vector = field(default_factory=lambda: np.zeros(LAYOUT.size, np.float32))
    verdicts: dict[bytes, Verdict] = field(default_factory=dict)
    receipts: list[tuple[int, bytes]] = field(default_factory=list)

    async def live(self, fates: Sequence[Fate]) -> None:
        """Go through all of them, then through quiet rounds until all is settled; from where a power cut ended it."""
        every = [*fates, *[Fate(trains="no")] * 3]
        for fate in every[self.round - 1 :]:
            await self._live(fate, last=self.round == len(every))
            self.round, self.met = self.round + 1, False
            if not fate.given_up:
                self.model += 1
            if fate.restarts:
                self.device.begin()

    async def _live(self, fate: Fate, *, last: bool) -> None:
        task = Task(
            RUN, self.round, self.round, TaskKind.TRAIN, self.model, LAYOUT.digest, bytes(16), 1.0, 60.0,
            self.device.codec, 10_000,
        )  # fmt: skip
        await self._told(task, fate, last=last)
        stored = None if self.met else self._sent(task) or self._trained(task, fate)
        if stored is not None:
            self._meet(self.round, stored, fate)
            await self._told(task, fate)

    def _sent(self, task: Task) -> Stored | None:
        """Return the round's update, where a power cut has left it in the outbox."""
        for update, (run, round_) in self.device.outbox.entries().items():
            body = self.device.outbox.get(update)
            if round_ == task.round and body is not None:
                return Stored(run, round_, update, body)
        return None

    async def _told(self, task: Task, fate: Fate, *, last: bool = False) -> None:
        """Bring the device a task, receipts, and answers to its questions."""
        device = self.device
        for update, (_, round_) in list(device.outbox.entries().items()):
            if round_ < task.oldest:
                device.settling.forget(update, None)
        questions = [update for _, update, _ in device.settling.tasked(task, device.outbox.entries())]
        if fate.answers or last:
            self.receipts += [(0, update) for update in questions]
        for receipt in [receipt for receipt in self.receipts if receipt[0] <= task.round]:
            self.receipts.remove(receipt)
            self._receipted(task, receipt[1])
        await device.settled()

    def _receipted(self, task: Task, update: bytes) -> None:
        verdict = self.verdicts.get(update, Verdict.LATE)
        if update in self.device.outbox.entries():
            self.device.settling.forget(update, verdict)
        else:
            self.device.settling.heard(Receipt(RUN, task.round, update, verdict))

    def _trained(self, task: Task, fate: Fate) -> Stored | None:
        device = self.device
        device.trainer.round = task.round
        if fate.trains == "no":
            return None
        with pytest.MonkeyPatch.context() as patch:
            if fate.trains != "yes":
                patch.setattr(device.outbox, "put", _cut)
                with pytest.raises(PowerCutError):
                    device.training.answer(task, np.zeros(LAYOUT.size, np.float32))
        if fate.trains == "full":
            self.met = True
            self.trained = self.trained + device.trainer.delta()
            return None
        if fate.trains == "cut":
            device.begin()
        return device.training.answer(task, np.zeros(LAYOUT.size, np.float32))

    def _meet(self, number: int, stored: Stored, fate: Fate) -> None:
        self.met = True
        self.device.trainer.round = number
        self.trained = self.trained + self.device.trainer.delta()
        if fate.meets == "lost":
            return
        self.receipts.append((number + fate.receipt, stored.update))
        if fate.meets == "late":
            return
        self.verdicts[stored.update] = Verdict.ACCEPTED
        if not fate.given_up:
            seed = update_seed(RUN, stored.round, stored.update)
            data = decode(stored.body, Update).sections[DELTA]
            self.counted = self.counted + parse(self.device.codec).decode(data, LAYOUT.sizes, seed=seed)


def _cut(stored: Stored) -> None:
    raise PowerCutError


async def _here(call: Callable[..., object], *given: object) -> object:
    return call(*given)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sync nothing, as no real power goes here, and go to no other thread."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr(asyncio, "to_thread", _here)


def folders(kind: str) -> Iterator[Path | None]:
    """Give nowhere, or a folder."""
    if kind == "memory":
        yield None
        return
    with TemporaryDirectory() as name:
        yield Path(name)


def check(kind: str, codec: str, fates: Sequence[Fate]) -> None:
    for folder in folders(kind):
        history = History(Device(folder, codec))
        asyncio.run(history.live(fates))
        left = history.device.residual()
        assert not history.device.keepsakes.waiting()
        np.testing.assert_array_equal(history.counted + left, history.trained)


LOSSY: Final = "feedback | float16"


@pytest.mark.parametrize(("kind", "examples"), [("memory", 40), ("disk", 10)])
def test_nothing_that_was_trained_is_lost(kind: str, examples: int) -> None:
    @settings(max_examples=examples)
    @given(st.lists(FATES, min_size=4, max_size=12))
    def law(fates: list[Fate]) -> None:
        check(kind, LOSSY, fates)

    law()


def drawn(chance: Random) -> Fate:
    """Return a fate in which anything may go wrong at any time."""
    return Fate(
        trains=chance.choice(["yes", "yes", "yes", "no", "cut", "full"]),
        meets=chance.choice(["counted", "counted", "late", "lost"]),
        given_up=chance.random() < 0.25,
        receipt=chance.choice([0, 0, 0, 1, 2, 5, 99]),
        answers=chance.random() < 0.7,
        restarts=chance.random() < 0.5,
    )


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "histories"), [("memory", 1000), ("disk", 100)])
def test_nothing_that_was_trained_is_lost_in_thousands_of_rounds(kind: str, histories: int) -> None:
    chance = Random(5)
    for _ in range(histories):
        check(kind, LOSSY, [drawn(chance) for _ in range(chance.randrange(1, 16))])


EVENTFUL: Final = [Fate(meets="late"), Fate(given_up=True, receipt=1), Fate(receipt=99)]


@pytest.mark.parametrize("after", [False, True])
def test_no_power_cut_costs_or_adds_anything(tmp_path: Path, after: bool) -> None:  # noqa: FBT001
    """Cut at the first disk operation, at the second, and so on until none is left to cut."""
    cuts = 0
    for last in range(1, 300):
        history = History(Device(tmp_path / str(last), LOSSY))
        with pytest.MonkeyPatch.context() as patch:
            Power(last, after=after).install(patch)
            try:
                asyncio.run(history.live(EVENTFUL))
            except PowerCutError:
                cuts += 1
        if last > cuts:
            break
        history.device.begin()
        asyncio.run(history.live(EVENTFUL))
        np.testing.assert_array_equal(history.counted + history.device.residual(), history.trained)
        assert not history.device.keepsakes.waiting()
        assert not history.device.outbox.entries()
    assert cuts > 30
