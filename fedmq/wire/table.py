"""The table of messages: each type's number, and its fields in wire order with their limits.

Everything else follows from it: `fedmq.wire.envelope` reads and writes along it, the tables of the specification are
printed from it, and the tests take their messages from it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fedmq.protocol.messages import (
    Beacon,
    Birth,
    Chunk,
    Facts,
    Frame,
    Manifest,
    Query,
    Receipt,
    Report,
    Task,
    TaskKind,
    Update,
    Verdict,
)
from fedmq.wire import limits
from fedmq.wire.containers import Row, Struct, Table
from fedmq.wire.fields import SINGLE, Body, Bool, Bytes, Choice, Int, Name, Prose, Real, SettingValue, Text

if TYPE_CHECKING:
    from collections.abc import Mapping

_ID = Bytes(8, 8)
_BLANK_ID = Bytes(8, 8, blank=True)
_DIGEST = Bytes(limits.DIGEST, limits.DIGEST)
_NAME = Text(limits.NAME)
_LABEL = Prose(limits.NAME)
_SENTENCE = Prose(limits.SENTENCE)
_CODEC = Text(limits.SPELLING)
_COUNT = Int(0, limits.COUNT)
_NUMBER = Int(0, limits.NUMBER)
_VERSION = Int(1, limits.NUMBER)
_BLOCKS = Int(1, limits.BLOCKS)
_SECONDS = Real(0, limits.ROUND_SECONDS)
_METRICS = Table(_NAME, Real(), limits.METRICS)

METRICS: Final = ("accuracy", "loss", "held_out", "train_accuracy", "train_loss")
SETTINGS: Final = ("epochs", "batch_size", "learning_rate", "max_steps", "proximal", "algorithm")
SECTIONS: Final = ("delta",)
"""Names that travel as their place in these rows: they would be a tenth of a small update."""


def _task_flaw(task: Task) -> str:
    return (
        ""
        if task.oldest <= task.round
        else f"the oldest round taken is {task.oldest}, the open one {task.round}"
    )


def _manifest_flaw(manifest: Manifest) -> str:
    version, key, deltas = manifest.version, manifest.key, len(manifest.deltas)
    if not (0 <= version - key <= deltas < version):
        return f"{deltas} deltas do not lead from version {key}, or an earlier one, to {version}"
    if sum(manifest.behind) > limits.PARAMETERS:
        return f"{sum(manifest.behind)} numbers stand behind the model; at most {limits.PARAMETERS} may"
    return ""


def _chunk_flaw(chunk: Chunk) -> str:
    if chunk.index >= chunk.count:
        return f"chunk {chunk.index} of {chunk.count}, counted from 0"
    # Each of the other chunks holds at least one byte.
    if chunk.count - 1 + len(chunk.data) > chunk.total:
        return (
            f"{chunk.count} chunks, one with {len(chunk.data)} bytes, are announced for {chunk.total} bytes"
        )
    return ""


def _receipt_flaw(receipt: Receipt) -> str:
    if len(receipt.missing) % 2:
        return f"{len(receipt.missing)} numbers say what is missing; they come in pairs"
    if sum(receipt.missing) > limits.CHUNKS:
        return f"chunk {sum(receipt.missing) - 1} is said to be missing; there are {limits.CHUNKS} at most"
    return ""


FACTS: Final = Struct(
    Facts,
    (
        ("examples", Int(-limits.COUNT, limits.COUNT)),
        ("steps", _COUNT),
        ("metrics", Table(Name(_NAME, METRICS), SINGLE, limits.METRICS)),
    ),
)

MESSAGES: Final[Mapping[int, Struct]] = {
    1: Struct(
        Task,
        (
            ("run", _ID),
            ("round", _NUMBER),
            ("oldest", _NUMBER),
            ("kind", Choice(TaskKind)),
            ("model", _NUMBER),
            ("layout", _ID),
            ("salt", Bytes(16, 16)),
            ("fraction", Real(0, 1)),
            ("seconds", _SECONDS),
            ("codec", _CODEC),
            ("update_bytes", Int(1, limits.BODY_BYTES)),
            ("training", Table(Name(_NAME, SETTINGS), SettingValue(), limits.SETTINGS)),
        ),
        _task_flaw,
    ),
    2: Struct(
        Manifest,
        (
            ("run", _ID),
            ("version", _VERSION),
            ("replica", _DIGEST),
            ("key", _VERSION),
            ("key_blocks", _BLOCKS),
            ("deltas", Row(_BLOCKS, 0, limits.FRAMES)),
            ("behind", Row(Int(0, limits.PARAMETERS), 0, limits.VARIABLES)),
        ),
        _manifest_flaw,
    ),
    3: Struct(
        Update,
        (
            ("run", _ID),
            ("update", _ID),
            ("model", _NUMBER),
            ("layout", _ID),
            ("facts", FACTS),
            ("sections", Table(Name(_NAME, SECTIONS), Body(0, limits.BODY_BYTES), limits.SECTIONS)),
        ),
        single=True,
    ),
    4: Struct(
        Chunk,
        (
            ("run", _ID),
            ("stem", _BLANK_ID),
            ("index", Int(0, limits.CHUNKS - 1)),
            ("count", Int(1, limits.CHUNKS)),
            ("total", Int(1, limits.BODY_BYTES)),
            ("digest", _DIGEST),
            ("data", Body(1, limits.PACKET_BYTES)),
        ),
        _chunk_flaw,
    ),
    5: Struct(
        Receipt,
        (
            ("run", _ID),
            ("round", _NUMBER),
            ("update", _ID),
            ("verdict", Choice(Verdict)),
            ("reason", _SENTENCE),
            ("retry_after_s", _SECONDS),
            ("missing", Row(Int(0, limits.CHUNKS), 0, limits.SPANS)),
            ("question", Int(0, limits.QUESTIONS)),
        ),
        _receipt_flaw,
    ),
    6: Struct(
        Birth,
        (
            ("alive", Bool()),
            ("session", _NUMBER),
            ("layout", _BLANK_ID),
            ("examples", _COUNT),
            ("trainer", _LABEL),
            ("software", _LABEL),
            ("codecs", Row(_CODEC, 0, limits.CODECS)),
        ),
    ),
    7: Struct(
        Beacon,
        (
            ("alive", Bool()),
            ("run", _BLANK_ID),
            ("epoch", _NUMBER),
            ("spread_s", _SECONDS),
        ),
    ),
    8: Struct(
        Report,
        (
            ("run", _ID),
            ("round", _NUMBER),
            ("version", _NUMBER),
            ("outcome", _SENTENCE),
            ("seconds", _SECONDS),
            ("expected", _COUNT),
            ("received", _COUNT),
            ("accepted", _COUNT),
            ("duplicate", _COUNT),
            ("late", _COUNT),
            ("rejected", _COUNT),
            ("examples", Int(-limits.SUM, limits.SUM)),
            ("bytes_up", _NUMBER),
            ("bytes_down", _NUMBER),
            ("metrics", _METRICS),
            ("evaluation", _METRICS),
            ("reasons", Table(_SENTENCE, _COUNT, limits.METRICS)),
        ),
    ),
    9: Struct(
        Frame,
        (
            ("codec", _CODEC),
            ("rounded", _CODEC),
            ("data", Body(0, limits.BODY_BYTES)),
        ),
    ),
    10: Struct(
        Query,
        (
            ("run", _ID),
            ("update", _ID),
            ("count", Int(0, limits.CHUNKS)),
            ("question", Int(0, limits.QUESTIONS)),
        ),
    ),
}
"""Every type of message by its number."""
