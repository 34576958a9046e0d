"""Cutting a model into pieces by the names of its variables: each piece is a layout with vectors of its own."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import accumulate
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from fedmq.errors import ConfigError
from fedmq.vectors import Layout, Vector, split

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Patterns: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """Some of a model's variables as a model of their own.

    `spans` are the runs of the whole vector that the piece's own vector is put together from, in order.
    """

    layout: Layout
    spans: tuple[slice, ...]

    def of(self, vector: Vector) -> Vector:
        """Return its numbers: a view where they stand together in `vector`, else a copy."""
        runs = [vector[span] for span in self.spans]
        return runs[0] if len(runs) == 1 else np.concatenate(runs)

    def put(self, numbers: Vector, vector: Vector) -> None:
        """Write its `numbers` to their places in `vector`."""
        runs = split(numbers, [span.stop - span.start for span in self.spans])
        for span, run in zip(self.spans, runs, strict=True):
            vector[span] = run


def cut(layout: Layout, groups: Sequence[Patterns]) -> list[Piece | None]:
    """Return one piece for each group of patterns, and a last one of what none of them matches; None where empty.

    A pattern is a shell's (``*``, ``?``, ``[abc]``), upper and lower case told apart, matched against the whole name of
    a shared variable. The first group that matches takes a variable. Raises ConfigError where a group takes none.
    """
    owners = [_owner(variable.name, groups) for variable in layout.shared]
    for index, patterns in enumerate(groups):
        if index not in owners:
            raise ConfigError(_sentence(patterns, [variable.name for variable in layout.shared]))
    return [_piece(layout, owners, index) for index in range(len(groups) + 1)]


def _owner(name: str, groups: Sequence[Patterns]) -> int:
    return next((index for index, patterns in enumerate(groups) if _matches(name, patterns)), len(groups))


def _matches(name: str, patterns: Patterns) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _piece(layout: Layout, owners: Sequence[int], index: int) -> Piece | None:
    places = zip(owners, accumulate(layout.sizes, initial=0), layout.shared, strict=False)
    own = [(start, variable) for owner, start, variable in places if owner == index]
    if not any(variable.size for _, variable in own):
        return None
    spans = _joined(slice(start, start + variable.size) for start, variable in own)
    return Piece(Layout(tuple(variable for _, variable in own)), spans)


def _joined(spans: Iterable[slice]) -> tuple[slice, ...]:
    """Make one span of those that stand next to each other."""
    runs: list[slice] = []
    for span in spans:
        if runs and runs[-1].stop == span.start:
            runs[-1] = slice(runs[-1].start, span.stop)
        else:
            runs.append(span)
    return tuple(runs)


def _sentence(patterns: Patterns, names: Sequence[str]) -> str:
    """Say why a group has nothing: a pattern misspelt, or another group before it."""
    told = ", ".join(map(repr, patterns)) or "no pattern"
    if any(_matches(name, patterns) for name in names):
        return f"{told} matches only variables that parts before it have taken: put the narrower part first"
    near = difflib.get_close_matches(patterns[0] if patterns else "", names, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}?" if near else f"the model has {', '.join(names)}"
    return f"{told} matches no variable of the model: {hint}"
