"""One rule after another: the next one takes over at a round, or when a figure stands still."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from fedmq.errors import DecodeError, MisuseError
from fedmq.rules.fold import Fold, pack, unpack
from fedmq.rules.hybrids.carry import carried
from fedmq.rules.hybrids.plateau import Plateau, Readings
from fedmq.rules.memory import EMPTY, Memory, as_figure, figure, prefixed, scoped
from fedmq.rules.needs import Needs, strictest
from fedmq.rules.rule import Absorbed, AnyRule, Outcome, Prepared
from fedmq.rules.settings import require

if TYPE_CHECKING:
    from pathlib import Path

    from fedmq.rules.claim import Claim
    from fedmq.vectors import Layout, Vector

_RULE = "rule."


@dataclass(frozen=True, slots=True)
class Stage:
    """One rule, and what ends its time: so many `rounds` that moved the model, or a `plateau`, whichever comes first.

    `rounds` 0 and no `plateau`: it never ends.
    """

    rule: AnyRule
    rounds: int = 0
    plateau: Plateau | None = None

    def __post_init__(self) -> None:
        require(self.rounds >= 0, f"stage has rounds {self.rounds}, wants a number that is not negative")

    @property
    def ends(self) -> bool:
        """Whether it ever does."""
        return self.rounds > 0 or self.plateau is not None

    def __str__(self) -> str:
        ends = [f"{self.rounds} rounds"] * (self.rounds > 0) + [f"until {self.plateau}"] * (
            self.plateau is not None
        )
        return f"({self.rule}) {' or '.join(ends) or 'for good'}"


@dataclass(frozen=True, slots=True)
class Clock:
    """Where a schedule stands: the stage, the `rounds` it has had, those it `waited` since `best`, if there is one."""

    stage: int = 0
    rounds: int = 0
    waited: int = 0
    best: float | None = None

    @classmethod
    def recall(cls, memory: Memory) -> Clock:
        """Return the clock that `remembered` wrote; the first one where there is none."""
        stage, rounds, waited = (int(figure(memory, name, 0.0)) for name in ("stage", "rounds", "waited"))
        return cls(stage, rounds, waited, figure(memory, "best", 0.0) if "best" in memory else None)

    def remembered(self) -> Memory:
        """Return it for memory."""
        counted = {"stage": self.stage, "rounds": self.rounds, "waited": self.waited}
        best = {} if self.best is None else {"best": self.best}
        return {name: as_figure(value) for name, value in (counted | best).items()}

    def after(self, plateau: Plateau | None, value: float | None) -> Clock:
        """Return the clock after a round in which devices reported `value`."""
        later = replace(self, rounds=self.rounds + 1)
        if plateau is None or value is None:
            return later
        if self.best is None or plateau.better(value, self.best):
            return replace(later, waited=0, best=value)
        return replace(later, waited=self.waited + 1)

    def over(self, stage: Stage) -> bool:
        """Tell whether the stage's time is over."""
        stuck = stage.plateau is not None and self.waited >= stage.plateau.patience
        return stuck or 0 < stage.rounds <= self.rounds


