"""Several models of one layout in one vector, one behind the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedmq.errors import ConfigError
from fedmq.rules.hybrids.pieces import Piece
from fedmq.vectors import Layout, Variable

if TYPE_CHECKING:
    from collections.abc import Sequence


def stacked(layout: Layout, models: int) -> Layout:
    """Return the layout of `models` models of `layout`, the first under its own names, then ``cluster1/…`` and so on.

    Personal variables stay single.
    """
    copies = (
        Variable(f"cluster{number}/{variable.name}", variable.shape, variable.kind)
        for number in range(1, models)
        for variable in layout.shared
    )
    return Layout((*layout.variables, *copies))


def slots(layout: Layout, models: int) -> Sequence[Piece]:
    """Return the models' places in a vector of a stacked layout; raise ConfigError where it is none."""
    plain = Layout(layout.shared[: len(layout.shared) // models])
    if stacked(plain, models).digest != layout.digest:
        raise ConfigError(
            f"the vector does not hold {models} models of one layout, so there are no clusters to keep apart: "
            'say kind = "clusters" under [algorithm]'
        )
    return [
        Piece(plain, (slice(number * plain.size, (number + 1) * plain.size),)) for number in range(models)
    ]
