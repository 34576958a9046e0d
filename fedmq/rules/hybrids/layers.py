"""One rule for these layers, another for those."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedmq.errors import DecodeError, MisuseError, Refused
from fedmq.rules.fold import Fold, Tally, pack, unpack
from fedmq.rules.hybrids.pieces import Patterns, Piece, cut
from fedmq.rules.memory import EMPTY, Memory, prefixed, scoped
from fedmq.rules.needs import Needs, strictest
from fedmq.rules.rule import Absorbed, AnyRule, Outcome, Prepared, Rule, require_model, require_vector
from fedmq.rules.settings import require
from fedmq.rules.weighers import ByExamples

if TYPE_CHECKING:
    from pathlib import Path

    from fedmq.rules.claim import Claim
    from fedmq.vectors import Layout, Vector


def fedavg() -> AnyRule:
    """Return the rule that stands where none is named: the mean, weighted by examples."""
    return Rule(weigh=ByExamples())


@dataclass(frozen=True, slots=True)
class Part:
    """Some of the model's variables, by patterns on their names such as ``conv*/*``, and the rule for them."""

    match: Patterns
    rule: AnyRule

    def __post_init__(self) -> None:
        require(bool(self.match), "a part of by_layer has no pattern in match, wants one at least")
        odd = [pattern for pattern in self.match if not pattern.isprintable()]
        require(
            not odd, f"a part of by_layer has patterns {odd}, wants printable ones, as variables' names are"
        )

    def __str__(self) -> str:
        return f"{', '.join(self.match)}: ({self.rule})"


@dataclass(frozen=True, slots=True)
class ByLayer:
    """Parts of the model under rules of their own: every update is cut, and each part goes its way.

    Formula: the model's variables are shared out, each to the first part with a pattern that matches its name, the
    rest to `default`. Each part's rule sees its own variables as if they were the whole model: guards measure them
    alone, the step remembers for them alone. An update that one part refuses is refused as a whole.

    Source: Arivazhagan et al. 2019, "Federated Learning with Personalization Layers" (base layers and a head under
    different treatment); You et al. 2017, "Large Batch Training of Convolutional Networks" (LARS), for steps by layer.

    Cost: that of the rules for their shares of the model, and one copy of each part whose variables do not stand
    together.

    Breakdown point: of each part, its rule's.

    Use it when parts of the model differ in what they need: a robust or clipped head on features that are averaged,
    adaptive steps for embeddings alone. Layers that should not be shared at all are the trainer's to keep: name them in
    its `personal` option.

    Configuration: `kind = "by_layer"`, `parts` (each a `match`, patterns on variable names, and a `rule`), `default`
    (the rule for everything else; default `fedavg`).

    ```toml
    [rule]
    kind = "by_layer"
    parts = [{ match = "head/*", rule = "average" }]
    default = "fedavgm"
    ```

    Example:
        >>> from fedmq.rules import preset
        >>> print(ByLayer((Part(("head/*",), preset("average")),), preset("fedavgm")).parts[0])
        head/*: (finite, examples(1..10000000) | uniform | mean | replace)
    """

    parts: tuple[Part, ...]
    default: AnyRule = field(default_factory=fedavg)

    def __post_init__(self) -> None:
        require(bool(self.parts), "by_layer has no parts, wants one at least: name a plain rule instead")

    @property
    def needs(self) -> Needs:
        """What the most demanding part does: all layers come in one codec."""
        return strictest(rule.needs for rule in (*(part.rule for part in self.parts), self.default))

    def zero(self, layout: Layout, memory: Memory = EMPTY, folder: Path | None = None) -> Fold:
        """Return an empty fold; raise ConfigError where a part's patterns take no variable of the model."""

        def begin(rule: AnyRule, piece: Piece, scope: str) -> Fold:
            return rule.zero(piece.layout, scoped(memory, scope), folder)

        return Fold(layout, self._lanes(layout, begin), memory)

    def prepare(self, fold: Fold, delta: Vector, claim: Claim) -> Prepared:
        """Check one update; raise Refused, with the part's patterns, where one part's rule does."""
        require_vector(delta, fold.layout)
        return Prepared(tuple(lane.prepare(delta, claim) for lane in fold.lanes))

    def add(self, fold: Fold, prepared: Prepared) -> Absorbed:
        """Give each part its share of an update that all of them have passed."""
        pairs = zip(fold.lanes, prepared.parts, strict=True)
        taken = [lane.rule.add(lane.fold, part) for lane, part in pairs]
        length = math.hypot(*(part.norm for part in taken))
        changed = any(part.changed for part in taken)
        fold.tally = fold.tally.plus(Tally.of(length, changed=changed))
        return Absorbed(_by_size(fold, [part.weight for part in taken]), length, changed)

    def absorb(self, fold: Fold, delta: Vector, claim: Claim) -> Absorbed:
        """Prepare and add one update."""
        return self.add(fold, self.prepare(fold, delta, claim))

    def merge(self, left: Fold, right: Fold) -> Fold:
        """Return the fold of both sets of updates; raise MisuseError where they are for different models."""
        if left.layout.digest != right.layout.digest:
            raise MisuseError("folds of different models cannot be merged: make both with one layout")
        lanes = tuple(mine.merge(other) for mine, other in zip(left.lanes, right.lanes, strict=True))
        return Fold(left.layout, lanes, left.memory, left.tally.plus(right.tally))

    def finish(self, fold: Fold, model: Vector) -> Outcome:
        """Return the model, each part moved by its own rule. Raises what `Rule.finish` does."""
        require_model(model, fold.layout)
        outcomes = [lane.finish(model) for lane in fold.lanes]
        moved = np.empty_like(model)
        memory: dict[str, NDArray[np.floating[Any]]] = {}
        for lane, outcome in zip(fold.lanes, outcomes, strict=True):
            lane.piece.put(outcome.model, moved)
            memory |= prefixed(outcome.memory, lane.scope)
        return Outcome(moved, memory, _measured(fold, [outcome.measurements for outcome in outcomes]))

    def dump(self, fold: Fold) -> bytes:
        """Return `fold` as bytes."""
        return pack(
            self._tag(fold.layout), fold.tally, (), [lane.rule.dump(lane.fold) for lane in fold.lanes]
        )

    def load(self, data: bytes, layout: Layout, memory: Memory = EMPTY, folder: Path | None = None) -> Fold:
        """Return the fold that `dump` wrote; raise DecodeError where `data` is not that."""
        tally, _, bodies = unpack(self._tag(layout), data, 0)
        rest = iter(bodies)

        def resume(rule: AnyRule, piece: Piece, scope: str) -> Fold:
            return rule.load(next(rest, b""), piece.layout, scoped(memory, scope), folder)

        fold = Fold(layout, self._lanes(layout, resume), memory, tally)
        if len(bodies) != len(fold.lanes) or any(lane.fold.count != tally.count for lane in fold.lanes):
            raise DecodeError(f"fold's parts do not hold {tally.count} updates each: was it damaged?")
        return fold

    def serving(self, model: Vector, memory: Memory, layout: Layout) -> Vector:
        """Return the model to evaluate and to save, put together from what the parts' rules say."""
        served = np.empty_like(model)
        for rule, piece, _, scope in self._pieces(layout):
            piece.put(rule.serving(piece.of(model), scoped(memory, scope), piece.layout), served)
        return served

    def _pieces(self, layout: Layout) -> Iterator[tuple[AnyRule, Piece, str, str]]:
        """Yield rule, piece, name and scope of each part that has numbers."""
        named = [
            (part.rule, ", ".join(part.match), f"parts.{index}.") for index, part in enumerate(self.parts)
        ]
        pieces = cut(layout, [part.match for part in self.parts])
        for (rule, name, scope), piece in zip(
            [*named, (self.default, "others", "default.")], pieces, strict=True
        ):
            if piece is not None:
                yield rule, piece, name, scope

    def _lanes(self, layout: Layout, begin: Callable[[AnyRule, Piece, str], Fold]) -> tuple[_Lane, ...]:
        return tuple(
            _Lane(rule, piece, name, scope, begin(rule, piece, scope))
            for rule, piece, name, scope in self._pieces(layout)
        )

    def _tag(self, layout: Layout) -> bytes:
        patterns = repr([part.match for part in self.parts]).encode()
        return hashlib.sha256(b"by_layer" + patterns + layout.digest).digest()[:8]

    def __str__(self) -> str:
        return f"by layer: {'; '.join(map(str, self.parts))}; others: ({self.default})"


