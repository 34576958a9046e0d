"""The table of messages: each type's number, and its fields in wire order with their limits.

Everything else follows from it: `fedmq.wire.envelope` reads and writes along it, the tables of the specification are
printed from it, and the tests take their messages from it.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final

from fedmq.protocol.messages import (
    Beacon,
    Birth,
    Chunk,
    Facts,
    Frame,
    Manifest,
    Receipt,
    Report,
    Task,
    TaskKind,
    Update,
    Verdict,
)
from fedmq.wire import limits
from fedmq.wire.containers import Row, Struct, Table
from fedmq.wire.fields import Body, Bool, Bytes, Choice, Int, Prose, Real, SettingValue, Text

if TYPE_CHECKING:
    from collections.abc import Mapping

_ID = Bytes(8, 8)
_BLANK_ID = Bytes(8, 8, blank=True)
_SHA = Bytes(32, 32)
_NAME = Text(limits.NAME)
_LABEL = Prose(limits.NAME)
_SENTENCE = Prose(limits.SENTENCE)
_CODEC = Text(limits.SPELLING)
_COUNT = Int(0, limits.COUNT)
_NUMBER = Int(0, limits.NUMBER)
_VERSION = Int(1, limits.NUMBER)
_SECONDS = Real(0, limits.ROUND_SECONDS)
_METRICS = Table(_NAME, Real(), limits.METRICS)


def _task_flaw(task: Task) -> str:
    return (
        ""
        if task.oldest <= task.round
        else f"the oldest round taken is {task.oldest}, the open one {task.round}"
    )


def _frame_flaw(frame: Frame) -> str:
    if frame.base >= frame.version:
        return f"a frame leads from version {frame.base} back to {frame.version}"
    return (
        ""
        if frame.chunks <= frame.nbytes
        else f"{frame.chunks} chunks are announced for {frame.nbytes} bytes"
    )


def _manifest_flaw(manifest: Manifest) -> str:
    if not 1 <= sum(manifest.sizes) <= limits.PARAMETERS:
        return f"a model of {sum(manifest.sizes)} numbers; 1 to {limits.PARAMETERS} are allowed"
    if manifest.frames[0].base or manifest.frames[-1].version != manifest.version:
        return f"the frames do not lead from a key-frame to version {manifest.version}"
    if any(later.base != earlier.version for earlier, later in pairwise(manifest.frames)):
        return "a frame does not begin where the one before it ends"
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


FACTS: Final = Struct(
    Facts,
    (
        ("examples", Int(-limits.COUNT, limits.COUNT)),
        ("steps", _COUNT),
        ("metrics", _METRICS),
    ),
)
FRAME: Final = Struct(
    Frame,
    (
        ("version", _VERSION),
        ("base", _NUMBER),
        ("codec", _CODEC),
        ("nbytes", Int(1, limits.BODY_BYTES)),
        ("chunks", Int(1, limits.CHUNKS)),
        ("digest", _SHA),
        ("replica", _SHA),
    ),
    _frame_flaw,
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
            ("training", Table(_NAME, SettingValue(), limits.SETTINGS)),
        ),
        _task_flaw,
    ),
    2: Struct(
        Manifest,
        (
            ("run", _ID),
            ("version", _VERSION),
            ("layout", _ID),
            ("sizes", Row(Int(0, limits.PARAMETERS), 1, limits.VARIABLES)),
            ("frames", Row(FRAME, 1, limits.FRAMES)),
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
            ("sections", Table(_NAME, Body(0, limits.BODY_BYTES), limits.SECTIONS)),
        ),
    ),
    4: Struct(
        Chunk,
        (
            ("run", _ID),
            ("stem", _BLANK_ID),
            ("index", Int(0, limits.CHUNKS - 1)),
            ("count", Int(1, limits.CHUNKS)),
            ("total", Int(1, limits.BODY_BYTES)),
            ("digest", _SHA),
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
        ),
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
}
"""Every type of message by its number."""
