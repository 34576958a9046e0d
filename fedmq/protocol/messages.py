"""The messages of the protocol, one frozen dataclass each, free of bytes and topics.

`fedmq.wire` turns them into bytes and back, within the limits that stand there. What a field means is said here and in
`docs/explanation/protocol.md`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum, unique
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fedmq.protocol.spans import Spans

Setting: TypeAlias = bool | int | float | str

DELTA: Final = "delta"
"""Name of the section that every update to a training task carries: the encoded weight delta."""


@unique
class TaskKind(IntEnum):
    """What a task asks for."""

    TRAIN = 1
    STOP = 2  # the federation has ended; keep the model, expect no further task


@unique
class Verdict(IntEnum):
    """What became of an update; every one that arrives gets exactly one of the first four."""

    ACCEPTED = 1
    DUPLICATE = 2
    LATE = 3
    REJECTED = 4
    RETRY = 5  # not here, or not all of it: send it again after `retry_after_s`

    @property
    def settled(self) -> bool:
        """True where the device may forget the update."""
        return self is not Verdict.RETRY


@dataclass(frozen=True, slots=True)
class Task:
    """The open round, as the aggregator offers it to the whole fleet.

    `run` names one life of the federation; round and model numbers only ever grow within it. Whether a device is in the
    cohort follows from its name, `salt` and `fraction` (see `fedmq.protocol.cohort`). `seconds` is the time from
    publication to the hard deadline, for information: no device's clock decides anything. Updates of rounds before
    `oldest` are no longer taken, so a device may forget them unsent. `training` is passed to the trainer (epochs,
    batch_size, learning_rate, …). `codec` is the pipeline's one-line spelling, `update_bytes` the most that an encoded
    update may take.
    """

    run: bytes
    round: int
    oldest: int
    kind: TaskKind
    model: int
    layout: bytes
    salt: bytes
    fraction: float
    seconds: float
    codec: str
    update_bytes: int
    training: Mapping[str, Setting] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Manifest:
    """The published model, and which frames bring a replica to it (see `fedmq.protocol.frames`).

    There stand the key-frame of version `key` and the last deltas, each from the version before it, the last of them to
    `version`. `key_blocks` and `deltas` are the frames' lengths, in blocks of 64 bytes. `replica` is the digest of the
    model of `version` as devices hold it. `behind` are the lengths of the variables that an algorithm has put behind
    the model's own, whose lengths every device knows.
    """

    run: bytes
    version: int
    replica: bytes
    key: int
    key_blocks: int
    deltas: tuple[int, ...] = ()
    behind: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Frame:
    """One encoded step towards a version: a whole model, or what separates it from the version before.

    `data` is the vector in `codec`. A delta to a version that has a key-frame names in `rounded` the key-frame's codec:
    there the replica is encoded and decoded once more, so that it is the same whichever way it came.
    """

    codec: str
    rounded: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Facts:
    """What a device claims about its update; a rule may weigh by it.

    `examples` trained on, `steps` of the optimizer taken, `metrics` by name (accuracy, loss, …: finite floats).
    """

    examples: int
    steps: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Update:
    """One device's answer to a task. `sections` holds the encoded delta and whatever an algorithm adds."""

    run: bytes
    update: bytes
    model: int
    layout: bytes
    facts: Facts
    sections: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Chunk:
    """Piece `index` of `count` of a longer body of `total` bytes; `digest` is the beginning of the body's SHA-256.

    For an update, the body is the encoded `Update` and `stem` its update id; for a model's frame the encoded `Frame`,
    and the stem is empty.
    """

    run: bytes
    stem: bytes
    index: int
    count: int
    total: int
    digest: bytes
    data: bytes


@dataclass(frozen=True, slots=True)
class Receipt:
    """The aggregator's word on one update, given only after its own commit.

    With `RETRY`, `missing` are the chunks to send (see `fedmq.protocol.spans`); where there are none, nothing is known
    but that the update has to be sent, or asked about, again. `question` is the number of the question that this
    answers; 0 where it answers none. An answer may come again, after the next question: a broker repeats what it has no
    acknowledgement for.
    """

    run: bytes
    round: int
    update: bytes
    verdict: Verdict
    reason: str = ""
    retry_after_s: float = 0.0
    missing: Spans = ()
    question: int = 0


@dataclass(frozen=True, slots=True)
class Query:
    """A device's question what has become of an update that it sent: it costs less than to send that again.

    `count` is the number of chunks into which the device cuts it; 0 where it asks for the verdict alone. `question` is
    a number that tells this question from others about the same update; 0 where no answer has to be told from others.
    """

    run: bytes
    update: bytes
    count: int
    question: int = 0


@dataclass(frozen=True, slots=True)
class Birth:
    """A device's certificate: retained while it is there, replaced by `alive=False` (its last will) when it is not.

    `session` grows with every start of the device, so that an old will cannot bury one that came back.
    """

    alive: bool
    session: int
    layout: bytes = b""
    examples: int = 0
    trainer: str = ""
    software: str = ""
    codecs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Beacon:
    """The aggregator's own certificate; `epoch` grows with every start of its process and every connection.

    `spread_s` is the time over which devices spread what all of them would do at once (see `fedmq.protocol.pacing`).
    """

    alive: bool
    run: bytes
    epoch: int
    spread_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Report:
    """One round's figures, for people and dashboards.

    `received = accepted + duplicate + late + rejected` always holds. `metrics` are the weighted means of what the
    devices reported; `evaluation` is what the aggregator's own held-out data said of the new model, where it has any.
    """

    run: bytes
    round: int
    version: int
    outcome: str
    seconds: float
    expected: int
    received: int
    accepted: int
    duplicate: int
    late: int
    rejected: int
    examples: int
    bytes_up: int
    bytes_down: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    evaluation: Mapping[str, float] = field(default_factory=dict)
    reasons: Mapping[str, int] = field(default_factory=dict)


Message: TypeAlias = Task | Manifest | Update | Chunk | Receipt | Birth | Beacon | Report | Frame | Query
