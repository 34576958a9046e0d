"""The same data without federation: each device alone, and everything in one place.

Both train for as many epochs as the federation's devices do, and are judged on everyone's held-out examples.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from fedmq.device.interface import Setting, Trainer
    from fedmq.simulate.fleet import Fleet


@dataclass(frozen=True, slots=True)
class Curve:
    """Accuracy on everyone's held-out data, by the number of rounds' worth of epochs."""

    name: str
    points: tuple[tuple[int, float], ...]

    @property
    def last(self) -> float:
        """The final value."""
        return self.points[-1][1]


def pooled_curve(fleet: Fleet, rounds: int, training: Mapping[str, Setting], steps: int) -> Curve:
    """Train one model on all data, the way no privacy rule would allow; `steps` points on the curve."""
    if fleet.pooled is None:
        raise ValueError("the fleet's data cannot be joined")
    return Curve("pooled", tuple(_course(fleet.pooled, fleet.pooled, rounds, training, steps)))


def local_curve(
    fleet: Fleet, rounds: int, training: Mapping[str, Setting], steps: int, progress: Callable[[int], None]
) -> Curve:
    """Train each device on its own data alone; the mean of what their models can do for everyone."""
    if fleet.pooled is None:
        raise ValueError("the fleet's data cannot be joined")
    courses, judge = [], fleet.pooled
    with ThreadPoolExecutor(fleet.callers) as pool:
        course = partial(_course, judge=judge, rounds=rounds, training=training, steps=steps)
        for number, found in enumerate(
            pool.map(lambda trainer: list(course(trainer)), fleet.trainers.values()), 1
        ):
            courses.append(found)
            progress(number)
    means = (fmean(course[index][1] for course in courses) for index in range(steps))
    return Curve("local only", tuple(zip((point for point, _ in courses[0]), means, strict=True)))


def _course(
    trainer: Trainer, judge: Trainer, rounds: int, training: Mapping[str, Setting], steps: int
) -> Iterator[tuple[int, float]]:
    epochs = int(training.get("epochs", 1))
    vector, done = trainer.initial(), 0
    for step in range(1, steps + 1):
        upto = round(rounds * step / steps)
        settings = {**training, "epochs": epochs * (upto - done)}
        if upto > done:
            vector, done = trainer.train(vector, settings, seed=step).vector, upto
        yield upto, float(judge.evaluate(vector).get("accuracy", 0.0))
