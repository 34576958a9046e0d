"""The messages that the wire's test vectors hold: one small federation from its first model to its end, and extremes.

Everything is written out, so that vectors come out the same on every machine and in every year.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, replace

from fedmq.protocol.frames import Step
from fedmq.protocol.messages import (
    Beacon,
    Birth,
    Facts,
    Frame,
    Manifest,
    Message,
    Query,
    Receipt,
    Report,
    Task,
    TaskKind,
    Update,
    Verdict,
)
from fedmq.vectors import Layout, Variable
from fedmq.wire import limits
from fedmq.wire.chunks import cut
from fedmq.wire.envelope import encode
from fedmq.wire.topics import Topics


@dataclass(frozen=True, slots=True)
class Sample:
    """A message with a name of its own; `topic` where it is part of the worked example."""

    name: str
    message: Message
    topic: str = ""
    retained: bool = False


def floats(*numbers: float) -> bytes:
    """Return the numbers as the codec ``float32`` sends them, and as a replica's digest sees them."""
    return struct.pack(f"<{len(numbers)}f", *numbers)


def digest(data: bytes) -> bytes:
    """Return the digest of a chunk's body, or of a replica."""
    return hashlib.sha256(data).digest()[:8]


RUN = bytes.fromhex("a1a2a3a4a5a6a7a8")
UPDATE_ID = bytes.fromhex("b1b2b3b4b5b6b7b8")
SALT = bytes.fromhex("c1c2c3c4c5c6c7c8c9cacbcccdcecfc0")
DEVICE = "pi-3"
TOPICS = Topics("greenhouse")
LAYOUT = Layout(
    (
        Variable("dense/kernel", (2, 2)),
        Variable("dense/bias", (2,)),
        Variable("norm/mean", (2,), "statistic"),
        Variable("user/scale", (3,), scope="personal"),
    )
)

MODEL_1 = floats(0.5, -0.25, 0.125, 1.0, 0.0, 0.0, 0.0, 0.0)
DELTA = floats(0.25, 0.25, -0.125, 0.0, 0.5, -0.5, 1.0, 2.0)
MODEL_2 = floats(0.75, 0.0, 0.0, 1.0, 0.5, -0.5, 1.0, 2.0)

KEY_FRAME = Frame("float32", "", MODEL_1)
DELTA_FRAME = Frame("float32", "", DELTA)
MANIFEST_1 = Manifest(RUN, 1, digest(MODEL_1), 1, 1)
MANIFEST_2 = Manifest(RUN, 2, digest(MODEL_2), 1, 1, (1,))
TASK = Task(
    run=RUN,
    round=1,
    oldest=1,
    kind=TaskKind.TRAIN,
    model=1,
    layout=LAYOUT.digest,
    salt=SALT,
    fraction=0.5,
    seconds=120.0,
    codec="float32",
    update_bytes=8192,
    training={"epochs": 2, "batch_size": 16, "learning_rate": 0.1},
)
UPDATE = Update(
    RUN, UPDATE_ID, 1, LAYOUT.digest, Facts(120, 16, {"accuracy": 0.75, "loss": 0.5}), {"delta": DELTA}
)
BIRTH = Birth(
    alive=True,
    session=7,
    layout=LAYOUT.digest,
    examples=120,
    trainer="numpy",
    software="fedmq 0.1.0",
    codecs=("float32",),
)
RECEIPT = Receipt(RUN, 1, UPDATE_ID, Verdict.ACCEPTED)
REPORT = Report(
    run=RUN,
    round=1,
    version=2,
    outcome="stepped",
    seconds=3.5,
    expected=1,
    received=1,
    accepted=1,
    duplicate=0,
    late=0,
    rejected=0,
    examples=120,
    bytes_up=111,
    bytes_down=32,
    metrics={"accuracy": 0.75, "loss": 0.5},
)

ROUND = (
    Sample("aggregator is there", Beacon(alive=True, run=RUN, epoch=1), TOPICS.beacon, retained=True),
    Sample(
        "first model, its only chunk",
        next(cut(encode(KEY_FRAME), RUN, b"", 100)),
        TOPICS.frame(Step(1, key=True), 0),
        retained=True,
    ),
    Sample("first model, manifest", MANIFEST_1, TOPICS.manifest, retained=True),
    Sample("device is there", BIRTH, TOPICS.status(DEVICE), retained=True),
    Sample("task of round 1", TASK, TOPICS.task, retained=True),
    Sample("update of the device", UPDATE, TOPICS.update(DEVICE, 1)),
    Sample("receipt for it", RECEIPT, TOPICS.receipt(DEVICE)),
    Sample(
        "delta to the second model, its only chunk",
        next(cut(encode(DELTA_FRAME), RUN, b"", 100)),
        TOPICS.frame(Step(2), 0),
        retained=True,
    ),
    Sample("second model, manifest", MANIFEST_2, TOPICS.manifest, retained=True),
    Sample("report of round 1", REPORT, TOPICS.report, retained=True),
    Sample(
        "the federation has ended",
        replace(TASK, round=2, oldest=2, kind=TaskKind.STOP, model=2, training={}),
        TOPICS.task,
        retained=True,
    ),
    Sample(
        "device is gone, its last will", Birth(alive=False, session=7), TOPICS.status(DEVICE), retained=True
    ),
    Sample(
        "aggregator is gone, its last will",
        Beacon(alive=False, run=RUN, epoch=1),
        TOPICS.beacon,
        retained=True,
    ),
)
"""One federation of one device and one round: the specification's worked example."""

