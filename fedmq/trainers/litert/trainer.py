"""`LitertTrainer`, one device's trainer, without TensorFlow."""

from __future__ import annotations

import copy
import itertools
from typing import TYPE_CHECKING

import numpy as np

from fedmq.device.interface import Trained
from fedmq.trainers.batches import Schedule
from fedmq.trainers.litert.descent import Descent, Judge
from fedmq.trainers.litert.examples import Examples
from fedmq.trainers.litert.model import LitertModel
from fedmq.trainers.litert.optimizers import chosen_rate, mover, reach
from fedmq.trainers.litert.runtime import engine
from fedmq.trainers.personal import Personal
from fedmq.trainers.settings import Settings, finite
from fedmq.vectors import split

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from fedmq.descent import Pull
    from fedmq.device.interface import Setting
    from fedmq.trainers.batches import Rows
    from fedmq.trainers.litert.model import Interpreter
    from fedmq.vectors import Layout, Vector


class LitertTrainer:
    """Trains a model that `fedmq export` has made on one device's examples; see `fedmq.device.interface.Trainer`.

    `model` is the path of the file, or a `LitertModel` that any number of trainers share, in one thread or several.
    `data` is (x, y) or (x, y, sample weights) as arrays (for several inputs, x is a dictionary or a tuple of them); so
    is `held_out`. `keep` is an ``.npz`` file for the weights of personal layers, so that they survive a restart.

    It takes the steps that Keras takes, from the same seed on the same examples, and gets the same weights but for
    rounding: see `docs/how-to/your-own-model.md` for by how much. A task's `batch_size` may be any; training is fastest
    where it is what the file was exported for.

    Raises ConfigError when the data do not fit the model.
    """

    def __init__(
        self,
        model: Path | LitertModel,
        data: object,
        *,
        held_out: object | None = None,
        keep: Path | None = None,
    ) -> None:
        self._model = model if isinstance(model, LitertModel) else LitertModel(model)
        self._description = self._model.description
        self._data = Examples.of(data, self._description, "the training data")
        self._held_out = (
            None if held_out is None else Examples.of(held_out, self._description, "the held-out data")
        )
        self._own_sizes = [
            variable.size for variable in self.layout.variables if variable.scope == "personal"
        ]
        self._personal = Personal(self.layout, self._model.initial("personal"), keep)

    @property
    def name(self) -> str:
        """Engine and version, such as ``litert 2.3.0``."""
        return engine()

    @property
    def layout(self) -> Layout:
        """The model's layout, the same as Keras' trainer of that model has."""
        return self._model.layout

    @property
    def examples(self) -> int:
        """How many local examples it trains on."""
        return self._data.rows

    def picked(self, rows: Rows) -> LitertTrainer:
        """Return one that trains on these of the examples."""
        other = copy.copy(self)
        other._data = self._data.picked(rows)  # noqa: SLF001  # its own
        return other

    def initial(self) -> Vector:
        """Return the weights that the model had when it was exported."""
        return self._model.initial()

    def train(
        self, model: Vector, settings: Mapping[str, Setting], *, seed: int, pull: Pull | None = None
    ) -> Trained:
        """Train from `model`; for `settings` see `fedmq.trainers.settings.Settings`.

        A training that diverges returns its vector as it is, and leaves out the figures that are not finite. Raises
        ConfigError for settings that cannot be used, MisuseError when `model` is not of the layout.
        """
        chosen = Settings.parse(settings)
        schedule = Schedule(self._data.rows, chosen)
        length = reach(self._description.optimizer, chosen.learning_rate, schedule.steps)
        metrics = dict(self.evaluate(model))
        with self._model.interpreter() as interpreter, np.errstate(all="ignore"):
            descent = self._descent(interpreter, model, chosen, chosen.pulled(pull), seed)
            sums, seen = _descend(descent, schedule, seed)
            vector = np.empty(self.layout.size, np.float32)
            own = np.empty_like(self._personal.vector)
            descent.collect(self._arrays(vector, own))
        self._personal.replace(own)
        metrics |= {f"train_{name}": value for name, value in self._means(sums, seen).items()}
        return Trained(vector, schedule.rows, schedule.steps, finite(metrics), length)

    def evaluate(self, model: Vector) -> Mapping[str, float]:
        """Return the model's loss and compiled metrics on the held-out examples, and their number as ``held_out``.

        Nothing where no examples are held out.
        """
        if self._held_out is None:
            return {}
        sums = np.zeros(1 + 2 * len(self._description.metrics))
        with self._model.interpreter() as interpreter, interpreter.judge() as run, np.errstate(all="ignore"):
            judge = Judge(run, self._description, self._held_out, self._arrays(model))
            for rows in judge.batches():
                sums += _weighted(judge.figures(rows), len(rows))
        return finite({**self._means(sums, self._held_out.rows), "held_out": self._held_out.rows})

    def _descent(
        self, interpreter: Interpreter, model: Vector, settings: Settings, pull: Pull, seed: int
    ) -> Descent:
        rate = chosen_rate(self._description.optimizer, settings.learning_rate)
        return Descent(
            interpreter,
            self._description,
            self._data,
            mover(self._description, rate, interpreter),
            self._arrays(model),
            linear=None if pull.linear is None else self._arrays(pull.linear),
            strength=pull.strength,
            seed=seed,
        )

    def _arrays(self, vector: Vector, own: Vector | None = None) -> list[NDArray[np.float32]]:
        """Return one array for each variable, all of them views; a personal one's into `own`, else this device's."""
        own = self._personal.vector if own is None else own
        shared, mine = iter(self.layout.unpack(vector)), iter(split(own, self._own_sizes))
        return [
            next(shared) if variable.scope == "shared" else next(mine).reshape(variable.shape)
            for variable in self.layout.variables
        ]

    def _means(self, sums: NDArray[np.float64], rows: int) -> dict[str, float]:
        """Return figures by name: the mean loss of `rows` examples, and each metric's sum over its count."""
        metrics = sums[1:].reshape(-1, 2)
        found = {n: float(s / c) for n, (s, c) in zip(self._description.metrics, metrics, strict=True) if c}
        return {"loss": float(sums[0]) / rows, **found}


def _descend(descent: Descent, schedule: Schedule, seed: int) -> tuple[NDArray[np.float64], int]:
    """Take all steps; return the sums of the last epoch's figures, and how many examples they are of."""
    edges = schedule.cuts.tolist()
    sums, seen = np.zeros(0), 0
    for order, limit in schedule.epochs(seed):
        sums, seen = np.zeros(0), edges[limit]
        for start, stop in itertools.pairwise(edges[: limit + 1]):
            told = _weighted(descent.step(order[start:stop]), stop - start)
            sums = sums + told if sums.size else told
    return sums, seen


def _weighted(figures: NDArray[np.floating], rows: int) -> NDArray[np.float64]:
    """Return a batch's figures with its mean loss as a sum over its rows, as the metrics are."""
    found = figures.astype(np.float64)
    found[0] *= rows
    return found
