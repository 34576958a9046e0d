"""A rule: guards, a weigher, a reducer and a step, freely combined.

One round::

    fold = rule.zero(layout, memory)
    rule.absorb(fold, delta, claim)  # once for each update, in any order
    outcome = rule.finish(fold, model)

`Rule` is one rule of four slots. `AnyRule` is what the rest of fedmq asks of a rule, so that whole rules can be put
together as well: by layer, by schedule, by cluster, or as one half of an algorithm.
"""

from __future__ import annotations

import hashlib
import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fedmq.errors import DecodeError, MisuseError, Refused
from fedmq.rules.fold import Fold, Tally, pack, unpack
from fedmq.rules.guards import ExamplesBound, Finite, Guard
from fedmq.rules.measure import norm
from fedmq.rules.memory import EMPTY, Memory, prefixed, scoped
from fedmq.rules.needs import Needs, strictest
from fedmq.rules.reduce import Mean, Reducer
from fedmq.rules.scaling import scaled
from fedmq.rules.settings import require
from fedmq.rules.steps import Replace, Step
from fedmq.rules.weighers import Uniform, Weigher
from fedmq.vectors import Vector

if TYPE_CHECKING:
    from pathlib import Path

    from fedmq.rules.claim import Claim
    from fedmq.vectors import Layout


