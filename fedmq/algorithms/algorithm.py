"""The interface of an algorithm that needs both halves, and `Plain`, which needs neither."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedmq.rules.needs import Needs
from fedmq.vectors import Layout, Variable, Vector

if TYPE_CHECKING:
    from fedmq.descent import Pull
    from fedmq.rules import AnyRule

Setting: TypeAlias = bool | int | float | str

Kept: TypeAlias = Mapping[str, Vector]
"""What a device keeps from round to round: vectors by name, such as ``scaffold.control``; empty before the first."""


Look: TypeAlias = Callable[[Vector], Mapping[str, float]]
"""A trainer's `evaluate`: ``loss`` and more of a plain model on held-out examples, nothing where there are none."""


MOST_LENGTHS = 16
"""How many times as long as the model the vector that travels may be; devices refuse to hold more."""


class Algorithm(Protocol):
    """One federated algorithm, its aggregator's half and its devices' half in one object.

    The vector that travels may be longer than the model: `extend` puts an algorithm's own variables behind the
    model's, as statistics, so that no optimizer step touches them. Published models and updates then hold both; to
    codecs, digests, checkpoints and the journal it is one vector.

    A device keeps vectors of its own. They change by what `learn` gives, which is *added* to them when the aggregator
    has accepted the update that it belongs to, and dropped when it has not. As changes add up, updates that are
    settled late or in another order leave the same sum.

    `layout` is the plain model's everywhere here, `model` a vector of the extended layout.
    """

    __slots__ = ()

    kind: ClassVar[str]
    """The name in configuration and tasks."""
    feeds_back: ClassVar[bool] = False
    """True where it makes good by itself what codecs lose, so that a codec with `feedback` has nothing to do."""

    @property
    def telling(self) -> Mapping[str, Setting]:
        """What a task's `training` tells devices of it; see `fedmq.algorithms.told`."""
        return {}

    @property
    def needs(self) -> Needs:
        """What it asks of the updates' codec, beside what the rule does."""
        return Needs()

    def extend(self, layout: Layout) -> Layout:
        """Return the layout of the vector that travels: `layout`'s variables first."""
        return layout

    def shown(self, model: Vector, layout: Layout) -> Vector:
        """Return the part of a vector that is evaluated and saved: the model, without what was put behind it."""
        return model[: layout.size]

    def apart(self, model: Vector, layout: Layout) -> Mapping[str, Vector]:
        """Return the plain models in what is shown, by name; a single one has none."""
        return {"": model[: layout.size]}

    # --- the aggregator's half

    def govern(self, rule: AnyRule, present: int = 0) -> AnyRule:  # noqa: ARG002 # for those that count
        """Return `rule` as this algorithm has it work, for folds of the extended layout.

        `present` is how many devices are there. It matters to `finish` alone: folds of all values are alike. Raises
        ConfigError where the rule is of a sort that it cannot govern.
        """
        return rule

    # --- the device's half

    def settled(self, model: Vector, layout: Layout, look: Look) -> Algorithm:  # noqa: ARG002 # for those that choose
        """Return the algorithm as one device goes about one round, where that hangs on what it sees of `model`.

        It is asked first, and what it returns does the rest. Raises Refused where the device cannot choose.
        """
        return self

    def start(self, model: Vector, layout: Layout) -> Vector:
        """Return the plain model to train from."""
        return model[: layout.size]

    def pull(self, model: Vector, layout: Layout, kept: Kept) -> Pull | None:  # noqa: ARG002 # as above
        """Return what the local objective has beside the device's own loss."""
        return None

    def answer(self, model: Vector, trained: Vector, reach: float | None, layout: Layout) -> Vector:  # noqa: ARG002
        """Return the update's delta, of the extended layout; `trained` and `reach` are the trainer's word.

        Raises Refused where the trainer's optimizer is none that the algorithm can work with.
        """
        return trained - model

    def lessen(self, delta: Vector, layout: Layout, kept: Kept) -> Vector:  # noqa: ARG002 # for those that remember
        """Return what is sent of the update's delta, where the aggregator knows a part of it."""
        return delta

    def fed_back(self, layout: Layout) -> NDArray[np.bool_] | None:  # noqa: ARG002 # as above
        """Return the mask of the numbers to which a codec's error feedback applies; None for all.

        It is False where what a codec lost is in the next update anyhow, and would be sent twice.
        """
        return None

    def learn(self, delivered: Vector, layout: Layout) -> Kept:  # noqa: ARG002 # as above
        """Return what is added to the device's own vectors once `delivered` is accepted.

        `delivered` is the update's delta as the aggregator decodes it, after all that its codec lost.
        """
        return {}


@dataclass(frozen=True, slots=True)
class Plain(Algorithm):
    """No algorithm beyond the rule: devices train as their trainer does, the rule does the rest.

    Formula: none of its own.

    Source: McMahan et al. 2017 (FedAvg), with the rules ``fedavg`` or ``average``.

    Cost: none.

    Use it unless devices' data differ so much that they drift apart within a round.

    Configuration: `kind = "plain"`, or no ``[algorithm]`` table.

    Example:
        >>> Plain().telling
        {}
    """

    kind: ClassVar[str] = "plain"

    def __str__(self) -> str:
        return "plain"


def controlled(layout: Layout, prefix: str) -> Layout:
    """Return `layout` with one statistic more for each trainable variable, called ``prefix/`` and its name."""
    extra = (
        Variable(f"{prefix}/{v.name}", v.shape, "statistic") for v in layout.shared if v.kind == "trainable"
    )
    return Layout((*layout.variables, *extra))


def prefixed(layout: Layout, prefix: str) -> NDArray[np.bool_]:
    """Return the mask over the vector of the variables that `controlled` has put there."""
    found = [variable.name.startswith(f"{prefix}/") for variable in layout.shared]
    return np.repeat(np.asarray(found, np.bool_), layout.sizes)


def spread(numbers: NDArray[np.floating[Any]], layout: Layout) -> Vector:
    """Return a vector of `layout` with these at its trainable places, zero at the others."""
    vector = np.zeros(layout.size, np.float32)
    vector[layout.trainable] = numbers
    return vector


def recalled(kept: Kept, name: str, layout: Layout) -> NDArray[np.float64]:
    """Return what is kept as `name`, one number for each trainable one of `layout`; zeros where there is none."""
    first = np.zeros(int(layout.trainable.sum()))
    known = kept.get(name)
    return first if known is None or known.shape != first.shape else known.astype(np.float64)
