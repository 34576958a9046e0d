"""The interface of the last slot of a rule: how the model moves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from fedmq.rules.memory import Memory
    from fedmq.vectors import Layout, Vector


class Step(Protocol):
    """A move of the model. Pure: model, delta and memory that come in are left as they are."""

    __slots__ = ()

    def apply(self, model: Vector, delta: Vector, memory: Memory, layout: Layout) -> tuple[Vector, Memory]:
        """Return the new model and the memory for the next round.

        The new model may hold numbers that are not finite; `Rule.finish` refuses it then. Raises MisuseError where a
        remembered vector does not have the model's length.
        """

    def serving(self, model: Vector, memory: Memory, layout: Layout) -> Vector:  # noqa: ARG002 # for those that differ
        """Return the model to evaluate and to save, given the one that devices train and what is remembered."""
        return model
