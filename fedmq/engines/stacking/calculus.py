"""What stacking needs of a backend of Keras and Keras does not offer itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

Tensor: TypeAlias = Any
"""A backend's own array; it has no type that mypy could know."""
Nest: TypeAlias = Any
"""Tensors in lists, tuples and dictionaries."""


class Calculus(Protocol):
    """A backend: differentiates, maps, compiles."""

    def slopes(
        self, function: Callable[[list[Tensor]], tuple[Tensor, Nest]], at: Sequence[Tensor]
    ) -> tuple[Nest, list[Tensor | None]]:
        """Return what `function` says beside its value, and the value's gradients by each of the tensors `at`."""

    def stacked(self, function: Callable[[Nest, Nest], Nest]) -> Callable[[Nest, Nest], Nest]:
        """Return ``function(shared, own)`` compiled, and mapped over the first dimension of all that is in `own`."""

    def taken(self, array: Tensor, rows: Tensor) -> Tensor:
        """Return these rows of an array that has them all: there is no need to look whether it does."""

    def put(self, array: NDArray[Any]) -> Tensor:
        """Return an array where the backend computes."""
