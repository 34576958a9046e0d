"""What a task may ask of a local training, checked; the same for every trainer, so that fleets can be mixed."""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fedmq.descent import Pull
from fedmq.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from fedmq.device.interface import Setting


@dataclass(frozen=True, slots=True)
class Settings:
    """One round's training settings.

    `epochs` passes over the local examples in mini-batches of `batch_size`, the last one of an epoch as small as it
    comes out; no more than `max_steps` optimizer steps where that is set. `learning_rate` None keeps the trainer's
    own. `proximal` is FedProx's mu, which pulls every trainable weight back to the model the round began with (Li et
    al., 2020, "Federated optimization in heterogeneous networks", https://arxiv.org/abs/1812.06127).
    """

    epochs: int = 1
    batch_size: int = 32
    learning_rate: float | None = None
    max_steps: int | None = None
    proximal: float = 0.0

    @classmethod
    def parse(cls, given: Mapping[str, Setting]) -> Settings:
        """Return the settings that a task carries; those that it leaves out take their defaults.

        Raises ConfigError when a name is not known, or a value is of the wrong type or out of range.
        """
        refuse_unknown("training setting", given, _CHECKS)
        values = {name: _CHECKS[name](name, value) for name, value in given.items()}
        return cls(**values)  # type: ignore[arg-type]  # each value has passed its field's check

    def pulled(self, pull: Pull | None) -> Pull:
        """Return an algorithm's `pull` and `proximal` together: their strengths add up."""
        given = pull or Pull()
        return Pull(given.linear, given.strength + self.proximal)


def refuse_unknown(what: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raise ConfigError for the first of the names `given` that is not `known`, and suggest the nearest that is."""
    names = sorted(known)
    for name in given:
        if name not in names:
            raise ConfigError(f"{what} {name!r} is not known: {suggest(name, names)}")


def suggest(name: str, known: Iterable[str]) -> str:
    """Return the end of an error's sentence: the known name nearest to `name`, or all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known are {', '.join(names) or 'none'}"


def whole(name: str, value: object, *, least: int = 1) -> int:
    """Return `value` where it is a whole number of at least `least`; raise ConfigError where it is not."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= least:
        return value
    raise ConfigError(f"{name} is {value!r}: give a whole number of at least {least}")


def real(name: str, value: object) -> float:
    """Return `value` where it is a finite number of at least 0; raise ConfigError where it is not."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0:
        return float(value)
    raise ConfigError(f"{name} is {value!r}: give a finite number of at least 0")


_CHECKS: Final[Mapping[str, Callable[[str, object], float]]] = {
    "epochs": whole,
    "batch_size": whole,
    "learning_rate": real,
    "max_steps": whole,
    "proximal": real,
}


def finite(figures: Mapping[str, float]) -> dict[str, float]:
    """Return the figures that are finite; a diverged training has some that are not, and reports none of those."""
    return {name: float(value) for name, value in figures.items() if math.isfinite(value)}