@dataclass(frozen=True, slots=True)
class BySchedule:
    """Rules one after another, each until it has had its rounds or a reported figure stands still.

    Formula: a round is one stage's from its beginning to its end, the next round that of the stage which follows where
    this one's time was over. What the new rule remembers then: of each slot that holds the same kind of part in both
    (settings may differ), what the old one did, so that a velocity outlives a change of rate; of the others nothing.
    Rules that are not of four slots take over all where they are equal, else nothing.

    Source: common practice with optimizers' schedules; for patience, Bengio 2012, "Practical Recommendations for
    Gradient-Based Training of Deep Architectures" (early stopping).

    Cost: that of the stage's rule; 16 bytes for each update where it waits for a plateau.

    Breakdown point: of each round, its rule's; of the plateau, half of the weight.

    Use it when the beginning needs another rule than the end: large adaptive steps until accuracy stands still, plain
    averaging to settle; or a robust rule once the devices have shown what they are.

    Configuration: `kind = "by_schedule"`, `stages` (each a `rule`, and `rounds` or a `plateau`; the last has neither).

    ```toml
    [rule]
    kind = "by_schedule"
    stages = [{ rule = "fedadam", rounds = 20 }, { rule = "fedavg" }]
    ```

    Example:
        >>> from fedmq.rules import preset
        >>> print(BySchedule((Stage(preset("fedadam"), rounds=20), Stage(preset("fedavg")))).stages[0])
        (finite, examples(1..10000000) | by examples | mean | adam(0.01)) 20 rounds
    """

    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        require(bool(self.stages), "by_schedule has no stages, wants one at least")
        for number, (stage, _) in enumerate(pairwise(self.stages), 1):
            require(
                stage.ends, f"stage {number} never ends, so those after it never come: set rounds or plateau"
            )
        require(
            not self.stages[-1].ends,
            "the last stage has an end, and none follows: leave out rounds and plateau",
        )

    @property
    def needs(self) -> Needs:
        """What the most demanding stage does: the codec stays when the rule changes."""
        return strictest(stage.rule.needs for stage in self.stages)

    def zero(self, layout: Layout, memory: Memory = EMPTY, folder: Path | None = None) -> Fold:
        """Return an empty fold of the stage whose turn it is."""
        rule = self._stage(memory).rule
        return Fold(layout, (rule.zero(layout, scoped(memory, _RULE), folder), Readings()), memory)

    def prepare(self, fold: Fold, delta: Vector, claim: Claim) -> Prepared:
        """Check one update under the stage's rule."""
        stage = self._stage(fold.memory)
        value = stage.plateau and claim.metrics.get(stage.plateau.metric)
        return Prepared((stage.rule.prepare(fold.lanes[0], delta, claim), value))

    def add(self, fold: Fold, prepared: Prepared) -> Absorbed:
        """Add an update that the stage's rule has passed."""
        (inner, readings), (passed, value) = fold.lanes, prepared.parts
        taken = self._stage(fold.memory).rule.add(inner, passed)
        readings.note(value, taken.weight)
        fold.tally = inner.tally
        return taken

    def absorb(self, fold: Fold, delta: Vector, claim: Claim) -> Absorbed:
        """Prepare and add one update."""
        return self.add(fold, self.prepare(fold, delta, claim))

    def merge(self, left: Fold, right: Fold) -> Fold:
        """Return the fold of both sets of updates; raise MisuseError where they are of two stages."""
        if self._at(left.memory) != self._at(right.memory):
            raise MisuseError("folds of different stages cannot be merged: begin both with the same memory")
        (mine, my_readings), (other, other_readings) = left.lanes, right.lanes
        inner = self._stage(left.memory).rule.merge(mine, other)
        return Fold(left.layout, (inner, my_readings.joined(other_readings)), left.memory, inner.tally)

    def finish(self, fold: Fold, model: Vector) -> Outcome:
        """Return the new model, and the memory that the next round's stage begins with."""
        inner, readings = fold.lanes
        stage = self._stage(fold.memory)
        outcome = stage.rule.finish(inner, model)
        before = Clock.recall(fold.memory)
        clock, memory = self._turned(before.after(stage.plateau, readings.median()), outcome.memory)
        kept = {**prefixed(memory, _RULE), **clock.remembered()}
        return Outcome(outcome.model, kept, {**outcome.measurements, "stage": float(before.stage + 1)})

    def dump(self, fold: Fold) -> bytes:
        """Return `fold` as bytes."""
        inner, readings = fold.lanes
        lanes = [self._stage(fold.memory).rule.dump(inner), readings.dump()]
        return pack(self._tag(fold.layout, fold.memory), fold.tally, (), lanes)

    def load(self, data: bytes, layout: Layout, memory: Memory = EMPTY, folder: Path | None = None) -> Fold:
        """Return the fold that `dump` wrote; raise DecodeError where `data` is not that, or of another stage."""
        tally, _, bodies = unpack(self._tag(layout, memory), data, 0)
        if len(bodies) != 2:  # noqa: PLR2004 # the rule's and the reports
            raise DecodeError(
                f"fold of a schedule has {len(bodies)} lanes, 2 are wanted: was it cut on its way?"
            )
        inner = self._stage(memory).rule.load(bodies[0], layout, scoped(memory, _RULE), folder)
        if inner.tally != tally:
            raise DecodeError(f"fold counts {tally}, its rule's {inner.tally}: was it damaged on its way?")
        return Fold(layout, (inner, Readings.load(bodies[1], tally.count)), memory, tally)

    def serving(self, model: Vector, memory: Memory, layout: Layout) -> Vector:
        """Return the model to evaluate and to save: the word of the stage whose turn is next."""
        return self._stage(memory).rule.serving(model, scoped(memory, _RULE), layout)

    def _at(self, memory: Memory) -> int:
        """Return the stage whose turn it is: of a schedule that was made shorter meanwhile, the last."""
        return min(Clock.recall(memory).stage, len(self.stages) - 1)

    def _stage(self, memory: Memory) -> Stage:
        return self.stages[self._at(memory)]

    def _turned(self, clock: Clock, memory: Memory) -> tuple[Clock, Memory]:
        """Go on to the next stage where this one is over; its rule gets of the old one's memory what it can use."""
        at = min(clock.stage, len(self.stages) - 1)
        if not clock.over(self.stages[at]):
            return clock, memory
        old, new = self.stages[at].rule, self.stages[at + 1].rule
        return Clock(at + 1), carried(memory, old, new)

    def _tag(self, layout: Layout, memory: Memory) -> bytes:
        told = f"by_schedule, stage {self._at(memory)} of {len(self.stages)}".encode()
        return hashlib.sha256(told + layout.digest).digest()[:8]

    def __str__(self) -> str:
        return f"by schedule: {', then '.join(map(str, self.stages))}"
