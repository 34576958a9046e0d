"""The wire's test vectors as plain data: what `python -m tools.print_wire --vectors` writes into tests/vectors."""

from __future__ import annotations

import dataclasses
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final

import msgpack

from fedmq.protocol.cohort import in_cohort
from fedmq.protocol.messages import Chunk, Query
from fedmq.protocol.seeds import frame_seed, update_seed
from fedmq.vectors import Layout, Variable
from fedmq.wire import limits
from fedmq.wire.chunks import cut
from fedmq.wire.envelope import VERSION, encode
from fedmq.wire.table import MESSAGES
from tools.wire_samples import (
    DELTA,
    EXTREMES,
    LAYOUT,
    ROUND,
    RUN,
    SALT,
    TASK,
    UPDATE,
    UPDATE_ID,
    Sample,
    digest,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fedmq.protocol.messages import Message

NUMBERS: Final = {struct.make: number for number, struct in MESSAGES.items()}


def plain(value: Any) -> Any:  # noqa: ANN401 - whatever a message holds
    """Return a message as JSON can hold it: fields by name, bytes in hex, enumerations by number."""
    match value:
        case IntEnum():
            return int(value)
        case bytes():
            return value.hex()
        case tuple() | list():
            return [plain(entry) for entry in value]
        case dict():
            return {name: plain(entry) for name, entry in value.items()}
        case _ if dataclasses.is_dataclass(value):
            return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        case _:
            return value


# --- messages ---------------------------------------------------------------------------------------------------------


def messages() -> list[dict[str, Any]]:
    """Return every sample with its bytes; `topic` and `retained` for those of the worked example."""
    return [_message(sample) for sample in (*ROUND, *EXTREMES)]


def _message(sample: Sample) -> dict[str, Any]:
    place = {"topic": sample.topic, "retained": sample.retained} if sample.topic else {}
    return {
        "name": sample.name,
        "type": type(sample.message).__name__,
        **place,
        "message": plain(sample.message),
        "encoded": encode(sample.message).hex(),
    }


# --- other spellings --------------------------------------------------------------------------------------------------


def accepted() -> list[dict[str, Any]]:
    """Return bytes that no encoder of ours writes and every decoder must take, by the name of the message."""
    data = encode(UPDATE)
    spellings = [
        ("an integer one byte wide", b"\x01\xc4\x08" + LAYOUT.digest, b"\xcc\x01\xc4\x08" + LAYOUT.digest),
        (
            "an integer eight bytes wide",
            b"\x01\xc4\x08" + LAYOUT.digest,
            b"\xcf" + bytes(7) + b"\x01\xc4\x08" + LAYOUT.digest,
        ),
        ("a signed integer", b"\x01\xc4\x08" + LAYOUT.digest, b"\xd1\x00\x01\xc4\x08" + LAYOUT.digest),
        ("bytes with a wide length", b"\xc4\x20", b"\xc6\x00\x00\x00\x20"),
        ("a name in full", b"\x81\x00\xc4", b"\x81\xa5delta\xc4"),
        ("text with a wide length", b"\x81\x00\xc4", b"\x81\xda\x00\x05delta\xc4"),
        ("a number of a name with a wide length", b"\x81\x00\xc4", b"\x81\xcd\x00\x00\xc4"),
        ("a map with a wide count", b"\x81\x00\xc4", b"\xdf\x00\x00\x00\x01\x00\xc4"),
        ("an array with a wide count", b"\x93\x78\x10", b"\xdc\x00\x03\x78\x10"),
        ("floats of 64 bits", b"\xca\x3f\x00\x00\x00", b"\xcb\x3f\xe0" + bytes(6)),
    ]
    rows = [("update of the device", how, data.replace(short, long)) for how, short, long in spellings]
    rows.append(("task of round 1", "a float where an integer would do", _with(TASK, seconds=120.0)))
    return [{"message": name, "how": how, "encoded": encoded.hex()} for name, how, encoded in rows]


# --- what must be refused ---------------------------------------------------------------------------------------------


def _with(message: Message, **changes: object) -> bytes:
    """Return a message's bytes with raw values in place of some fields."""
    number = NUMBERS[type(message)]
    names = [name for name, _ in MESSAGES[number].fields]
    fields = dict(zip(names, MESSAGES[number].write(message), strict=True)) | changes
    return bytes(msgpack.packb([VERSION, number, *fields.values()]))


def invalid() -> list[dict[str, str]]:
    """Return bytes that every decoder must refuse when it expects a message of `type`."""
    return [
        {"why": why, "type": kind, "encoded": data.hex()}
        for why, kind, data in (*_broken(), *_beyond(), *_at_odds())
    ]


def _broken() -> Iterator[tuple[str, str, bytes]]:
    data, empty = encode(UPDATE), _with(UPDATE, sections={})
    yield "nothing", "Update", b""
    yield "no array", "Update", b"\xc0"
    yield "JSON", "Update", b'{"run": 1}'
    yield "another version of the protocol", "Update", b"\x98\x02" + data[2:]
    yield "a type that is not there", "Update", b"\x98\x01\x63" + data[3:]
    yield "another type than the topic's", "Update", encode(TASK)
    yield "a head in a longer form", "Update", b"\xdc\x00\x08" + data[1:]
    yield "one field less", "Update", b"\x97" + empty[1:-1]
    yield "one field more", "Update", b"\x99" + data[1:] + b"\xc0"
    yield "the last byte missing", "Update", data[:-1]
    yield "a byte left over", "Update", data + b"\x00"
    yield "two messages", "Update", data + data
    yield "more bytes announced than there are", "Update", data.replace(b"\xc4\x20", b"\xc4\x21")
    yield "four gibibytes announced", "Update", data[:3] + b"\xc6\xff\xff\xff\xff"
    yield "a map of four billion", "Update", empty[:-1] + b"\xdf\xff\xff\xff\xff"
    yield "an array where bytes belong, and deep", "Update", data[:3] + b"\x91" * 2000 + b"\xc0"
    yield "an extension", "Update", _with(UPDATE, model=msgpack.ExtType(1, b"\x01"))
    yield "nil", "Update", _with(UPDATE, model=None)
    yield "the unused code c1", "Update", data[:3] + b"\xc1" + data[4:]
    yield "a name twice", "Update", data.replace(b"\x81\x00\xc4", b"\x82\xa5delta\xc4\x00\x00\xc4")
    yield "a name that is bytes", "Update", _with(UPDATE, sections={b"delta": DELTA})
    yield "text that is not UTF-8", "Task", encode(TASK).replace(b"\xa7float32", b"\xa7floa\xff32")
    yield "a surrogate in UTF-8", "Task", encode(TASK).replace(b"\xa7float32", b"\xa7flo\xed\xa0\x80t")
    yield "a null in text", "Task", encode(TASK).replace(b"\xa7float32", b"\xa7float\x002")
    yield "a line break in text", "Task", encode(TASK).replace(b"\xa7float32", b"\xa7float\n2")


def _beyond() -> Iterator[tuple[str, str, bytes]]:
    yield "a truth value as a number", "Update", _with(UPDATE, model=True)
    yield "a float as a number", "Update", _with(UPDATE, model=1.0)
    yield "a number as a truth value", "Beacon", _with(ROUND[0].message, alive=1)
    yield "text as bytes", "Update", _with(UPDATE, run="a1a2a3a4")
    yield "a negative number", "Update", _with(UPDATE, model=-1)
    yield "a number beyond 2^48", "Update", _with(UPDATE, model=2**48 + 1)
    yield "a number of 64 bits", "Update", _with(UPDATE, model=2**64 - 1)
    yield "not a number", "Update", _with(UPDATE, facts=[120, 16, {"loss": float("nan")}])
    yield "infinity", "Update", _with(UPDATE, facts=[120, 16, {"loss": float("inf")}])
    yield "a fraction above 1", "Task", _with(TASK, fraction=1.5)
    yield "a run of seven bytes", "Update", _with(UPDATE, run=RUN[:7])
    yield "a stem of four bytes", "Chunk", _with(next(cut(DELTA, RUN, b"", 100)), stem=b"abcd")
    yield "nine sections", "Update", _with(UPDATE, sections={f"section{n}": b"" for n in range(9)})
    yield "a name of 65 bytes", "Update", _with(UPDATE, sections={"x" * 65: b""})
    yield "a name of 33 letters and 66 bytes", "Update", _with(UPDATE, sections={"é" * 33: b""})
    yield "a number that names nothing", "Update", _with(UPDATE, sections={1: DELTA})
    yield "a number below all names", "Update", _with(UPDATE, sections={-1: DELTA})
    yield "a metric beyond 32 bits", "Update", _with(UPDATE, facts=[1, 1, {"loss": 1e39}])
    yield "33 metrics", "Update", _with(UPDATE, facts=[1, 1, {f"metric{n}": 0.5 for n in range(33)}])
    yield "a verdict that is not there", "Receipt", _with(ROUND[6].message, verdict=6)
    yield (
        "chunks beyond the last one there can be",
        "Query",
        _with(Query(RUN, UPDATE_ID, 1), count=limits.CHUNKS + 1),
    )
    yield (
        "more gaps than a receipt names",
        "Receipt",
        _with(ROUND[6].message, missing=[1] * (limits.SPANS + 2)),
    )
    yield "a setting that is a list", "Task", _with(TASK, training={"layers": [1, 2]})
    yield "a setting beyond 2^53", "Task", _with(TASK, training={"epochs": 2**53 + 1})


def _at_odds() -> Iterator[tuple[str, str, bytes]]:
    manifest, chunk = ROUND[8].message, next(cut(DELTA, RUN, b"", 20))
    yield "an oldest round after the open one", "Task", _with(TASK, oldest=2)
    yield "more than 2^29 numbers behind the model", "Manifest", _with(manifest, behind=[2**29, 1])
    yield "a key-frame after the model", "Manifest", _with(manifest, key=3)
    yield "no delta from the key-frame to the model", "Manifest", _with(manifest, deltas=[])
    yield "a delta to the first model", "Manifest", _with(manifest, deltas=[1, 1])
    yield "a delta of no bytes", "Manifest", _with(manifest, deltas=[0])
    yield "a chunk whose index is its count", "Chunk", _with(chunk, index=2)
    yield "a gap without an end", "Receipt", _with(ROUND[6].message, missing=[0, 1, 2])
    yield "a gap beyond the last chunk", "Receipt", _with(ROUND[6].message, missing=[1, limits.CHUNKS])
    yield "a chunk longer than its body", "Chunk", _with(chunk, total=16)


# --- derived numbers --------------------------------------------------------------------------------------------------


def cohort() -> list[dict[str, Any]]:
    """Return who is in and who is not, at fractions from nobody to everybody."""
    devices = ("pi-3", "pi-4", "watch.0017", "A", "x" * 64)
    cases = [
        (salt, fraction, device)
        for salt in (SALT, bytes(16))
        for fraction in (0.1, 0.5, 0.9)
        for device in devices
    ]
    cases += [(SALT, fraction, "pi-3") for fraction in (0.0, 5e-324, 1 / 3, 1.0)]
    return [
        {"salt": salt.hex(), "fraction": fraction, "device": device, "in": in_cohort(device, salt, fraction)}
        for salt, fraction, device in cases
    ]


def seeds() -> dict[str, list[dict[str, Any]]]:
    """Return seeds of random codec stages, in hex: they are numbers of 64 bits."""
    updates = [(RUN, 1, UPDATE_ID), (bytes(8), 0, bytes(8)), (RUN, 2**48, UPDATE_ID)]
    frames = [(RUN, 1), (RUN, 2), (bytes(8), 2**48)]
    return {
        "update": [
            {
                "run": run.hex(),
                "round": number,
                "update": update.hex(),
                "seed": f"{update_seed(run, number, update):016x}",
            }
            for run, number, update in updates
        ],
        "frame": [
            {"run": run.hex(), "version": version, "seed": f"{frame_seed(run, version):016x}"}
            for run, version in frames
        ],
    }


def layouts() -> list[dict[str, Any]]:
    """Return models with their digests."""
    others = (
        Layout((Variable("weight", ()),)),
        Layout((Variable("layer/größe", (3, 3, 1, 8)), Variable("mean", (8,), "statistic"))),
        Layout((Variable("a", (2,)), Variable("b", (3,)))),
        Layout((Variable("b", (3,)), Variable("a", (2,)))),
    )
    return [
        {
            "variables": [plain(variable) for variable in layout.variables],
            "sizes": list(layout.sizes),
            "digest": layout.digest.hex(),
        }
        for layout in (LAYOUT, *others)
    ]


def chunks() -> list[dict[str, Any]]:
    """Return bodies cut into chunks, and chunks that must not be taken for parts of them."""
    update, long = encode(UPDATE), bytes(range(256)) * 3
    return [
        _cut("an update in chunks of 50", update, UPDATE_ID, 50),
        _cut("an update in one chunk", update, UPDATE_ID, 1000),
        _cut("a model frame in chunks of 300", long, b"", 300),
        _cut("a body of one byte", b"\x00", b"", 1),
    ]


def _cut(name: str, body: bytes, stem: bytes, room: int) -> dict[str, Any]:
    pieces = list(cut(body, RUN, stem, room))
    strangers: list[tuple[str, Callable[[Chunk], Chunk]]] = [
        ("another run", lambda piece: dataclasses.replace(piece, run=bytes(8))),
        ("another stem", lambda piece: dataclasses.replace(piece, stem=bytes(8))),
        ("another digest", lambda piece: dataclasses.replace(piece, digest=digest(b""))),
        ("another total", lambda piece: dataclasses.replace(piece, total=piece.total + 1)),
    ]
    return {
        "name": name,
        "run": RUN.hex(),
        "stem": stem.hex(),
        "body": body.hex(),
        "room": room,
        "chunks": [encode(piece).hex() for piece in pieces],
        "strangers": [{"why": why, "encoded": encode(change(pieces[0])).hex()} for why, change in strangers],
    }


FILES: Final[dict[str, Callable[[], Any]]] = {
    "messages.json": messages,
    "accepted.json": accepted,
    "invalid.json": invalid,
    "cohort.json": cohort,
    "seeds.json": seeds,
    "layout.json": layouts,
    "chunks.json": chunks,
}
"""What stands in each file of tests/vectors that is the wire's."""
