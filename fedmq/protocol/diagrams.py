"""The two machines as a page: diagrams and tables printed from the very tables that the machines hold to."""

from __future__ import annotations

import inspect
from enum import Enum
from typing import TYPE_CHECKING, TypeAlias, TypeVar, get_args

from fedmq.protocol import coordination, coordinator, participant, participation

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import ModuleType

    P = TypeVar("P", bound=Enum)
    Transitions: TypeAlias = Mapping[tuple[P, type], frozenset[P]]

_HEAD = """\
# State machines

<!-- Written by tools/print_machines.py from the code: change that, then run it with --write. -->

The protocol is two machines without input or output, one on each side, in `fedmq.protocol`. A shell tells them what
happened (an *event*) and does what they ask for (*effects*). An event that a table does not name under a phase leaves
the phase as it is, though it may have effects.
"""


def mermaid(transitions: Transitions[P]) -> str:
    """Return a Mermaid state diagram with one arrow for each change of phase, labelled with the events that cause it.

    The machine begins in the first phase of its enumeration. Events that leave a phase as it is have no arrow.
    """
    arrows: dict[tuple[P, P], list[str]] = {}
    for (phase, event), targets in transitions.items():
        for target in targets - {phase}:
            arrows.setdefault((phase, target), []).append(event.__name__)
    phases = list(type(next(iter(transitions))[0]))
    lines = [f"    [*] --> {phases[0].value}"]
    pairs = sorted(arrows, key=lambda pair: (phases.index(pair[0]), phases.index(pair[1])))
    lines += [
        f"    {before.value} --> {after.value}: {', '.join(arrows[before, after])}" for before, after in pairs
    ]
    return "\n".join(["```mermaid", "stateDiagram-v2", *lines, "```"])


def table(transitions: Transitions[P]) -> str:
    """Return a Markdown table of all entries: phase, event, and the phases that may follow, in their order."""
    phases = list(type(next(iter(transitions))[0]))
    lines = ["| phase | event | next |", "|---|---|---|"]
    for (phase, event), targets in transitions.items():
        following = ", ".join(target.value for target in phases if target in targets)
        lines.append(f"| {phase.value} | `{event.__name__}` | {following} |")
    return "\n".join(lines)


def glossary(kinds: Iterable[type]) -> str:
    """Return a Markdown table of message classes: name, fields, and what their docstrings say."""
    lines = ["| name | fields | meaning |", "|---|---|---|"]
    for kind in kinds:
        fields = ", ".join(f"`{name}`" for name in kind.__annotations__) or "-"
        meaning = " ".join(inspect.cleandoc(kind.__doc__ or "").split())
        lines.append(f"| `{kind.__name__}` | {fields} | {meaning} |")
    return "\n".join(lines)


def page() -> str:
    """Return the whole reference page, in Markdown."""
    aggregator = _machine("The aggregator: coordinator", coordinator, coordinator.TRANSITIONS)
    device = _machine("The device: participant", participant, participant.TRANSITIONS)
    parts = [
        _HEAD,
        *aggregator,
        *_vocabulary(coordination.CoordinatorEvent, coordination.CoordinatorEffect),
        *device,
        *_vocabulary(participation.ParticipantEvent, participation.ParticipantEffect),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _machine(title: str, module: ModuleType, transitions: Transitions[P]) -> list[str]:
    return [f"## {title}", _prose(module), mermaid(transitions), table(transitions)]


def _prose(module: ModuleType) -> str:
    """Return what the module's docstring says after its first line."""
    return inspect.cleandoc(module.__doc__ or "").partition("\n")[2]


def _vocabulary(events: object, effects: object) -> list[str]:
    return ["### Events", glossary(get_args(events)), "### Effects", glossary(get_args(effects))]
