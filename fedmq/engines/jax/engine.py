"""From a user's module to an engine on JAX."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fedmq.engines.front import cores
from fedmq.engines.jax.calculus import JaxCalculus
from fedmq.engines.jax.runtime import NAME, ON_CPU
from fedmq.engines.keras import first_model
from fedmq.engines.stacking.checks import check_stackable
from fedmq.engines.stacking.convolutions import as_products
from fedmq.engines.stacking.engine import Shape, StackingEngine
from fedmq.engines.stacking.pooling import as_comparisons
from fedmq.trainers.settings import refuse_unknown, whole

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fedmq.trainers.module import Supply

_STACK_ON_CPU: Final = 8
_STACK_ON_GPU: Final = 1024


def from_module(module: str, supplies: Mapping[str, Supply], options: Mapping[str, Any]) -> StackingEngine:
    """Return the engine for a user's module with a compiled Keras model that runs on any backend of Keras.

    `options`: ``seed``, set before `model()` is called; ``workers``, how many stacks train side by side (default: one
    for each core, on a GPU one); ``stack``, how many devices are stacked (8 on a CPU, 1,024 on a GPU). Raises
    ConfigError where model, data or an option cannot be used.
    """
    refuse_unknown("engine option", options, ("seed", "workers", "stack"))
    shape = Shape(
        whole("stack", options.get("stack", _STACK_ON_CPU if ON_CPU else _STACK_ON_GPU)),
        whole("workers", options.get("workers", cores())) if ON_CPU else 1,
    )
    model = first_model(module, options)
    check_stackable(model, "jax")
    as_products(model)
    as_comparisons(model)
    return StackingEngine(NAME, model, supplies, JaxCalculus(), shape)
