"""What an engine is asked and promises."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from fedmq.trainers.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fedmq.descent import Pull
    from fedmq.device.interface import Setting, Trained
    from fedmq.vectors import Layout, Vector


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """One local training: whose examples, from which model, and how; the arguments of `Trainer.train`.

    Raises ConfigError where a setting is not known or out of range, before anything waits for the job.
    """

    device: str
    model: Vector
    settings: Mapping[str, Setting]
    seed: int
    pull: Pull | None = None
    chosen: Settings = field(init=False)
    """The settings, checked, and with defaults for those that are left out."""

    def __post_init__(self) -> None:
        """Check the settings."""
        object.__setattr__(self, "chosen", Settings.parse(self.settings))

    @property
    def pulled(self) -> Pull:
        """The pull and the proximal setting together."""
        return self.chosen.pulled(self.pull)

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
