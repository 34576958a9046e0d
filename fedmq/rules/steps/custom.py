"""The step that is a function of one's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fedmq.errors import MisuseError
from fedmq.rules.dotted import function
from fedmq.rules.steps.arithmetic import moved, wide
from fedmq.rules.steps.interface import Step

if TYPE_CHECKING:
    from fedmq.rules.memory import Memory
    from fedmq.vectors import Layout, Vector


@dataclass(frozen=True, slots=True)
class CustomStep(Step):
    """The model moves to where a function of one's own says.

    Formula: `model = function(model, delta)`, for the trainable numbers. It sees both read-only.

    Source: yours. It is imported when the rule is made, from this Python's path, and never from the network.

    Cost: that of the function, once a round.

    Use it for a step that remembers nothing from round to round; for one that does, write a class that inherits from
    `fedmq.rules.Step`.

    Configuration: `kind = "custom_step"`, `name` (`my_package.module:function`; by default one of
    `fedmq.rules.samples`).

    Example:
        >>> from fedmq.vectors import Layout, Variable
        >>> layout = Layout((Variable("w", (2,)),))
        >>> step = CustomStep("fedmq.rules.samples:half_way")
        >>> step.apply(np.zeros(2, np.float32), np.array([1.0, 2.0], np.float32), {}, layout)[0]
        array([0.5, 1. ], dtype=float32)
    """

    name: str = "fedmq.rules.samples:half_way"

    def __post_init__(self) -> None:
        function("custom step", self.name)

    def apply(self, model: Vector, delta: Vector, memory: Memory, layout: Layout) -> tuple[Vector, Memory]:  # noqa: ARG002 # the slot's signature
        """Return what the function does; raise MisuseError where that has not the model's shape."""
        shown = model.view(), delta.view()
        for vector in shown:
            vector.flags.writeable = False
        target = np.asarray(function("custom step", self.name)(*shown))
        if target.shape != model.shape or target.dtype.kind != "f":
            raise MisuseError(
                f"custom step {self.name} returned {target.dtype} of shape {target.shape}, wants floats of shape "
                f"{model.shape}"
            )
        return moved(model, delta, target.astype(np.float64) - wide(model), layout), {}

    def __str__(self) -> str:
        return f"custom {self.name}"
