"""What the models of a simulated federation are worth on everyone's held-out examples."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fedmq.errors import Refused

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fedmq.algorithms import Algorithm
    from fedmq.device.interface import Trainer
    from fedmq.vectors import Vector

HELD_OUT: Final = "held_out"
DEVICES: Final = "devices"
ACCURACY: Final = "accuracy"

_MOST_TOLD: Final = 12
"""Models whose accuracy is told one by one: a report has room for 32 figures."""

Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Judge:
    """Judges a model by `pooled`, who holds everyone's data; several models each by the devices that choose it.

    `devices` is read where there are several models only; `pooled` is None where the data cannot be joined.
    """

    algorithm: Algorithm
    devices: Mapping[str, Trainer]
    pooled: Trainer | None

    def __call__(self, vector: Vector) -> Figures:
        """Return the figures of what `vector` holds, as the federation's modelling shows it; none where nobody can say.

        Of several models: of each device's own, over all examples that devices hold back; and of each model, behind
        its name and a dot, how many devices chose it (``devices``) and its ``accuracy`` for these.
        """
        layout = (self.pooled or next(iter(self.devices.values()))).layout
        models = self.algorithm.apart(vector, layout)
        if len(models) == 1:
            return dict(self.pooled.evaluate(next(iter(models.values())))) if self.pooled else {}
        told = defaultdict[str, list[Mapping[str, float]]](list)
        for trainer in self.devices.values():
            try:
                chosen = self.algorithm.settled(vector, layout, trainer.evaluate)
            except Refused:  # it holds nothing back
                continue
            own = chosen.start(vector, layout)
            name = next(name for name, model in models.items() if model.tobytes() == own.tobytes())
            told[name].append(trainer.evaluate(own))
        return _of_all(told)


def _of_all(told: Mapping[str, list[Mapping[str, float]]]) -> Figures:
    figures = _mean(each for several in told.values() for each in several)
    for name in sorted(told):
        figures[f"{name}.{DEVICES}"] = float(len(told[name]))
        own = _mean(told[name])
        if ACCURACY in own and len(told) <= _MOST_TOLD:
            figures[f"{name}.{ACCURACY}"] = own[ACCURACY]
    return figures


def _mean(several: Iterable[Mapping[str, float]]) -> Figures:
    """Return the devices' figures as one, each device by the examples that it holds back."""
    several = list(several)
    total = sum(each[HELD_OUT] for each in several)
    names = set.intersection(*(set(each) for each in several)) - {HELD_OUT} if several else set()
    means = {name: sum(each[name] * each[HELD_OUT] for each in several) / total for name in sorted(names)}
    return {**means, HELD_OUT: total} if several else {}
