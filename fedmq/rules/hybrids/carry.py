"""What one rule can use of what another has remembered."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from fedmq.rules.memory import prefixed, scoped
from fedmq.rules.rule import Rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fedmq.rules.memory import Memory
    from fedmq.rules.rule import AnyRule


def carried(memory: Memory, old: AnyRule, new: AnyRule) -> Memory:
    """Return what `new` takes over of the `memory` of `old`, slot by slot where both hold the same kind of part.

    Rules that are not of four slots take over all where they are equal, else nothing.
    """
    old, new = _bare(old), _bare(new)
    if not (isinstance(old, Rule) and isinstance(new, Rule)):
        return memory if old == new else {}
    return {
        name: array
        for scope in (*_shared(old, new), "algorithm.")
        for name, array in prefixed(scoped(memory, scope), scope).items()
    }


def _bare(rule: AnyRule) -> AnyRule:
    """Return the rule of four slots inside one that an algorithm governs; what that remembers outlives the change."""
    return getattr(rule, "rule", rule)


def alike(old: object, new: object) -> bool:
    """Tell whether two parts are of one kind, and so are the parts inside them; their settings may differ."""
    if isinstance(old, tuple) and isinstance(new, tuple):
        return len(old) == len(new) and all(map(alike, old, new))
    if not (dataclasses.is_dataclass(old) or dataclasses.is_dataclass(new)):
        return True
    if type(old) is not type(new):
        return False
    names = (field.name for field in dataclasses.fields(type(new)))  # type: ignore[arg-type]  # one of them is
    return all(alike(getattr(old, name), getattr(new, name)) for name in names)


def _shared(old: Rule, new: Rule) -> Iterator[str]:
    """Yield the scopes of slots that are alike."""
    for index, pair in enumerate(zip(old.guards, new.guards, strict=False)):
        if alike(*pair):
            yield f"guards.{index}."
    if alike(old.reduce, new.reduce) and len(old.weigh.lanes) == len(new.weigh.lanes):
        yield "reduce."
    if alike(old.step, new.step):
        yield "step."
