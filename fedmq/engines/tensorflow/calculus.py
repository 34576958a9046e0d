"""Stacking on TensorFlow: `tf.vectorized_map` in a compiled function."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from fedmq.trainers.keras.runtime import tf

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fedmq.engines.stacking.calculus import Nest, Tensor


def _is_news(record: logging.LogRecord) -> bool:
    return not any(word in record.getMessage() for word in ("while_loop", "retracing"))


class TensorFlowCalculus:
    """See `fedmq.engines.stacking.calculus.Calculus`."""

    def __init__(self) -> None:
        """Keep TensorFlow from telling users what it should be taught to map, and that it compiles each shape once."""
        logging.getLogger("tensorflow").addFilter(_is_news)

    def slopes(
        self, function: Callable[[list[Tensor]], tuple[Tensor, Nest]], at: Sequence[Tensor]
    ) -> tuple[Nest, list[Tensor | None]]:
        """Return what `function` says beside its value, and gradients."""
        points = [tf.convert_to_tensor(point) for point in at]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(points)
            value, beside = function(points)
        return beside, tape.gradient(value, points)

    def stacked(self, function: Callable[[Nest, Nest], Nest]) -> Callable[[Nest, Nest], Nest]:
        """Map and compile."""

        def mapped(shared: Nest, own: Nest) -> Nest:
            # the operations that cannot be mapped (in Keras' accuracy, or a user's layer) run device by device
            return tf.vectorized_map(lambda each: function(shared, each), own, fallback_to_while_loop=True)

        compiled: Callable[[Nest, Nest], Nest] = tf.function(mapped, autograph=False)
        return compiled

    def taken(self, array: Tensor, rows: Tensor) -> Tensor:
        """Gather."""
        return tf.gather(array, rows)

    def put(self, array: Any) -> Tensor:  # noqa: ANN401  # TensorFlow has no types
        """Return a tensor of it."""
        return tf.constant(array)
