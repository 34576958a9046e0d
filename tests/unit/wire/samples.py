"""One message of each type, with every field filled, for tests that change one thing."""

from __future__ import annotations

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

RUN, LAYOUT, ID = b"run12345", b"layout__", b"update_1"

BIRTH = Birth(
    alive=True,
    session=7,
    layout=LAYOUT,
    examples=1250,
    trainer="numpy",
    software="fedmq 0.1",
    codecs=("float32", "eden(p=0.05)"),
)
BEACON = Beacon(alive=True, run=RUN, epoch=3, spread_s=17.0)
TASK = Task(
    RUN, 41, 40, TaskKind.TRAIN, 2, LAYOUT, b"salt" * 4, 0.5, 120.0, "float32", 10_000,
    {"epochs": 2, "learning_rate": 0.1, "shuffle": True, "optimizer": "sgd"},
)  # fmt: skip
MANIFEST = Manifest(RUN, 5, b"replica_", 4, 400, (60, 200, 60), (4, 2))
FRAME = Frame("int8 | zlib", "float16", bytes(range(200)))
CHUNK = Chunk(RUN, ID, 1, 2, 30, b"digest__", b"fourteen bytes")
UPDATE = Update(RUN, ID, 41, LAYOUT, Facts(1250, 200, {"accuracy": 0.5}), {"delta": bytes(range(200))})
RECEIPT = Receipt(RUN, 41, ID, Verdict.REJECTED, "the update is not finite", 0.0, (3, 1, 200, 2), 9)
QUERY = Query(RUN, ID, 12, 9)
REPORT = Report(
    RUN, 41, 3, "stepped", 61.5, 10, 11, 8, 1, 1, 1, 10_000, 120_000, 24_000,
    {"accuracy": 0.75}, {"accuracy": 0.5}, {"not finite": 1},
)  # fmt: skip