@dataclass(frozen=True, slots=True, eq=False)
class _Lane:
    """One part in a round: its rule and that one's fold, for its piece of the model."""

    rule: AnyRule
    piece: Piece
    name: str
    scope: str
    fold: Fold

    def prepare(self, delta: Vector, claim: Claim) -> Prepared:
        with self._named():
            return self.rule.prepare(self.fold, self.piece.of(delta), claim)

    def merge(self, other: _Lane) -> _Lane:
        return _Lane(self.rule, self.piece, self.name, self.scope, self.rule.merge(self.fold, other.fold))

    def finish(self, model: Vector) -> Outcome:
        with self._named():
            return self.rule.finish(self.fold, self.piece.of(model))

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Put the part's patterns before a reason for refusal."""
        try:
            yield
        except Refused as reason:
            raise Refused(f"layers {self.name}: {reason}") from None


def _by_size(fold: Fold, figures: Sequence[float]) -> float:
    """Return the parts' figures as one: their mean, each counted by the numbers it has in the model."""
    pairs = zip(fold.lanes, figures, strict=True)
    return math.fsum(lane.piece.layout.size * figure for lane, figure in pairs) / fold.layout.size


def _measured(fold: Fold, parts: Sequence[Mapping[str, float]]) -> Mapping[str, float]:
    """Return the figures of the whole, then each part's own behind its scope."""
    tally = fold.tally
    whole = {
        "updates": float(tally.count),
        "weight": _by_size(fold, [part["weight"] for part in parts]),
        "norm_mean": tally.norm_mean,
        "norm_max": tally.longest,
        "changed_share": tally.changed / tally.count,
        "delta_norm": math.hypot(*(part["delta_norm"] for part in parts)),
        "step_norm": math.hypot(*(part["step_norm"] for part in parts)),
    }
    own = (
        {lane.scope + name: figure for name, figure in part.items()}
        for lane, part in zip(fold.lanes, parts, strict=True)
    )
    return {**whole, **{name: figure for part in own for name, figure in part.items()}}
