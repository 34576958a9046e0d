"""Stacking on JAX: `jit` of `vmap`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fedmq.engines.jax.runtime import jax

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fedmq.engines.stacking.calculus import Nest, Tensor


class JaxCalculus:
    """See `fedmq.engines.stacking.calculus.Calculus`."""

    def slopes(
        self, function: Callable[[list[Tensor]], tuple[Tensor, Nest]], at: Sequence[Tensor]
    ) -> tuple[Nest, list[Tensor | None]]:
        """Return what `function` says beside its value, and gradients."""
        gradients, beside = jax.grad(function, has_aux=True)(list(at))
        return beside, gradients

    def stacked(self, function: Callable[[Nest, Nest], Nest]) -> Callable[[Nest, Nest], Nest]:
        """Map and compile."""
        compiled: Callable[[Nest, Nest], Nest] = jax.jit(jax.vmap(function, in_axes=(None, 0)))
        return compiled

    def taken(self, array: Tensor, rows: Tensor) -> Tensor:
        """Gather: what `jax.numpy.take` does about rows that are not there would be done again for each patch."""
        return array.at[rows].get(mode="promise_in_bounds")

    def put(self, array: Any) -> Tensor:  # noqa: ANN401  # any array
        """Return it on the device."""
        return jax.numpy.asarray(array)
