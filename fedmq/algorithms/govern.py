"""Rules that work under an algorithm: the aggregator's half, put between a rule's reducer and its step."""

from __future__ import annotations

import dataclasses
import operator
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from fedmq.errors import ConfigError
from fedmq.rules import Rule
from fedmq.rules.memory import EMPTY, as_figure, figure

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fedmq.rules import Absorbed, AnyRule, Claim, Fold, Memory, Outcome, Prepared, Reduced
    from fedmq.rules.needs import Needs
    from fedmq.vectors import Layout, Vector

FLEET = "algorithm.fleet"
"""Where a governed rule remembers the most devices that were ever there at once."""


def governed(rule: AnyRule, kind: str, change: Callable[[Rule], AnyRule]) -> AnyRule:
    """Return `rule` with `change` made to every rule of four slots in it, of which hybrids are put together.

    So each layer's, stage's or cluster's rule is governed on its own. Raises ConfigError where there are none.
    """
    found = _changed(rule, change)
    if found is rule:
        raise ConfigError(
            f"{kind} works between a rule's reducer and its step, and finds neither in {type(rule).__name__}: "
            "take a rule of four slots, or a hybrid of these"
        )
    return cast("AnyRule", found)


def _changed(value: object, change: Callable[[Rule], AnyRule]) -> object:
    """Return `value`, or a copy where there was something to change in it."""
    if isinstance(value, Rule):
        return change(value)
    if isinstance(value, tuple):
        entries = tuple(_changed(entry, change) for entry in value)
        return value if all(map(operator.is_, entries, value)) else entries
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return value
    before = {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.init}
    after = {name: _changed(entry, change) for name, entry in before.items()}
    return (
        value if all(after[name] is before[name] for name in before) else dataclasses.replace(value, **after)
    )


@dataclass(frozen=True, slots=True)
class Governed(ABC):
    """A rule of four slots with something between its halves: `reduced`, and what else an algorithm overrides."""

    rule: Rule

    @property
    def needs(self) -> Needs:
        """What the rule does."""
        return self.rule.needs

    def zero(self, layout: Layout, memory: Memory = EMPTY, folder: Path | None = None) -> Fold:
        """Return an empty fold."""
        return self.rule.zero(layout, memory, folder)

    def prepare(self, fold: Fold, delta: Vector, claim: Claim) -> Prepared:
        """Check one update without changing anything."""
        return self.rule.prepare(fold, delta, claim)

    def add(self, fold: Fold, prepared: Prepared) -> Absorbed:
        """Add an update that `prepare` has passed for this fold."""
        return self.rule.add(fold, prepared)

    def absorb(self, fold: Fold, delta: Vector, claim: Claim) -> Absorbed:
        """Prepare and add one update."""
        return self.add(fold, self.prepare(fold, delta, claim))

    def merge(self, left: Fold, right: Fold) -> Fold:
        """Return the fold of both sets of updates."""
        return self.rule.merge(left, right)

    def finish(self, fold: Fold, model: Vector) -> Outcome:
        """Return the new model."""
        return self.stepped(fold, self.reduced(fold), model)

    @abstractmethod
    def reduced(self, fold: Fold) -> Reduced:
        """Return the fold's updates made one, as the algorithm wants them for the step."""

    def stepped(self, fold: Fold, reduced: Reduced, model: Vector) -> Outcome:
        """Move `model`."""
        return self.rule.stepped(fold, reduced, model)

    def dump(self, fold: Fold) -> bytes:
        """Return `fold` as bytes."""
        return self.rule.dump(fold)

    def load(self, data: bytes, layout: Layout, memory: Memory = EMPTY, folder: Path | None = None) -> Fold:
        """Return the fold that `dump` wrote."""
        return self.rule.load(data, layout, memory, folder)

    def serving(self, model: Vector, memory: Memory, layout: Layout) -> Vector:
        """Return the model to evaluate and to save."""
        return self.rule.serving(model, memory, layout)

    def __str__(self) -> str:
        return str(self.rule)


@dataclass(frozen=True, slots=True)
class Census:
    """How many devices there are: `told` where the operator says so, else the most that were ever `present` at once."""

    told: int | None
    present: int

    def count(self, fold: Fold) -> int:
        """Return the size of the fleet: no less than the updates of this fold."""
        known = figure(fold.memory, FLEET, 0.0) if self.told is None else float(self.told)
        here = self.present if self.told is None else 0
        return max(int(known), here, fold.count)

    def remembered(self, fold: Fold) -> Memory:
        """Return the memory's entry for the next round."""
        return {FLEET: as_figure(self.count(fold))}