EXTREMES = (
    Sample(
        "task with every kind of setting",
        replace(
            TASK,
            training={
                "shuffle": True,
                "early": False,
                "seed": -(2**53),
                "epochs": 2**53,
                "momentum": 0.9,
                "tiny": 5e-324,
                "optimizer": "sgd",
                "note": "über 9000 Ω 😀",
                "empty": "",
            },
        ),
    ),
    Sample(
        "task with numbers at their limits",
        replace(
            TASK,
            round=limits.NUMBER,
            oldest=limits.NUMBER,
            model=limits.NUMBER,
            fraction=1.0,
            seconds=limits.ROUND_SECONDS,
            codec="x" * limits.SPELLING,
            update_bytes=limits.BODY_BYTES,
        ),
    ),
    Sample(
        "task for nobody", replace(TASK, round=0, oldest=0, fraction=0.0, seconds=0.0, codec="", training={})
    ),
    Sample(
        "manifest of a long way",
        Manifest(
            RUN,
            300,
            digest(b"replica"),
            290,
            limits.BLOCKS,
            (1, 127, 128, 255, 256, 65_535, 65_536, *[9] * 30),
        ),
    ),
    Sample(
        "manifest with numbers behind the model",
        replace(MANIFEST_1, behind=(0, 1, 127, 128, 255, 256, 65_535, 65_536)),
    ),
    Sample(
        "frame of a version that has a key-frame", Frame("int8 | lzma", "float16 | planes", bytes(range(256)))
    ),
    Sample("frame without anything", Frame("", "", b"")),
    Sample("update without anything", Update(RUN, UPDATE_ID, 0, LAYOUT.digest, Facts(0), {})),
    Sample(
        "update that claims too much",
        Update(
            RUN,
            UPDATE_ID,
            1,
            LAYOUT.digest,
            Facts(-limits.COUNT, limits.COUNT, {"loss": -(2.0**127), "mine": 2.0**-149}),
            {"delta": b""},
        ),
    ),
    Sample(
        "update with two sections",
        Update(RUN, UPDATE_ID, 1, LAYOUT.digest, Facts(5), {"delta": bytes(range(256)), "control": bytes(3)}),
    ),
    Sample(
        "receipt that says why",
        Receipt(RUN, 1, UPDATE_ID, Verdict.REJECTED, "the update holds 12 numbers, the model 8"),
    ),
    Sample(
        "receipt for a repeat",
        Receipt(RUN, 1, UPDATE_ID, Verdict.DUPLICATE, "another update has its verdict"),
    ),
    Sample("receipt that comes too late", Receipt(RUN, 1, UPDATE_ID, Verdict.LATE, "round 1 is closed")),
    Sample(
        "receipt that asks for patience", Receipt(RUN, 1, UPDATE_ID, Verdict.RETRY, "the disk is full", 30.0)
    ),
    Sample("query for a verdict alone", Query(RUN, UPDATE_ID, 0)),
    Sample("query about an update in many chunks", Query(RUN, UPDATE_ID, limits.CHUNKS, limits.QUESTIONS)),
    Sample(
        "receipt that names the missing chunks",
        Receipt(RUN, 1, UPDATE_ID, Verdict.RETRY, missing=(2, 2, 1, 3), question=7),
    ),
    Sample(
        "receipt that wants all of them",
        Receipt(RUN, 1, UPDATE_ID, Verdict.RETRY, "too early", 5.0, (0, limits.CHUNKS)),
    ),
    Sample(
        "receipt with as many gaps as there can be",
        Receipt(RUN, 1, UPDATE_ID, Verdict.RETRY, missing=(1,) * limits.SPANS),
    ),
    Sample("birth with many codecs", replace(BIRTH, codecs=tuple(f"codec{n}" for n in range(limits.CODECS)))),
    Sample("beacon to a thousand devices", Beacon(alive=True, run=RUN, epoch=65_536, spread_s=17.0)),
    Sample("beacon before any run", Beacon(alive=False, run=b"", epoch=0)),
    Sample(
        "report of a bad round",
        replace(
            REPORT,
            version=1,
            outcome="abandoned: 1 accepted at the deadline, the quorum is 2",
            received=7,
            late=2,
            duplicate=1,
            rejected=3,
            evaluation={"accuracy": 0.25},
            reasons={"a value is not finite": 2, "other": 1},
        ),
    ),
)
