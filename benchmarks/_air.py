"""What a round puts on the air for one device: whole MQTT packets, with the messages that fedmq sends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fedmq.protocol.frames import Step, blocks
from fedmq.protocol.messages import (
    DELTA,
    Chunk,
    Facts,
    Frame,
    Manifest,
    Receipt,
    Task,
    TaskKind,
    Update,
    Verdict,
)
from fedmq.wire import limits
from fedmq.wire.envelope import encode
from fedmq.wire.topics import Topics

if TYPE_CHECKING:
    from fedmq.protocol.messages import Message

_PUBACK: Final = 4
_UNSUBACK: Final = 4
_SUBACK: Final = 5
_TOPICS: Final = Topics("wards")
_DEVICE: Final = "watch-17"
_RUN: Final = bytes(range(8))
_ID: Final = bytes(range(8, 16))
_DIGEST: Final = bytes(limits.DIGEST)
_ROUND: Final = 300
_STEP: Final = Step(_ROUND)
_METRICS: Final = {"train_accuracy": 0.9171875, "train_loss": 0.27431}
"""What fedmq's trainers report of a training where a device holds no examples back."""


def up(update_bytes: int) -> int:
    """Return the bytes that a device sends in a round: its update, what asks for a frame, what acknowledges messages.

    MQTT 3.1.1, QoS 1. TCP, IP and TLS are not counted: their headers hang on the network, and on how packets are put
    together.
    """
    update = Update(_RUN, _ID, _ROUND, _DIGEST, Facts(214, 28, _METRICS), {DELTA: bytes(update_bytes)})
    wish = len(_TOPICS.frame_filter(_STEP))
    subscribe, unsubscribe = 7 + wish, 6 + wish
    return _sent(_TOPICS.update(_DEVICE, _ROUND), update) + subscribe + unsubscribe + 4 * _PUBACK


def down(frame_bytes: int, codec: str, frame_codec: str, frames: int = 20) -> int:
    """Return the bytes that come down to it: task, manifest of so many frames, one delta, receipt, acknowledgements."""
    frame = encode(Frame(frame_codec, "", bytes(frame_bytes)))
    chunk = Chunk(_RUN, b"", 0, 1, len(frame), _DIGEST, frame)
    manifest = Manifest(_RUN, _ROUND, _DIGEST, _ROUND - frames, 1000, (blocks(len(frame)),) * frames)
    return (
        _sent(_TOPICS.task, _task(codec))
        + _sent(_TOPICS.manifest, manifest)
        + _sent(_TOPICS.frame(_STEP, 0), chunk)
        + _sent(_TOPICS.receipt(_DEVICE), Receipt(_RUN, _ROUND, _ID, Verdict.ACCEPTED))
        + _PUBACK
        + _SUBACK
        + _UNSUBACK
    )


def _task(codec: str) -> Task:
    return Task(
        run=_RUN,
        round=_ROUND,
        oldest=_ROUND,
        kind=TaskKind.TRAIN,
        model=_ROUND,
        layout=_DIGEST,
        salt=bytes(16),
        fraction=1.0,
        seconds=600.0,
        codec=codec,
        update_bytes=1 << 20,
        training={"epochs": 2, "batch_size": 16, "learning_rate": 0.1},
    )


def _sent(topic: str, message: Message) -> int:
    """Return the length of a PUBLISH with QoS 1: header, remaining length, topic, packet identifier, payload."""
    rest = 2 + len(topic.encode()) + 2 + len(encode(message))
    return 1 + next(digits for digits in range(1, 5) if rest < 1 << 7 * digits) + rest
