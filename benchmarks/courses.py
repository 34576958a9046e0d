"""Whole federations without a network, for benchmarks that need hundreds of them: real data, real training.

What a device sends is encoded and decoded as on the wire, so bytes and losses are the real ones; only broker, journal
and clock are left out. `Course` runs rounds, `Stream` runs an asynchronous federation in virtual time.
"""

from __future__ import annotations

import heapq
import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from benchmarks._downlink import Broadcast
from fedmq.algorithms import Plain, told
from fedmq.codecs import parse
from fedmq.datasets import Dataset, deal, mnist
from fedmq.device.interface import ModuleName, steered
from fedmq.device.residual import Piece, Whole
from fedmq.errors import Refused
from fedmq.rules import Claim
from fedmq.simulate.fleet import build_trainer
from fedmq.trainers.module import Supply, load_user_module
from fedmq.trainers.numpy import Mlp, NumpyTrainer
from fedmq.worlds.attacks import LabelFlip

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from benchmarks._downlink import Down
    from fedmq.algorithms import Algorithm
    from fedmq.device.interface import Setting, SteeredTrainer, Trained
    from fedmq.rules import AnyRule
    from fedmq.vectors import Layout, Vector
    from fedmq.worlds.attacks import Attack

_DEMO: Final = str(resources.files("fedmq.demos") / "smartwatch.py")
DIGITS_MODEL: Final = Mlp(784, (64,), classes=10)
BATCH: Final = 16


@dataclass(frozen=True)
class World:
    """Who takes part: trainers by number, one that judges models on everyone's held-out data, who is bad.

    `liars` has, for each attacker by number, a trainer with flipped labels, for attacks that poison data. `stranger`
    holds the data of someone who takes no part.
    """

    trainers: Sequence[SteeredTrainer]
    judge: SteeredTrainer
    liars: Mapping[int, SteeredTrainer] = field(default_factory=dict)
    stranger: SteeredTrainer | None = None

    @property
    def layout(self) -> Layout:
        """The model's layout."""
        return self.judge.layout

    @property
    def attackers(self) -> frozenset[int]:
        """The numbers of the bad devices."""
        return frozenset(self.liars)


def digits_world(devices: int, partition: str, seed: int, attackers: int = 0, *, held_back: int = 0) -> World:
    """Return MNIST's 5,000 images on `devices`, the first `attackers` of a seeded shuffle being bad.

    Where each device holds one in `held_back` of its images back, it reports how models do on them.
    """
    data, trainers = _digits(), []
    parts = deal(partition, data, devices=devices, seed=seed)
    held_out = (data.x_test, data.y_test)
    trainers = [_digits_trainer(data.x[rows], data.y[rows], seed, held_back) for rows in parts]
    bad = np.random.default_rng(seed).permutation(devices)[:attackers].tolist()
    liars = {
        number: _digits_trainer(data.x[parts[number]], LabelFlip.labels(data.y[parts[number]], 10), seed)
        for number in bad
    }
    judge = NumpyTrainer(DIGITS_MODEL, data.x, data.y, held_out=held_out, seed=seed)
    return World(trainers, judge, liars)


def people_world(seed: int, left_out: int | None = None) -> World:
    """Return the smart watches: ten persons, one device each, Keras as in the demo.

    With `left_out`, that person (0 to 9) takes no part: the others are the world, and that one is its stranger.
    """
    module = ModuleName(_DEMO)
    supplies = {number: load_user_module(_DEMO).data(f"device-{number + 1}") for number in range(10)}
    stranger = None if left_out is None else _keras(module, supplies.pop(left_out), seed)
    trainers = [_keras(module, supply, seed) for supply in supplies.values()]
    return World(trainers, _keras(module, _joined(list(supplies.values())), seed), stranger=stranger)


def _keras(module: ModuleName, supply: Supply, seed: int) -> SteeredTrainer:
    trainer = steered(build_trainer("keras")(module, "device-1", {"threads": 1, "seed": seed}, supply=supply))
    if trainer is None:
        raise TypeError("fedmq's own trainers can be steered")
    return trainer


def _joined(supplies: Sequence[Supply]) -> Supply:
    """Return everyone's examples as one."""
    train, held_out = ([getattr(supply, part) for supply in supplies] for part in ("train", "held_out"))
    return Supply(_stacked(train), _stacked(held_out))


def _stacked(parts: Sequence[Any]) -> tuple[Any, Any]:
    return np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])


def _digits_trainer(x: Any, y: Any, seed: int, held_back: int = 0) -> SteeredTrainer:  # noqa: ANN401 - arrays
    if not held_back or len(y) == 1:
        return NumpyTrainer(DIGITS_MODEL, x, y, learning_rate=0.1, seed=seed)
    kept = np.arange(len(y)) % held_back == 0
    held_out = (x[kept], y[kept])
    return NumpyTrainer(DIGITS_MODEL, x[~kept], y[~kept], held_out=held_out, learning_rate=0.1, seed=seed)


