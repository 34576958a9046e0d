"""What can happen to the coordinator (events) and what it asks its shell to do (effects)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fedmq.protocol.messages import Facts, Receipt, Report, Task
    from fedmq.protocol.spans import Spans

# --- events -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Started:
    """The shell is connected and its stores are open. `resumed` is the task of a round found in the journal.

    Its updates are to follow as `Offered` and `Completed`, all of them before the first `Absorbed`.
    """

    resumed: Task | None = None


@dataclass(frozen=True, slots=True)
class Born:
    """A device announced itself."""

    device: str
    session: int
    layout: bytes


@dataclass(frozen=True, slots=True)
class Died:
    """A device said good-bye, or its last will did."""

    device: str
    session: int


@dataclass(frozen=True, slots=True)
class Offered:
    """An update, or the first piece of one, arrived at the door: `nbytes` came with it. `round` is the one it answers.

    For a chunked update this event is raised for every chunk; `opening` is True for the one with index 0. Where nothing
    of the update came but a question about it, `question` is its number.
    """

    device: str
    run: bytes
    round: int
    update: bytes
    nbytes: int
    opening: bool = True
    question: int | None = None


@dataclass(frozen=True, slots=True)
class Searched:
    """The journal was searched for an update (`Search`): these chunks of it are missing, as a receipt says it."""

    device: str
    round: int
    update: bytes
    missing: Spans
    question: int = 0


@dataclass(frozen=True, slots=True)
class Garbled:
    """Something arrived under an update's topic that is no update: it can be counted, but not answered."""

    device: str
    nbytes: int
    reason: str


@dataclass(frozen=True, slots=True)
class Completed:
    """All bytes of an admitted update are in the journal, durable, and its header has been read.

    These events come in the order in which the updates became whole in the journal, after a restart as before it.
    """

    device: str
    round: int
    update: bytes
    model: int
    layout: bytes


@dataclass(frozen=True, slots=True)
class Absorbed:
    """The rule took the update into the fold."""

    device: str
    round: int
    update: bytes
    facts: Facts


@dataclass(frozen=True, slots=True)
class Spoiled:
    """The update did not decode, or a guard refused it; the fold is as it was."""

    device: str
    round: int
    update: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class Stepped:
    """The model moved to `version`: checkpointed and published. `evaluation` is of the new model, where there is any.

    The checkpoint names the new version together with the verdicts of its round, so that after a restart the round's
    journal, should it still be there, is known to have been counted.
    """

    round: int
    version: int
    bytes_down: int = 0
    evaluation: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StepFailed:
    """The rule would not make a model of the fold (not finite, say); the model is as it was."""

    round: int
    reason: str


@dataclass(frozen=True, slots=True)
class Ticked:
    """Time has passed; nothing else has happened."""


@dataclass(frozen=True, slots=True)
class StopAsked:
    """A person or a signal wants the federation to end."""

    reason: str


CoordinatorEvent: TypeAlias = (
    Started
    | Born
    | Died
    | Offered
    | Searched
    | Garbled
    | Completed
    | Absorbed
    | Spoiled
    | Stepped
    | StepFailed
    | Ticked
    | StopAsked
)

# --- effects ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Announce:
    """Publish this task, retained. With `begin`, first open an empty fold and journal for its round."""

    task: Task
    begin: bool = True


@dataclass(frozen=True, slots=True)
class Keep:
    """Write the piece that was just offered to the journal.

    It takes the place of whatever the journal holds of another update of this device for this round: after a restart
    only the update that was kept last may come back, for it alone can have a receipt.
    """

    device: str
    round: int
    update: bytes


@dataclass(frozen=True, slots=True)
class Search:
    """Look which chunks of the update are durable; answer with Searched when what came before is committed."""

    device: str
    round: int
    update: bytes
    question: int


@dataclass(frozen=True, slots=True)
class Absorb:
    """Decode the journaled update and give it to the rule; answer with Absorbed or Spoiled."""

    device: str
    round: int
    update: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """Send this receipt."""

    device: str
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class Finish:
    """Move the model by the fold, checkpoint, publish; answer with Stepped or StepFailed."""

    round: int
    version: int


@dataclass(frozen=True, slots=True)
class Discard:
    """Drop the fold and the journal of an abandoned round; nothing happens where they are gone already.

    A Reply that comes after this one may go out only when it is done: it may say that the round is closed.
    """

    round: int
    reason: str


@dataclass(frozen=True, slots=True)
class Tell:
    """Publish this report, retained, and log it."""

    report: Report


@dataclass(frozen=True, slots=True)
class WakeAt:
    """Raise Ticked at this time, unless a later WakeAt replaces it."""

    time: float


@dataclass(frozen=True, slots=True)
class End:
    """The federation has ended; `task` is to be published, retained, for those who come later."""

    reason: str
    task: Task


CoordinatorEffect: TypeAlias = (
    Announce | Keep | Search | Absorb | Reply | Finish | Discard | Tell | WakeAt | End
)
