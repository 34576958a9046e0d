"""What both machines share: events in, effects out, and a table that every change of phase must be in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Generic, TypeVar

from fedmq.errors import MisuseError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from enum import Enum

P = TypeVar("P", bound="Enum")
Event = TypeVar("Event")
Effect = TypeVar("Effect")


class Machine(ABC, Generic[P, Event, Effect]):
    """A phase, and effects that gather until the event that caused them is dealt with."""

    def __init__(self, phase: P) -> None:
        """Begin in `phase`."""
        self.phase = phase
        self._out: list[Effect] = []

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Take in one event and return the effects to carry out, in order.

        Raises MisuseError for a change of phase that the table does not know: that is a bug in here.
        """
        before = self.phase
        self._react(event, now)
        allowed = self._transitions().get((before, type(event)), frozenset({before}))
        if self.phase not in allowed:
            raise MisuseError(
                f"{type(event).__name__} led from {before.value} to {self.phase.value}: not in the table"
            )
        effects, self._out = self._out, []
        return effects

    @abstractmethod
    def _react(self, event: Event, now: float) -> None:
        """Deal with the event; what is to be done goes into `_out`."""

    @abstractmethod
    def _transitions(self) -> Mapping[tuple[P, type], frozenset[P]]:
        """Return the table; a pair that is not in it leaves the phase as it is."""
