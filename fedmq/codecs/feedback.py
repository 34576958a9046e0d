"""Error feedback: what a codec lost of one update is added to the next, so that nothing is lost for good.

Seide et al. 2014, "1-Bit Stochastic Gradient Descent and its Application to Data-Parallel Distributed Training of
Speech DNNs", INTERSPEECH; Stich, Cordonnier and Jaggi 2018, "Sparsified SGD with Memory", NeurIPS.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from fedmq.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Feedback:
    """The encoder keeps what was lost and adds it to what comes next; `keep` is the share left of it a round later."""

    name: ClassVar[str] = "feedback"
    examples: ClassVar[tuple[str, ...]] = ("feedback", "feedback(0.9)")

    keep: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 < self.keep <= 1.0:
            raise ConfigError(f"feedback keeps a share of {self.keep}: choose one above 0, up to 1")


FEEDBACKS: Final[dict[str, type[Feedback]]] = {Feedback.name: Feedback}
"""Every form of feedback by name."""