@dataclass(frozen=True, slots=True)
class Absorbed:
    """How one update went into the fold.

    `weight` is its weight (under a blend, the lanes' weights times their shares), `norm` the L2 norm of its trainable
    part behind the guards, `changed` whether a guard changed it or the weigher scaled it.
    """

    weight: float
    norm: float
    changed: bool


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """A finished round: the new model, what the rule remembers, and figures for people.

    `measurements`: ``updates``; ``weight``, the sum of weights; ``norm_mean`` and ``norm_max`` of the deltas behind
    the guards; ``changed_share`` of the updates that did not go in as they came; ``delta_norm`` of the reduced delta
    (well below ``norm_mean`` where devices disagree); ``step_norm``, how far the model moved. Norms are L2 over the
    trainable part.
    """

    model: Vector
    memory: Memory
    measurements: Mapping[str, float]


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """One update that its rule has agreed to take: `add` cannot refuse it any more. What is inside is the rule's."""

    parts: tuple[Any, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Reduced:
    """A fold's updates made one: `delta` of the layout's length, float32, and what guards and reducer remember."""

    delta: Vector
    memory: Memory


class AnyRule(Protocol):
    """How many devices' updates become one model, whatever it is made of.

    Frozen, hashable, printable, and free of state: what a round gathers is in its `Fold`, what lasts from round to
    round in its memory, so that both can be written to disk. Folds of one rule must not be given to another.
    """

    @property
    def needs(self) -> Needs:
        """What it asks of the codec that updates come in."""

    def zero(self, layout: Layout, memory: Memory = EMPTY, folder: Path | None = None) -> Fold:
        """Return an empty fold for models of `layout`; see `Rule.zero`."""

    def prepare(self, fold: Fold, delta: Vector, claim: Claim) -> Prepared:
        """Check one update without changing anything; raise Refused, with a reason for the device."""

    def add(self, fold: Fold, prepared: Prepared) -> Absorbed:
        """Take in what `prepare` gave for this fold, before any other update is prepared."""

    def absorb(self, fold: Fold, delta: Vector, claim: Claim) -> Absorbed:
        """Prepare and add one update; raise Refused with the fold as it was."""

    def merge(self, left: Fold, right: Fold) -> Fold:
        """Return the fold of both sets of updates; `left` and `right` stay as they are."""

    def finish(self, fold: Fold, model: Vector) -> Outcome:
        """Return the new model; see `Rule.finish`."""

    def dump(self, fold: Fold) -> bytes:
        """Return `fold` as bytes: the same for the same updates, in whatever order and parts they came."""

    def load(self, data: bytes, layout: Layout, memory: Memory = EMPTY, folder: Path | None = None) -> Fold:
        """Return the fold that `dump` wrote; raise DecodeError where `data` is not that."""

    def serving(self, model: Vector, memory: Memory, layout: Layout) -> Vector:
        """Return the model to evaluate and to save, which the step may keep apart from the one that devices train."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule of four slots.

    >>> from fedmq.rules import ByExamples, Momentum, Rule
    >>> print(Rule(weigh=ByExamples(), step=Momentum(beta=0.5)))
    finite, examples(1..10000000) | by examples | mean | momentum(0.5)

    Raises ConfigError where the reducer has no use for weights and the weigher gives unequal ones.
    """

    guards: tuple[Guard, ...] = (Finite(), ExamplesBound())
    weigh: Weigher = field(default_factory=Uniform)
    reduce: Reducer[Any] = field(default_factory=Mean)
    step: Step = field(default_factory=Replace)

    def __post_init__(self) -> None:
        reason = self.reduce.unweighted
        require(
            not reason or self.weigh.uniform,
            f"{self.reduce} cannot weigh updates {self.weigh}: {reason}; weigh uniformly, or take another reducer",
        )

    @property
    def needs(self) -> Needs:
        """What its most demanding part asks of the updates' codec; steps see none."""
        return strictest((self.reduce.needs, *(guard.needs for guard in self.guards), self.weigh.needs))

    def zero(self, layout: Layout, memory: Memory = EMPTY, folder: Path | None = None) -> Fold:
        """Return an empty fold for models of `layout`.

        `memory` is what the last round's outcome had, empty in the first. Reducers that need every update keep them in
        a file without a name in `folder` (the system's folder for temporary files if None), gone with the fold.
        """
        lanes = tuple(self.reduce.zero(layout, folder) for _ in self.weigh.lanes)
        return Fold(layout, lanes, memory, counts=(0,) * len(self.guards))

    def prepare(self, fold: Fold, delta: Vector, claim: Claim) -> Prepared:
        """Check one update without changing anything.

        `delta` is trained minus base model, float32 of the layout's length. Raises Refused, with a reason for the
        device, where shape or dtype is wrong, a guard says no, the claim gives no weight, or the reducer has no room.
        """
        require_vector(delta, fold.layout)
        counts, checked = self._guarded(fold, delta, claim)
        length = norm(checked, fold.layout)
        weighed = self.weigh.weighed(claim, length)
        deltas = [scaled(checked, scale, fold.layout) for _, scale in weighed]
        for lane, vector, (weight, _) in zip(fold.lanes, deltas, weighed, strict=True):
            self.reduce.check(lane, vector, weight)
        changed = any(vector is not delta for vector in deltas)
        return Prepared((deltas, [weight for weight, _ in weighed], counts, length, changed))

    def add(self, fold: Fold, prepared: Prepared) -> Absorbed:
        """Add an update that `prepare` has passed for this fold."""
        deltas, weights, counts, length, changed = prepared.parts
        for lane, delta, weight in zip(fold.lanes, deltas, weights, strict=True):
            self.reduce.add(lane, delta, weight)
        fold.tally = fold.tally.plus(Tally.of(length, changed=changed))
        fold.counts = tuple(map(operator.add, fold.counts, counts))
        return Absorbed(_mix(self.weigh, weights), length, changed)

    def absorb(self, fold: Fold, delta: Vector, claim: Claim) -> Absorbed:
        """Add one update to `fold`: `prepare` and `add`.

        `delta` is not changed. Raises Refused as `prepare` does, with the fold's bytes as they were.
        """
        return self.add(fold, self.prepare(fold, delta, claim))

    def merge(self, left: Fold, right: Fold) -> Fold:
        """Return the fold of both sets of updates; `left` and `right` stay as they are.

        Raises MisuseError where they are for different models, Refused where they are too many for one fold.
        """
        if left.layout.digest != right.layout.digest or len(left.lanes) != len(right.lanes):
            raise MisuseError(
                "folds of different models or rules cannot be merged: make both with one rule and layout"
            )
        pairs = zip(left.lanes, right.lanes, strict=True)
        lanes = tuple(self.reduce.merge(*pair) for pair in pairs)
        counts = tuple(map(operator.add, left.counts, right.counts))
        return Fold(left.layout, lanes, left.memory, left.tally.plus(right.tally), counts)

    def finish(self, fold: Fold, model: Vector) -> Outcome:
        """Return the new model, which is `model` moved by what `fold` holds; nothing that comes in is changed.

        Raises MisuseError for an empty fold or a model of another layout, and Refused where the step's result is not
        finite: keep the old model and memory then.
        """
        return self.stepped(fold, self.reduced(fold), model)

    def reduced(self, fold: Fold) -> Reduced:
        """Return the fold's updates made one: the first half of `finish`. Raises MisuseError for an empty fold."""
        parts = [(lane, scoped(fold.memory, f"reduce.{index}.")) for index, lane in enumerate(fold.lanes)]
        results: list[NDArray[np.float32]] | list[NDArray[np.float64]]
        if len(parts) == 1:
            results = [self.reduce.rounded(*parts[0])]
            delta = results[0]
        else:
            results = [self.reduce.result(*part) for part in parts]
            delta = _blended(self.weigh.lanes, results)
        return Reduced(delta, {**self._guards_learn(fold, delta), **self._reducers_learn(results)})

    def stepped(self, fold: Fold, reduced: Reduced, model: Vector) -> Outcome:
        """Move `model` by what `reduced` gave, or by what someone made of it: the second half of `finish`."""
        require_model(model, fold.layout)
        delta = reduced.delta
        moved, remembered = self.step.apply(model, delta, scoped(fold.memory, "step."), fold.layout)
        memory = {**reduced.memory, **prefixed(remembered, "step.")}
        _require_finite(moved, memory)
        return Outcome(moved, memory, self._measured(fold, delta, moved - model))

    def serving(self, model: Vector, memory: Memory, layout: Layout) -> Vector:
        """Return the model to evaluate and to save: the step's word."""
        return self.step.serving(model, scoped(memory, "step."), layout)

    def dump(self, fold: Fold) -> bytes:
        """Return `fold` as bytes: the same for the same updates, in whatever order and parts they came."""
        lanes = [self.reduce.dump(lane) for lane in fold.lanes]
        return pack(self._tag(fold.layout), fold.tally, fold.counts, lanes)

    def load(self, data: bytes, layout: Layout, memory: Memory = EMPTY, folder: Path | None = None) -> Fold:
        """Return the fold that `dump` wrote, with the `memory` that it was made with.

        Raises DecodeError where `data` is damaged, or was written under other guards, weights or reducer, or for
        another layout; a fold does not depend on the step.
        """
        tally, counts, bodies = unpack(self._tag(layout), data, len(self.guards))
        if len(bodies) != len(self.weigh.lanes):
            raise DecodeError(
                f"fold has {len(bodies)} lanes, the rule {len(self.weigh.lanes)}: was it cut on its way?"
            )
        lanes = tuple(self.reduce.load(body, layout, folder) for body in bodies)
        if any((self.reduce.total(lane) > 0.0) != (tally.count > 0) for lane in lanes):
            raise DecodeError(f"fold counts {tally.count} updates, its lanes say otherwise: was it damaged?")
        return Fold(layout, lanes, memory, tally, counts)

    def _guarded(self, fold: Fold, delta: Vector, claim: Claim) -> tuple[tuple[int, ...], Vector]:
        counts = []
        for index, guard in enumerate(self.guards):
            memory = scoped(fold.memory, f"guards.{index}.")
            counts.append(guard.count(delta, fold.layout, memory))
            delta = guard.check(delta, claim, fold.layout, memory)
        return tuple(counts), delta

    def _guards_learn(self, fold: Fold, delta: Vector) -> Memory:
        learned: dict[str, NDArray[np.floating[Any]]] = {}
        for index, (guard, count) in enumerate(zip(self.guards, fold.counts, strict=True)):
            scope = f"guards.{index}."
            mean_count = count / fold.count
            learned |= prefixed(
                guard.learn(delta, mean_count, fold.layout, scoped(fold.memory, scope)), scope
            )
        return learned

    def _reducers_learn(self, results: Sequence[NDArray[np.floating[Any]]]) -> Memory:
        learned: dict[str, NDArray[np.floating[Any]]] = {}
        for index, result in enumerate(results):
            learned |= prefixed(self.reduce.learn(result), f"reduce.{index}.")
        return learned

    def _measured(self, fold: Fold, delta: Vector, move: Vector) -> Mapping[str, float]:
        tally = fold.tally
        return {
            "updates": float(tally.count),
            "weight": _mix(self.weigh, [self.reduce.total(lane) for lane in fold.lanes]),
            "norm_mean": tally.norm_mean,
            "norm_max": tally.longest,
            "changed_share": tally.changed / tally.count,
            "delta_norm": norm(delta, fold.layout),
            "step_norm": norm(move, fold.layout),
        }

    def _tag(self, layout: Layout) -> bytes:
        parts = repr((self.guards, self.weigh, self.reduce)).encode()
        return hashlib.sha256(parts + layout.digest).digest()[:8]

    def __str__(self) -> str:
        guards = ", ".join(map(str, self.guards)) or "no guards"
        return f"{guards} | {self.weigh} | {self.reduce} | {self.step}"


def _blended(shares: Sequence[float], results: Sequence[NDArray[np.float64]]) -> Vector:
    """Return the lanes' results, added by their shares."""
    blended: NDArray[np.float64] = np.sum(
        [share * result for share, result in zip(shares, results, strict=True)], axis=0
    )
    return blended.astype(np.float32)


def _mix(weigh: Weigher, figures: Sequence[float]) -> float:
    """Return the lanes' figures, added by their shares."""
    return math.fsum(share * figure for share, figure in zip(weigh.lanes, figures, strict=True))


def require_vector(delta: Vector, layout: Layout) -> None:
    """Raise Refused unless `delta` is one vector of the layout; a shape that would broadcast is as wrong as any."""
    if delta.dtype != np.float32:
        raise Refused(f"update holds {delta.dtype} numbers, float32 is wanted")
    if delta.shape == (layout.size,):
        return
    if delta.ndim == 1:
        raise Refused(
            f"update holds {delta.size} values, the model has {layout.size}: was the device built for another model?"
        )
    raise Refused(f"update has shape {delta.shape}, one dimension of {layout.size} is wanted")


def require_model(model: Vector, layout: Layout) -> None:
    """Raise MisuseError unless `model` is one vector of the layout."""
    if model.shape != (layout.size,) or model.dtype != np.float32:
        raise MisuseError(
            f"model is {model.dtype} of shape {model.shape}, the fold is for float32 of shape ({layout.size},)"
        )


def _require_finite(model: Vector, memory: Memory) -> None:
    for name, vector in {"model": model, **memory}.items():
        bad = vector.size - np.count_nonzero(np.isfinite(vector))
        if bad:
            raise Refused(
                f"step would leave {bad} numbers of the {name} not finite: keep the old one, lower the rate"
            )
