"""What an engine is asked and promises."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from fedmq.errors import MisuseError
from fedmq.trainers.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fedmq.descent import Pull
    from fedmq.device.interface import Setting, Trained
    from fedmq.trainers.batches import Rows
    from fedmq.vectors import Layout, Vector


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """One local training: whose examples, from which model, and how; the arguments of `Trainer.train`.

    `rows` names those of the device's examples that it trains on, in place of all of them: an engine then may hold one
    set of which many devices draw, each anew whenever it trains.

    Raises ConfigError where a setting is not known or out of range, before anything waits for the job.
    """

    device: str
    model: Vector
    settings: Mapping[str, Setting]
    seed: int
    pull: Pull | None = None
    rows: Rows | None = None
    chosen: Settings = field(init=False)
    """The settings, checked, and with defaults for those that are left out."""

    def __post_init__(self) -> None:
        """Check the settings."""
        object.__setattr__(self, "chosen", Settings.parse(self.settings))

    @property
    def pulled(self) -> Pull:
        """The pull and the proximal setting together."""
        return self.chosen.pulled(self.pull)

    def count(self, examples: int) -> int:
        """Return how many examples are trained on where the device has so many in all.

        Raises MisuseError where `rows` are none, or name some that are not there.
        """
        if self.rows is None:
            return examples
        if not len(self.rows) or self.rows.min() < 0 or self.rows.max() >= examples:
            raise MisuseError(
                f"a job names {len(self.rows)} of the {examples} examples of {self.device}: name one at least, "
                f"and each by a number from 0 to {examples - 1}"
            )
        return len(self.rows)

    def require(self, layout: Layout) -> None:
        """Raise MisuseError where the model or the pull's linear term is not of `layout`."""
        layout.unpack(self.model)
        if self.pulled.linear is not None:
            layout.unpack(self.pulled.linear)


class Engine(Protocol):
    """Trains any device of a fleet whose data it was made with; thread-safe.

    A job's result does not depend on the jobs beside it: the same job gives the same bytes on one machine, alone or in
    company, where the framework allows (an engine that cannot keep this says so).
    """

    @property
    def name(self) -> str:
        """Engine and versions for people, such as ``tensorflow 2.21.0 (keras 3.15.1)``."""

    @property
    def layout(self) -> Layout:
        """The model's layout; that of the Keras trainer for the same model."""

    @property
    def stack(self) -> int:
        """How many jobs one call of `train` handles best; more are right as well."""

    @property
    def threads(self) -> int:
        """How many calls of `train` side by side this machine has use for."""

    def examples(self, device: str) -> int:
        """Return how many examples `device` trains on."""

    def initial(self) -> Vector:
        """Return the model's first weights, as the user's code made them."""

    def train(self, jobs: Sequence[Job]) -> Sequence[Trained]:
        """Return what each job gave, in order. See `Trainer.train`.

        Raises MisuseError for vectors that are not of the layout, ConfigError for settings that this model cannot use.
        """

    def evaluate(self, device: str, model: Vector) -> Mapping[str, float]:
        """Return the figures of `model` on what `device` holds back; nothing where that is nothing."""
