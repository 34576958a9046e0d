"""Clusters: one model for each group of devices, which each device chooses for itself."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from fedmq.algorithms.algorithm import MOST_LENGTHS, Algorithm, Look, Setting
from fedmq.errors import ConfigError, Refused
from fedmq.rules.hybrids import ByCluster
from fedmq.rules.hybrids.stack import slots, stacked

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from fedmq.rules import AnyRule
    from fedmq.rules.hybrids.pieces import Piece
    from fedmq.vectors import Layout, Vector


@dataclass(frozen=True, slots=True)
class Clusters(Algorithm):
    """One model for each group of devices: one for all at first, then one for each way in which updates point.

    Formula: for `rounds` rounds at least all devices train one model, until updates agree so little that
    `norm(mean delta) <= agreement * mean(norm(delta))`. The next round's updates are put in `models` groups by cosine
    similarity (spherical k-means, begun with the two that point apart the most), and each group's updates, reduced and
    stepped by the rule, make one model. From then on a device tries every model on the examples that it holds back, and
    trains the one with the lowest loss; its update moves that model alone.

    Source: Ghosh et al. 2020, "An Efficient Framework for Clustered Federated Learning" (IFCA: the device's choice by
    lowest loss), https://arxiv.org/abs/2006.04088, which begins with random models and looks at the training loss;
    Sattler et al. 2020, "Clustered Federated Learning" (the split by cosine similarity of updates, once their mean is
    short and they are not), https://arxiv.org/abs/1910.01991, which splits in two, again and again.

    Cost: `models` times the model in every download until codecs see that most of it is zero or has not changed; an
    update is zeros outside of one model, which `sparse` and `lzma` codecs make next to nothing. One evaluation of each
    model per device and round. The round of the split keeps its updates on disk, and takes no more than 4,096.

    Use it when devices fall into a few kinds that want different answers to the same question: left- and right-handed
    people, machines of two makes. Where one model fits all, it only thins out the data of each. A new device chooses
    as all others do, so it needs no history. Clusters are judged by the devices: what they report is of the model that
    each has chosen, and so is what a simulation measures; it saves every model. The first is that of the largest group
    at the split.

    Configuration: `kind = "clusters"`, `models` (default 2, at most 16), `rounds` (before the split; default 10),
    `agreement` (above 0 and at most 1, the default, at which only `rounds` counts).

    Example:
        >>> from fedmq.vectors import Layout, Variable
        >>> Clusters(models=3).extend(Layout((Variable("w", (2, 3)),))).sizes
        (6, 6, 6)
    """

    kind: ClassVar[str] = "clusters"
    models: int = 2
    rounds: int = 10
    agreement: float = 1.0

    def __post_init__(self) -> None:
        ByCluster(
            models=self.models, rounds=self.rounds, agreement=self.agreement
        )  # which says what is wrong
        if self.models > MOST_LENGTHS:
            raise ConfigError(
                f"clusters has models {self.models}, wants {MOST_LENGTHS} at most: devices hold no longer vectors"
            )

    @property
    def telling(self) -> Mapping[str, Setting]:
        """Its name, and how many models there are."""
        return {"algorithm": self.kind, "algorithm.models": self.models}

    def extend(self, layout: Layout) -> Layout:
        """Put the other models behind the first."""
        return stacked(layout, self.models)

    def shown(self, model: Vector, layout: Layout) -> Vector:  # noqa: ARG002 # the interface's
        """Return all models, one behind the other."""
        return model

    def apart(self, model: Vector, layout: Layout) -> Mapping[str, Vector]:
        """Return each model that has begun, as ``cluster-0`` and so on; before the split the only one."""
        begun = self._begun(model, layout)
        if len(begun) == 1:
            return {"": begun[0]}
        return {f"cluster-{number}": own for number, own in begun.items()}

    def govern(self, rule: AnyRule, present: int = 0) -> AnyRule:  # noqa: ARG002 # it counts updates, not devices
        """Have the rule work for each model on its own."""
        return ByCluster(rule, self.models, self.rounds, self.agreement)

    def settled(self, model: Vector, layout: Layout, look: Look) -> Algorithm:
        """Choose the model with the lowest loss; the first of those that are equal.

        Raises Refused where there are several, and the device holds no examples back to tell them by.
        """
        begun = self._begun(model, layout)
        if len(begun) == 1:
            return Member(self.models)
        losses = [_loss(look(own)) for own in begun.values()]
        return Member(self.models, list(begun)[int(np.argmin(losses))])

    def _begun(self, model: Vector, layout: Layout) -> Mapping[int, Vector]:
        """Return the models by number, but those that are still zeros; the first one always."""
        owns = (place.of(model) for place in slots(self.extend(layout), self.models))
        return {number: own for number, own in enumerate(owns) if not number or own.any()}

    def __str__(self) -> str:
        return f"clusters({self.models} models, {self.rounds} rounds of one)"


@dataclass(frozen=True, slots=True)
class Member(Algorithm):
    """A device that has chosen: its half of `Clusters` for one round."""

    kind: ClassVar[str] = "clusters"
    models: int
    chosen: int = 0

    def extend(self, layout: Layout) -> Layout:
        """Put the other models behind the first."""
        return stacked(layout, self.models)

    def start(self, model: Vector, layout: Layout) -> Vector:
        """Return the chosen model."""
        return self._place(layout).of(model)

    def answer(self, model: Vector, trained: Vector, reach: float | None, layout: Layout) -> Vector:  # noqa: ARG002 # the interface's
        """Return the chosen model's change, in its place; zeros for the others."""
        place = self._place(layout)
        delta = np.zeros_like(model)
        place.put(trained - place.of(model), delta)
        return delta

    def fed_back(self, layout: Layout) -> NDArray[np.bool_]:
        """Return the mask of the chosen model: an update moves no other, and what those are owed waits."""
        mask = np.zeros(self.extend(layout).size, np.bool_)
        for span in self._place(layout).spans:
            mask[span] = True
        return mask

    def _place(self, layout: Layout) -> Piece:
        places: Sequence[Piece] = slots(self.extend(layout), self.models)
        return places[self.chosen]


def _loss(figures: Mapping[str, float]) -> float:
    """Return the loss; infinity where the model is so bad that it is no number."""
    if not figures:
        raise Refused(
            "clusters are chosen by the loss on examples held back from training, this device holds none back: "
            "have its data() give some"
        )
    return figures.get("loss", math.inf)
