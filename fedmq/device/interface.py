"""What a device asks of a trainer: weights in, trained weights and facts out, as flat vectors."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NewType, Protocol, TypeAlias, cast

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fedmq.descent import Pull
    from fedmq.vectors import Layout, Vector

Setting: TypeAlias = bool | int | float | str

ModuleName = NewType("ModuleName", str)
"""A user's Python module: a dotted name, or a path that ends in ``.py`` (in a file, relative to that file's folder)."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What one local training gave.

    `vector` is the trained model, `examples` the number of distinct local examples, `steps` the optimizer steps
    taken, `metrics` finite floats by name. A trainer that holds data back reports how the model *it was given* did on
    it as ``accuracy`` and ``loss``, and on how many examples as ``held_out``; training figures are ``train_accuracy``
    and ``train_loss``.

    `reach` is how far a gradient of one, the same at every step, would have moved a weight: steps times learning rate
    for plain SGD, see `fedmq.descent.gain` for momentum. None where the optimizer's steps are not proportional to
    gradients (Adam), or their length is not one number.
    """

    vector: Vector
    examples: int
    steps: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    reach: float | None = None


class Trainer(Protocol):
    """Trains one device's model on that device's data. Called from a worker thread, one call at a time."""

    @property
    def name(self) -> str:
        """Engine and version for people, such as ``keras 3.15 (tensorflow)``."""

    @property
    def layout(self) -> Layout:
        """The model's layout; fixed for the trainer's life."""

    @property
    def examples(self) -> int:
        """How many local examples it trains on."""

    def initial(self) -> Vector:
        """Return the model's first weights, as the user's code made them."""

    def train(self, model: Vector, settings: Mapping[str, Setting], *, seed: int) -> Trained:
        """Train from `model` and return the result; same arguments, same bytes, on the same machine.

        `settings` come from the task: ``epochs``, ``batch_size``, ``learning_rate`` and what else the trainer knows;
        unknown ones raise ConfigError naming the nearest known. `model` is never changed in place.
        """

    def evaluate(self, model: Vector) -> Mapping[str, float]:
        """Return ``loss``, ``accuracy`` (where it makes sense) and ``held_out`` of `model` on the held-out share."""


class SteeredTrainer(Trainer, Protocol):
    """A trainer that algorithms can steer; those that come with fedmq are such."""

    def train(
        self, model: Vector, settings: Mapping[str, Setting], *, seed: int, pull: Pull | None = None
    ) -> Trained:
        """Train as `Trainer.train` does, with the terms of `pull` added to the local objective.

        Raises MisuseError where these are not of the layout.
        """


def steered(trainer: Trainer) -> SteeredTrainer | None:
    """Return `trainer` if its `train` takes a `pull`, else None."""
    parameters = inspect.signature(trainer.train).parameters.values()
    takes = any(each.name == "pull" or each.kind is each.VAR_KEYWORD for each in parameters)
    return cast("SteeredTrainer", trainer) if takes else None