@cache
def _digits() -> Dataset:
    return mnist()


@dataclass(frozen=True, slots=True)
class Plan:
    """How a federation is run. `fraction` of the devices take part in each round, each with `training`.

    Without `down`, devices train from the model itself.
    """

    rule: AnyRule
    algorithm: Algorithm = field(default_factory=Plain)
    codec: str = "safe"
    training: Mapping[str, Setting] = field(default_factory=lambda: {"epochs": 1, "batch_size": BATCH})
    fraction: float = 1.0
    attack: Attack | None = None
    down: Down | None = None


@dataclass(frozen=True, slots=True)
class Point:
    """A model on its way: after how many rounds (or steps), at what virtual time, how good, for how many bytes."""

    round: int
    time: float
    accuracy: float
    loss: float
    bytes_up: int
    refused: int
    bytes_down: int = 0


class _Federation:
    """What both ways of running have in common: the model, the devices' own vectors, one device's answer."""

    def __init__(self, world: World, plan: Plan, seed: int) -> None:
        self.world, self.plan = world, plan
        self.rng = np.random.default_rng([seed, 1])
        self.layout = plan.algorithm.extend(world.layout)
        self.rule = plan.algorithm.govern(plan.rule, len(world.trainers))
        self.model: Vector = np.zeros(self.layout.size, np.float32)
        self.model[: world.layout.size] = world.judge.initial()
        self.published = Broadcast.found(plan.down, self.layout, self.model, len(world.trainers))
        self.model = self.published.replica
        self.memory: Any = {}
        self.round = 0
        self.kept: list[dict[str, Vector]] = [{} for _ in world.trainers]
        self.owed: list[list[Piece]] = [[] for _ in world.trainers]
        self.bytes_up = 0
        self.refused = 0
        self._codec = parse(plan.codec)
        self._training = told({**plan.training, **plan.algorithm.telling})[1]  # as devices hear of it

    def answer(
        self, device: int, model: Vector, seed: int, trainer: SteeredTrainer | None = None
    ) -> tuple[Vector, Trained]:
        """Train; return the delta as the aggregator decodes it, and the trainer's facts."""
        algorithm, plain = self.plan.algorithm, self.world.layout
        pull = algorithm.pull(model, plain, self.kept[device])
        chosen = trainer or self.world.trainers[device]
        trained = chosen.train(model[: plain.size], self._training, seed=seed, pull=pull)
        delta = algorithm.answer(model, trained.vector, trained.reach, plain)
        delta = algorithm.lessen(delta, plain, self.kept[device])
        whole = self._whole(device, delta)
        body = self._codec.encode(delta if whole is None else whole.vector, self.layout.sizes, seed=seed)
        self.bytes_up += len(body)
        decoded = self._codec.decode(body, self.layout.sizes, seed=seed)
        if whole is not None:
            self.owed[device] = [Piece(self.round, whole.after(decoded).left)]
        return decoded, trained

    def _whole(self, device: int, delta: Vector) -> Whole | None:
        """Return the delta with what the device owes, where the codec has error feedback."""
        feedback, mask = self._codec.feedback, self.plan.algorithm.fed_back(self.world.layout)
        if feedback is None:
            return None
        return Whole.of(delta, self.owed[device], self.round, feedback.keep, mask)

    def absorb(self, fold: Any, device: int, delta: Vector, trained: Trained, staleness: int = 0) -> None:  # noqa: ANN401
        """Give one update to the rule; the device keeps what its algorithm says, where it is accepted."""
        try:
            self.rule.absorb(fold, delta, Claim(trained.examples, trained.steps, trained.metrics, staleness))
        except Refused:
            self.refused += 1
            self.owed[device] = []
            return
        mine = self.kept[device]
        for name, change in self.plan.algorithm.learn(delta, self.world.layout).items():
            mine[name] = mine.get(name, np.float32(0.0)) + change

    def finish(self, fold: Any) -> None:  # noqa: ANN401
        """Move the model, or keep it where the rule will not."""
        try:
            outcome = self.rule.finish(fold, self.model)
        except Refused:
            self.refused += fold.count
            return
        self.model, self.memory = outcome.model, outcome.memory
        self.published.publish(self.model)

    def served(self) -> Vector:
        """Return the model to use, as devices have it, without what an algorithm has put behind it."""
        model = self.published.replica
        return self.rule.serving(model, self.memory, self.layout)[: self.world.layout.size]

    def point(self, number: int, time: float) -> Point:
        """Judge the model."""
        found = self.world.judge.evaluate(self.served())
        accuracy, loss = float(found.get("accuracy", 0.0)), float(found.get("loss", np.inf))
        return Point(number, time, accuracy, loss, self.bytes_up, self.refused, self.published.nbytes)


