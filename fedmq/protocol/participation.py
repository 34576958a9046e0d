"""What can happen to a participant (events) and what it asks its shell to do (effects)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from fedmq.protocol.frames import Step
    from fedmq.protocol.messages import Manifest, Receipt, Task, Verdict
    from fedmq.protocol.spans import Spans


class Phase(Enum):
    """What the device is doing."""

    IDLE = "idle"
    FETCHING = "fetching"
    TRAINING = "training"
    RETIRED = "retired"


# --- events -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Connected:
    """The link is up and subscribed; or the aggregator at its other end has started anew, and may miss something."""


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The link is down."""


@dataclass(frozen=True, slots=True)
class Tasked:
    """A task arrived (retained, so possibly an old one again)."""

    task: Task


@dataclass(frozen=True, slots=True)
class Published:
    """The manifest of a model arrived (retained, likewise)."""

    manifest: Manifest


@dataclass(frozen=True, slots=True)
class Fetched:
    """The replica now is this version, and its digest is right."""

    version: int


@dataclass(frozen=True, slots=True)
class FetchFailed:
    """The model did not come; or it came, and was `wrong`: a frame is damaged, or does not lead to the digest."""

    version: int
    reason: str
    wrong: bool = False


@dataclass(frozen=True, slots=True)
class Stored:
    """Training is done, and the encoded update, of so many bytes, lies durable in the outbox."""

    round: int
    update: bytes
    nbytes: int = 0


@dataclass(frozen=True, slots=True)
class Sent:
    """What was to be sent of the update is with the broker, or was refused by it; a link that was lost ends it too."""

    update: bytes


@dataclass(frozen=True, slots=True)
class TrainingFailed:
    """The trainer raised, diverged, or the update could not be encoded."""

    round: int
    reason: str


@dataclass(frozen=True, slots=True)
class Receipted:
    """A receipt arrived."""

    receipt: Receipt


@dataclass(frozen=True, slots=True)
class Allowed:
    """So many bytes may the link still carry today; None for any number. Without this event there is no limit."""

    nbytes: int | None


@dataclass(frozen=True, slots=True)
class Paced:
    """So many seconds are to go by while all of the fleet does what it would do at once; without this event, none."""

    spread_s: float


@dataclass(frozen=True, slots=True)
class Elapsed:
    """Time has passed; nothing else has happened."""


ParticipantEvent: TypeAlias = (
    Connected
    | Disconnected
    | Tasked
    | Published
    | Fetched
    | FetchFailed
    | Stored
    | Sent
    | TrainingFailed
    | Receipted
    | Allowed
    | Paced
    | Elapsed
)

# --- effects ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fetch:
    """Get these steps' frames and take the replica to the manifest's version; where it is `fresh`, forget it first.

    Answer with Fetched or FetchFailed, however long it takes. It takes the place of any fetch under way, and ends with
    the link: then no answer follows, and the replica stays the version that it was.
    """

    manifest: Manifest
    steps: tuple[Step, ...]

    @property
    def version(self) -> int:
        """Where the steps lead."""
        return self.manifest.version

    @property
    def fresh(self) -> bool:
        """Whether they begin with a key-frame."""
        return self.steps[0].key


@dataclass(frozen=True, slots=True)
class Train:
    """Train for this task from the replica, encode, put into the outbox; answer with Stored or TrainingFailed."""

    task: Task


@dataclass(frozen=True, slots=True)
class Send:
    """Publish these chunks of the outbox's update (see `fedmq.protocol.spans`), or ask which ones are `missing`.

    It takes the place of whatever is being published of this update. Answer with Sent, unless the link is lost first. A
    short update may be sent whole instead of asked about. `question` is the number to ask with.
    """

    round: int
    update: bytes
    missing: Spans = ()
    question: int = 0


@dataclass(frozen=True, slots=True)
class Forget:
    """Take the update out of the outbox; `verdict` is None where no receipt will ever come."""

    round: int
    update: bytes
    verdict: Verdict | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Log:
    """Something the device's owner should know, in one sentence."""

    sentence: str
    serious: bool = False


@dataclass(frozen=True, slots=True)
class Wake:
    """Raise Elapsed at this time, unless a later Wake replaces it."""

    time: float


@dataclass(frozen=True, slots=True)
class Retire:
    """The federation has ended; the final model is `version`."""

    version: int


ParticipantEffect: TypeAlias = Fetch | Train | Send | Forget | Log | Wake | Retire
