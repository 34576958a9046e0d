"""The rules that ``--rule`` names, each with a name of its own for table and plot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedmq.config.named import named_rule
from fedmq.replay.course import RECORDED, Candidate

if TYPE_CHECKING:
    from collections.abc import Sequence


def candidates(names: Sequence[str]) -> list[Candidate]:
    """Return a candidate for each name, called after the preset or the file. Raises ConfigError."""
    found: list[Candidate] = []
    for name in names:
        called, rule = named_rule(name)
        found.append(Candidate(_unlike(called, {RECORDED, *(each.name for each in found)}), rule))
    return found


def _unlike(name: str, known: set[str]) -> str:
    label, number = name, 2
    while label in known:
        label, number = f"{name} {number}", number + 1
    return label
