"""Fleets whose local objectives are known, and rounds without wire or disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from fedmq.descent import Pull, gain
from fedmq.device.interface import Trained
from fedmq.rules import AnyRule, Claim, Memory, Rule
from fedmq.vectors import Layout, Variable, Vector
from tests.unit.algorithms.listings import Round

if TYPE_CHECKING:
    from fedmq.algorithms import Algorithm
    from fedmq.device.interface import Setting, SteeredTrainer
    from tests.unit.algorithms.listings import Gradient, Numbers


@dataclass
class Quadratic:
    """A device with the loss ``(w - b)' A (w - b) / 2``; `exact` finds the pulled minimum, else it takes steps."""

    curvature: Numbers
    minimum: Numbers
    momentum: float = 0.0
    exact: bool = False
    examples: int = 1
    name: str = "quadratic"

    @classmethod
    def drawn(cls, chance: np.random.Generator, size: int, **options: object) -> Quadratic:
        """Return one with eigenvalues from 0.2 to 2."""
        basis, _ = np.linalg.qr(chance.normal(size=(size, size)))
        curvature = basis @ np.diag(chance.uniform(0.2, 2.0, size)) @ basis.T
        return cls(curvature, chance.normal(size=size), **options)  # type: ignore[arg-type]

    @property
    def layout(self) -> Layout:
        """One variable."""
        return Layout((Variable("w", (len(self.minimum),)),))

    def gradient(self, w: Numbers) -> Numbers:
        """Return the loss's gradient."""
        return self.curvature @ (w - self.minimum)

    def initial(self) -> Vector:
        """Return zeros."""
        return np.zeros(len(self.minimum), np.float32)

    def evaluate(self, model: Vector) -> Mapping[str, float]:
        """Hold nothing out."""
        return {}

    def train(
        self,
        model: Vector,
        settings: Mapping[str, Setting],
        *,
        seed: int,
        pull: Pull | None = None,
    ) -> Trained:
        """Take ``epochs`` steps of gradient descent in float64, or find the minimum."""
        steps, rate = int(settings["epochs"]), float(settings["learning_rate"])
        strength = float(settings.get("proximal", 0.0)) + (pull.strength if pull else 0.0)
        start = model.astype(np.float64)
        linear = (
            np.zeros_like(start) if pull is None or pull.linear is None else pull.linear.astype(np.float64)
        )
        if self.exact:
            whole = self.curvature + strength * np.eye(len(start))
            w = np.linalg.solve(whole, self.curvature @ self.minimum - linear + strength * start)
        else:
            w, velocity = start, np.zeros_like(start)
            for _ in range(steps):
                velocity = self.momentum * velocity + self.gradient(w) + linear + strength * (w - start)
                w = w - rate * velocity
        return Trained(w.astype(np.float32), self.examples, steps, {}, rate * gain(steps, self.momentum))


@dataclass
class Fleet:
    """An aggregator and devices in one loop."""

    algorithm: Algorithm
    trainers: Sequence[SteeredTrainer]
    rule: AnyRule = field(default_factory=Rule)
    settings: Mapping[str, Setting] = field(default_factory=dict)
    codec: Callable[[int, int, Vector], Vector] = lambda _round, _device, delta: delta
    vector: Vector = field(init=False)
    memory: Memory = field(default_factory=dict)
    kept: list[dict[str, Vector]] = field(init=False)
    rounds: int = 0

    def __post_init__(self) -> None:
        """Begin at the first trainer's first weights."""
        self.layout = self.trainers[0].layout
        self.extended = self.algorithm.extend(self.layout)
        self.vector = np.zeros(self.extended.size, np.float32)
        self.vector[: self.layout.size] = self.trainers[0].initial()
        self.kept = [{} for _ in self.trainers]

    @property
    def model(self) -> Vector:
        """The model's part of the vector."""
        return self.vector[: self.layout.size]

    def update(self, device: int, steps: int) -> tuple[Vector, Claim]:
        """Train one device; return its delta and claim."""
        told = {**self.settings, **self.algorithm.telling, "epochs": steps}
        settings = {name: value for name, value in told.items() if not name.startswith("algorithm")}
        pull = self.algorithm.pull(self.vector, self.layout, self.kept[device])
        trained = self.trainers[device].train(self.model, settings, seed=self.rounds, pull=pull)
        delta = self.algorithm.answer(self.vector, trained.vector, trained.reach, self.layout)
        delta = self.codec(self.rounds, device, self.algorithm.lessen(delta, self.layout, self.kept[device]))
        return delta, Claim(trained.examples, trained.steps)

    def accepted(self, device: int, delta: Vector) -> None:
        """Let the device keep what it learned."""
        for name, change in self.algorithm.learn(delta, self.layout).items():
            self.kept[device][name] = self.kept[device].get(name, np.float32(0)) + change

    def round(self, each: Round) -> Mapping[str, float]:
        """Run one round; return its measurements."""
        rule = self.algorithm.govern(self.rule, len(self.trainers))
        fold = rule.zero(self.extended, self.memory)
        for device, steps in zip(each.devices, each.steps, strict=True):
            delta, claim = self.update(device, steps)
            rule.absorb(fold, delta, claim)
            self.accepted(device, delta)
        outcome = rule.finish(fold, self.vector)
        self.vector, self.memory = outcome.model, outcome.memory
        self.rounds += 1
        return outcome.measurements


def drawn_rounds(chance: np.random.Generator, devices: int) -> list[Round]:
    """Return one to six rounds of any share of the devices, with one to five local steps each."""
    rounds = []
    for _ in range(int(chance.integers(1, 7))):
        chosen = chance.permutation(devices)[: int(chance.integers(1, devices + 1))]
        rounds.append(Round(chosen.tolist(), chance.integers(1, 6, len(chosen)).tolist()))
    return rounds


def gradients(trainers: Sequence[Quadratic]) -> list[Gradient]:
    """Return the devices' gradients."""
    return [trainer.gradient for trainer in trainers]
