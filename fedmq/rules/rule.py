"""A rule: guards, a weigher, a reducer and a step, freely combined.

One round::

    fold = rule.zero(layout)
    rule.absorb(fold, delta, claim)  # once for each update, in any order
    outcome = rule.finish(fold, model, memory)
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from fedmq.errors import DecodeError, MisuseError, Refused
from fedmq.rules.fold import Fold, Tally, pack, unpack
from fedmq.rules.guard import ExamplesBound, Finite, Guard
from fedmq.rules.measure import norm
from fedmq.rules.reduce import Mean, Reducer
from fedmq.rules.step import Memory, Replace, Step
from fedmq.rules.weigh import Uniform, Weigher
from fedmq.vectors import Vector

if TYPE_CHECKING:
    from fedmq.rules.claim import Claim
    from fedmq.vectors import Layout


@dataclass(frozen=True, slots=True)
class Absorbed:
    """How one update went into the fold.

    `weight` is its weight (under a blend, the lanes' weights times their shares), `norm` the L2 norm of its trainable
    part behind the guards, `changed` whether a guard changed it.
    """

    weight: float
    norm: float
    changed: bool


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """A finished round: the new model, what the step remembers, and figures for people.

    `measurements`: ``updates``; ``weight``, the sum of weights; ``norm_mean`` and ``norm_max`` of the deltas behind
    the guards; ``changed_share`` of the updates that a guard changed; ``delta_norm`` of the reduced delta (well below
    ``norm_mean`` where devices disagree); ``step_norm``, how far the model moved. Norms are L2 over the trainable part.
    """

    model: Vector
    memory: Memory
    measurements: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Rule:
    """How many devices' updates become one model.

    Frozen, hashable, printable, and free of state: what a round gathers is in its `Fold`, what a step remembers in its
    memory, so that both can be written to disk.

    >>> from fedmq.rules import ByExamples, Momentum, Rule
    >>> print(Rule(weigh=ByExamples(), step=Momentum(beta=0.5)))
    finite, examples(1..10000000) | by examples | mean | momentum(0.5)
    """

    guards: tuple[Guard, ...] = (Finite(), ExamplesBound())
    weigh: Weigher = field(default_factory=Uniform)
    reduce: Reducer[Any] = field(default_factory=Mean)
    step: Step = field(default_factory=Replace)

    def zero(self, layout: Layout) -> Fold:
        """Return an empty fold for models of `layout`."""
        return Fold(layout, tuple(self.reduce.zero(layout.size) for _ in self.weigh.lanes))

    def absorb(self, fold: Fold, delta: Vector, claim: Claim) -> Absorbed:
        """Add one update to `fold`.

        `delta` is trained minus base model, float32 of the layout's length; it is not changed. Raises Refused, with a
        reason for the device and the fold's bytes as they were, where shape or dtype is wrong, a guard says no, the
        claim gives no weight, or the reducer has no room for it.
        """
        _require_vector(delta, fold.layout)
        checked = self._guarded(delta, claim, fold.layout)
        weights = self.weigh.weigh(claim)
        lanes = list(zip(fold.lanes, weights, strict=True))
        for lane, weight in lanes:
            self.reduce.check(lane, checked, weight)
        length, changed = norm(checked, fold.layout), checked is not delta
        for lane, weight in lanes:
            self.reduce.add(lane, checked, weight)
        fold.tally = fold.tally.plus(Tally.of(length, changed=changed))
        return Absorbed(_mix(self.weigh, weights), length, changed)

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
        return Fold(left.layout, lanes, left.tally.plus(right.tally))

    def finish(self, fold: Fold, model: Vector, memory: Memory) -> Outcome:
        """Return the new model, which is `model` moved by what `fold` holds; nothing that comes in is changed.

        `memory` is what the last round's outcome had, empty in the first. Raises MisuseError for an empty fold or a
        model of another layout, and Refused where the step's result is not finite: keep the old model and memory then.
        """
        _require_model(model, fold.layout)
        delta = self._reduced(fold)
        moved, remembered = self.step.apply(model, delta, memory, fold.layout)
        _require_finite(moved, remembered)
        return Outcome(moved, remembered, self._measured(fold, delta, moved - model))

    def dump(self, fold: Fold) -> bytes:
        """Return `fold` as bytes: the same for the same updates, in whatever order and parts they came."""
        return pack(self._tag(fold.layout), fold.tally, [self.reduce.dump(lane) for lane in fold.lanes])

    def load(self, data: bytes, layout: Layout) -> Fold:
        """Return the fold that `dump` wrote.

        Raises DecodeError where `data` is damaged, or was written under other guards, weights or reducer, or for
        another layout; a fold does not depend on the step.
        """
        tally, bodies = unpack(self._tag(layout), data)
        if len(bodies) != len(self.weigh.lanes):
            raise DecodeError(
                f"fold has {len(bodies)} lanes, the rule {len(self.weigh.lanes)}: was it cut on its way?"
            )
        fold = Fold(layout, tuple(self.reduce.load(body, layout.size) for body in bodies), tally)
        if any((self.reduce.total(lane) > 0.0) != (tally.count > 0) for lane in fold.lanes):
            raise DecodeError(f"fold counts {tally.count} updates, its lanes say otherwise: was it damaged?")
        return fold

    def _guarded(self, delta: Vector, claim: Claim, layout: Layout) -> Vector:
        for guard in self.guards:
            delta = guard.check(delta, claim, layout)
        return delta

    def _reduced(self, fold: Fold) -> Vector:
        lanes = zip(self.weigh.lanes, fold.lanes, strict=True)
        mean = np.sum([share * self.reduce.result(lane) for share, lane in lanes], axis=0)
        return np.asarray(mean, dtype=np.float32)

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


def _mix(weigh: Weigher, figures: Sequence[float]) -> float:
    """Return the lanes' figures, added by their shares."""
    return math.fsum(share * figure for share, figure in zip(weigh.lanes, figures, strict=True))


def _require_vector(delta: Vector, layout: Layout) -> None:
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


def _require_model(model: Vector, layout: Layout) -> None:
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