def course(  # noqa: PLR0913 # the last two have names where they are given
    world: World,
    plan: Plan,
    rounds: int,
    seed: int,
    *,
    judge_every: int = 1,
    keep: list[Vector] | None = None,
) -> Iterator[Point]:
    """Yield a point after each so many rounds, the last one included; the models judged are added to `keep`."""
    federation = _Federation(world, plan, seed)
    for number in range(1, rounds + 1):
        _round(federation, number, seed)
        if number % judge_every == 0 or number == rounds:
            yield federation.point(number, float(number))
            if keep is not None:
                keep.append(federation.served())


def _round(federation: _Federation, number: int, seed: int) -> None:
    world, plan = federation.world, federation.plan
    federation.round = number
    everyone = len(world.trainers)
    wanted = max(1, round(plan.fraction * everyone))
    cohort = sorted(federation.rng.permutation(everyone)[:wanted].tolist())
    federation.published.fetch(cohort)
    fold = federation.rule.zero(federation.layout, federation.memory)
    bad = [device for device in cohort if plan.attack is not None and device in world.attackers]
    answers = {
        device: federation.answer(device, federation.published.replica, _seed(seed, number, device))
        for device in cohort
        if device not in bad
    }
    answers |= _attacked(federation, answers, bad, _seed(seed, number, everyone))
    for device, (delta, trained) in answers.items():
        federation.absorb(fold, device, delta, trained)
    if fold.count:
        federation.finish(fold)


def _attacked(
    federation: _Federation, honest: Mapping[int, tuple[Vector, Trained]], bad: Sequence[int], seed: int
) -> dict[int, tuple[Vector, Trained]]:
    """Return what the bad devices send; label flippers claim what they have, others what one honest device claims."""
    attack, world = federation.plan.attack, federation.world
    if attack is None or not bad:
        return {}
    if attack.poisons_labels:
        return {
            device: federation.answer(
                device, federation.published.replica, seed + device, world.liars[device]
            )
            for device in bad
        }
    seen = np.stack([delta for delta, _ in honest.values()])
    facts = next(iter(honest.values()))[1]
    rows = attack.craft(seen, len(bad), np.random.default_rng(seed))
    return {device: (row, facts) for device, row in zip(bad, rows, strict=True)}


@dataclass(frozen=True, slots=True)
class Buffer:
    """FedBuff: the model moves with every `size` updates. A device's training takes ``exp(spread * normal)``."""

    size: int
    spread: float


def stream(world: World, plan: Plan, steps: int, seed: int, buffer: Buffer) -> Iterator[Point]:
    """Yield a point for each step of an asynchronous federation.

    A device begins anew with the newest model as soon as there is one that it has not trained yet; how long it takes is
    drawn once.
    """
    federation = _Federation(world, plan, seed)
    speeds = np.exp(buffer.spread * federation.rng.standard_normal(len(world.trainers)))
    version, idle = 0, set[int]()
    busy = [(float(speeds[device]), device, 0, federation.model) for device in range(len(world.trainers))]
    heapq.heapify(busy)
    fold = federation.rule.zero(federation.layout, federation.memory)
    while version < steps:
        time, device, base, model = heapq.heappop(busy)
        federation.round = base
        delta, trained = federation.answer(device, model, _seed(seed, base, device))
        federation.absorb(fold, device, delta, trained, staleness=version - base)
        idle.add(device)
        if fold.count >= buffer.size or not busy:
            federation.finish(fold)
            version += 1
            yield federation.point(version, time)
            fold = federation.rule.zero(federation.layout, federation.memory)
        ready = {who for who in idle if who != device or base < version}
        for who in sorted(ready if not fold.count else ready & {device}):
            heapq.heappush(busy, (time + float(speeds[who]), who, version, federation.model))
            idle.discard(who)


def two_processes() -> ProcessPoolExecutor:
    """Return two workers."""
    return processes(2)


def processes(count: int) -> ProcessPoolExecutor:
    """Return workers whose libraries take one thread each: NumPy reads that from the environment as it is imported."""
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    return ProcessPoolExecutor(count, multiprocessing.get_context("spawn"))


def reached(points: Sequence[Point], target: float) -> Point | None:
    """Return the first point with that accuracy."""
    return next((point for point in points if point.accuracy >= target), None)


def _seed(seed: int, number: int, device: int) -> int:
    return int(np.random.SeedSequence([seed, number, device]).generate_state(1)[0])
