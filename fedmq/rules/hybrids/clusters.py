"""One model for each group of devices: one for all at first, then one for each way in which updates point."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np

from fedmq.errors import DecodeError, MisuseError, Refused
from fedmq.rules.fold import Fold, Tally, pack, unpack
from fedmq.rules.hybrids.aside import Aside, Update
from fedmq.rules.hybrids.grouping import cosines, grouped
from fedmq.rules.hybrids.layers import fedavg
from fedmq.rules.hybrids.stack import slots
from fedmq.rules.memory import EMPTY, Memory, as_figure, figure, prefixed, scoped
from fedmq.rules.needs import MEASURES_DIRECTION, Needs
from fedmq.rules.rule import Absorbed, AnyRule, Outcome, Prepared, require_model, require_vector
from fedmq.rules.settings import require

if TYPE_CHECKING:
    from pathlib import Path

    from fedmq.rules.claim import Claim
    from fedmq.vectors import Layout, Vector


class Phase(IntEnum):
    """How far a federation has come on its way to several models."""

    TOGETHER = 0
    """All devices train the first model."""
    SPLITTING = 1
    """They still do, and this round's updates are put aside to be grouped at its end."""
    APART = 2
    """Each device trains the model that fits its data best."""


@dataclass(frozen=True, slots=True)
class ByCluster:
    """One model for each group of devices; the aggregator's half of the algorithm `clusters`, which see.

    Works on vectors that hold `models` models one behind the other (`fedmq.rules.hybrids.stack`): the first is the
    only one until the split, the others are zero. `rule` works for each model on its own, with a memory of its own.
    `rounds` and `agreement` say when to split.

    An update counts for the model that it moves the most; what it has for others is left out, so none touches two. A
    device's claim to be of this or that group is not asked for: its delta shows which model it trained.
    """

    rule: AnyRule = field(default_factory=fedavg)
    models: int = 2
    rounds: int = 10
    agreement: float = 1.0

    def __post_init__(self) -> None:
        require(self.models >= 1, f"clusters has models {self.models}, wants 1 or more")
        require(self.rounds >= 0, f"clusters has rounds {self.rounds}, wants a number that is not negative")
        require(
            0.0 < self.agreement <= 1.0,
            f"clusters has agreement {self.agreement}, wants above 0 and at most 1",
        )

    @property
    def needs(self) -> Needs:
        """A small error: groups are found by direction, and an update counts for the model that it moves the most."""
        return Needs("small", "clusters", MEASURES_DIRECTION)

    def zero(self, layout: Layout, memory: Memory = EMPTY, folder: Path | None = None) -> Fold:
        """Return an empty fold; raise ConfigError where `layout` does not hold so many models."""
        phase, places = self._phase(memory), slots(layout, self.models)
        folds = [
            self.rule.zero(place.layout, scoped(memory, _scope(number)), folder)
            for number, place in enumerate(places[: self._training(phase)])
        ]
        aside = Aside.empty(places[0].layout, folder) if phase is Phase.SPLITTING else None
        return Fold(layout, (places, tuple(folds), aside), memory)

    def prepare(self, fold: Fold, delta: Vector, claim: Claim) -> Prepared:
        """Check one update under the rule, for the model that it moves."""
        require_vector(delta, fold.layout)
        places, folds, aside = fold.lanes
        number = min(_busiest([place.of(delta) for place in places]), len(folds) - 1)
        if aside is not None:
            aside.require_room()
        own = places[number].of(delta)
        return Prepared((number, own, claim, self.rule.prepare(folds[number], own, claim)))

    def add(self, fold: Fold, prepared: Prepared) -> Absorbed:
        """Add an update to the model that it moves."""
        number, own, claim, passed = prepared.parts
        _, folds, aside = fold.lanes
        if aside is not None:
            aside.append(own, claim)
        taken = self.rule.add(folds[number], passed)
        fold.tally = fold.tally.plus(Tally.of(taken.norm, changed=taken.changed))
        return taken

    def absorb(self, fold: Fold, delta: Vector, claim: Claim) -> Absorbed:
        """Prepare and add one update."""
        return self.add(fold, self.prepare(fold, delta, claim))

    def merge(self, left: Fold, right: Fold) -> Fold:
        """Return the fold of both sets of updates; raise MisuseError where they are of two phases."""
        if self._phase(left.memory) is not self._phase(right.memory):
            raise MisuseError(
                "folds from before and after a split cannot be merged: begin both with one memory"
            )
        (places, mine, my_aside), (_, other, other_aside) = left.lanes, right.lanes
        folds = tuple(self.rule.merge(*pair) for pair in zip(mine, other, strict=True))
        aside = None if my_aside is None else my_aside.joined(other_aside)
        return Fold(left.layout, (places, folds, aside), left.memory, left.tally.plus(right.tally))

    def finish(self, fold: Fold, model: Vector) -> Outcome:
        """Return the new models: each moved by its own updates, or all begun, where this is the round of the split.

        Raises MisuseError for an empty fold, and what the rule's `finish` raises.
        """
        require_model(model, fold.layout)
        if not fold.count:
            raise MisuseError("no update was added: abandon the round instead of finishing it")
        places, _, aside = fold.lanes
        outcomes = self._moved(fold, model) if aside is None else self._split(fold, model)
        moved, memory = model.copy(), dict(self._idle(fold, outcomes))
        for number, outcome in outcomes.items():
            places[number].put(outcome.model, moved)
            memory |= prefixed(outcome.memory, _scope(number))
        measured = _measured(fold, outcomes)
        return Outcome(moved, {**memory, **self._clock(fold, measured)}, measured)

    def dump(self, fold: Fold) -> bytes:
        """Return `fold` as bytes."""
        _, folds, aside = fold.lanes
        bodies = [self.rule.dump(each) for each in folds] + ([] if aside is None else aside.dump())
        return pack(self._tag(fold.layout, fold.memory), fold.tally, (), bodies)

    def load(self, data: bytes, layout: Layout, memory: Memory = EMPTY, folder: Path | None = None) -> Fold:
        """Return the fold that `dump` wrote; raise DecodeError where `data` is not that, or of another phase."""
        tally, _, bodies = unpack(self._tag(layout, memory), data, 0)
        phase, places = self._phase(memory), slots(layout, self.models)
        count = self._training(phase)
        folds = tuple(
            self.rule.load(body, place.layout, scoped(memory, _scope(number)), folder)
            for number, (body, place) in enumerate(zip(bodies, places[:count], strict=False))
        )
        splitting = phase is Phase.SPLITTING
        aside = Aside.load(bodies[count:], places[0].layout, folder) if splitting else None
        wanted = count + 2 * tally.count * splitting
        if len(bodies) != wanted or sum(each.count for each in folds) != tally.count:
            raise DecodeError(f"fold does not hold the {tally.count} updates that it counts: was it damaged?")
        return Fold(layout, (places, folds, aside), memory, tally)

    def serving(self, model: Vector, memory: Memory, layout: Layout) -> Vector:
        """Return the models to evaluate and to save: the rule's word for each."""
        served = model.copy()
        places = slots(layout, self.models)[: self._training(self._phase(memory))]
        for number, place in enumerate(places):
            own = scoped(memory, _scope(number))
            place.put(self.rule.serving(place.of(model), own, place.layout), served)
        return served

    # --- phases

    def _phase(self, memory: Memory) -> Phase:
        """Return the phase that a round with this memory is in."""
        if self.models == 1:
            return Phase.TOGETHER
        first = Phase.SPLITTING if self.rounds == 0 else Phase.TOGETHER
        return Phase(int(figure(memory, "phase", float(first))))

    def _training(self, phase: Phase) -> int:
        """Return how many models are being trained."""
        return self.models if phase is Phase.APART else 1

    def _clock(self, fold: Fold, measured: Mapping[str, float]) -> Memory:
        """Return rounds so far and the next round's phase, for memory."""
        rounds, phase = figure(fold.memory, "rounds", 0.0) + 1, self._phase(fold.memory)
        agreed = measured["delta_norm"] > self.agreement * measured["norm_mean"]
        if phase is not Phase.TOGETHER:
            phase = Phase.APART
        elif rounds >= self.rounds and not agreed:
            phase = Phase.SPLITTING
        return {"rounds": as_figure(rounds), "phase": as_figure(float(phase))}

    # --- what becomes of the models

    def _moved(self, fold: Fold, model: Vector) -> dict[int, Outcome]:
        """Return the outcomes of the models that have updates."""
        places, folds, _ = fold.lanes
        return {
            number: self.rule.finish(each, places[number].of(model))
            for number, each in enumerate(folds)
            if each.count
        }

    def _split(self, fold: Fold, model: Vector) -> dict[int, Outcome]:
        """Return one model for each group; where groups are fewer than models, the rest get that of all updates."""
        places, (whole,), aside = fold.lanes
        base, ordered = places[0].of(model), aside.ordered()
        groups = grouped(cosines(aside.products()), self.models)
        found = [self._of_group(whole, [ordered[index] for index in group], base) for group in groups]
        for_all = replace(self.rule.finish(whole, base), measurements={})
        return dict(enumerate([*found, *[for_all] * (self.models - len(groups))]))

    def _of_group(self, whole: Fold, updates: Sequence[Update], base: Vector) -> Outcome:
        fold = self.rule.zero(whole.layout, whole.memory)
        for update in updates:
            self.rule.absorb(fold, update.read(base.size), update.claim)
        return self.rule.finish(fold, base)

    def _idle(self, fold: Fold, outcomes: Mapping[int, Outcome]) -> Memory:
        """Return what is remembered of models that had no update."""
        idle = [_scope(number) for number in range(len(fold.lanes[1])) if number not in outcomes]
        return {name: array for name, array in fold.memory.items() if name.startswith(tuple(idle))}

    def _tag(self, layout: Layout, memory: Memory) -> bytes:
        told = f"clusters {self.models}, {self._phase(memory).name}".encode()
        return hashlib.sha256(told + layout.digest).digest()[:8]

    def __str__(self) -> str:
        when = f"after {self.rounds} rounds"
        if self.agreement < 1.0:
            when += f", once updates agree to no more than {self.agreement:g}"
        return f"{self.models} models ({when}): {self.rule}"


def _scope(number: int) -> str:
    return f"models.{number}."


def _busiest(parts: Sequence[Vector]) -> int:
    """Return the model that an update moves the most; raise Refused where a number is not finite."""
    peaks = np.array([np.abs(part).max(initial=0.0) for part in parts])
    if not np.isfinite(peaks).all():
        raise Refused(
            "update holds numbers that are not finite: did training diverge? Try a lower learning rate"
        )
    return int(peaks.argmax())


def _measured(fold: Fold, outcomes: Mapping[int, Outcome]) -> Mapping[str, float]:
    """Return the figures of the whole, and each model's own behind its scope."""
    tally = fold.tally
    found = [outcome.measurements for outcome in outcomes.values() if outcome.measurements]
    return {
        "updates": float(tally.count),
        "weight": math.fsum(each["weight"] for each in found),
        "norm_mean": tally.norm_mean,
        "norm_max": tally.longest,
        "changed_share": tally.changed / tally.count,
        "delta_norm": math.hypot(*(each["delta_norm"] for each in found)),
        "step_norm": math.hypot(*(each["step_norm"] for each in found)),
        **{
            _scope(number) + name: value
            for number, outcome in outcomes.items()
            for name, value in outcome.measurements.items()
        },
    }
