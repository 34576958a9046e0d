"""Messages to bytes and back: every type, at its limits, and against bytes that mean harm."""

from __future__ import annotations

import dataclasses
import struct
import tracemalloc
from typing import TYPE_CHECKING, Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmq.errors import MessageError, MisuseError
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
    Update,
    Verdict,
)
from fedmq.wire import limits
from fedmq.wire.containers import Struct
from fedmq.wire.envelope import VERSION, decode, encode, front, head, longest, skim
from fedmq.wire.table import FACTS, MESSAGES
from tests.unit.wire.mutations import mutants
from tests.unit.wire.samples import (
    BEACON,
    BIRTH,
    CHUNK,
    MANIFEST,
    RECEIPT,
    REPORT,
    TASK,
    UPDATE,
)
from tests.unit.wire.strategies import messages

if TYPE_CHECKING:
    from fedmq.protocol.messages import Message

NUMBERS = sorted(MESSAGES)
few = settings(max_examples=25)  # of each type; the slow suite tries millions
each_type = pytest.mark.parametrize("number", NUMBERS, ids=lambda number: MESSAGES[number].make.__name__)


def packed(message: Message, **changes: object) -> bytes:
    """Return the message with raw values in place of some fields, unchecked."""
    number = next(number for number, fields in MESSAGES.items() if fields.make is type(message))
    fields = MESSAGES[number]
    plain = dict(zip((name for name, _ in fields.fields), fields.write(message), strict=True))
    return bytes(msgpack.packb([VERSION, number, *(plain | changes).values()]))


def changed(message: Message, **changes: object) -> Any:  # noqa: ANN401 - may be of any type by then
    """Return the message with some fields replaced, by anything."""
    return dataclasses.replace(message, **changes)  # type: ignore[arg-type]


# --- round trips ------------------------------------------------------------------------------------------------------


@each_type
@few
@given(data=st.data())
def test_what_is_encoded_is_decoded_here_and_elsewhere(number: int, data: st.DataObject) -> None:
    message = data.draw(messages(number))
    encoded = encode(message)
    assert decode(encoded, type(message)) == message
    assert skim(encoded, type(message)) == message
    version, found, *fields = msgpack.unpackb(encoded, strict_map_key=False)
    assert (version, found) == (VERSION, number)
    assert fields == MESSAGES[number].write(message)


@pytest.mark.parametrize("fields", [*MESSAGES.values(), FACTS], ids=lambda fields: fields.make.__name__)
def test_the_table_names_every_field_in_order(fields: Struct) -> None:
    assert [name for name, _ in fields.fields] == [field.name for field in dataclasses.fields(fields.make)]


def test_skimming_leaves_long_fields_where_they_are() -> None:
    data = encode(UPDATE)
    (section,) = skim(data, Update).sections.values()
    assert isinstance(section, memoryview)
    assert section.obj is data
    assert isinstance(skim(encode(CHUNK), Chunk).data, memoryview)
    assert isinstance(skim(data, Update).run, bytes)
    assert all(isinstance(whole, bytes) for whole in decode(data, Update).sections.values())


@pytest.mark.parametrize("kept", range(40))
def test_a_front_is_read_of_whatever_holds_it(kept: int) -> None:
    data = encode(UPDATE)
    whole = [UPDATE.run, UPDATE.update, UPDATE.model, UPDATE.layout]
    needed = len(head(3)) + len(msgpack.packb(whole)) - 1
    assert front(data[:kept], Update, 4) == (whole if kept >= needed else None)


def test_a_front_is_of_the_type_and_within_limits() -> None:
    assert front(encode(CHUNK), Update, 4) is None
    assert front(packed(UPDATE, run=b"short"), Update, 4) is None
    assert front(packed(UPDATE, facts="the rest is not looked at"), Update, 4) is not None


def test_the_first_bytes_name_the_type() -> None:
    assert head(3).hex() == "980103"  # an array of 8, version 1, type 3
    assert head(8).hex() == "dc00130108"  # 19 entries take the longer form
    assert encode(UPDATE).startswith(head(3))


# --- what other writers may do ----------------------------------------------------------------------------------------

wider = pytest.mark.parametrize(
    ("narrow", "wide"),
    [
        (b"\x29\xc4\x08layout__", b"\xcc\x29\xc4\x08layout__"),
        (b"\x29\xc4\x08layout__", b"\xcd\x00\x29\xc5\x00\x08layout__"),
        (b"\x29\xc4\x08layout__", b"\xce\x00\x00\x00\x29\xc6\x00\x00\x00\x08layout__"),
        (b"\x29\xc4\x08layout__", b"\xcf" + bytes(7) + b"\x29\xc4\x08layout__"),
        (b"\x29\xc4\x08layout__", b"\xd0\x29\xc4\x08layout__"),
        (b"\x29\xc4\x08layout__", b"\xd3" + bytes(7) + b"\x29\xc4\x08layout__"),
        (b"\x81\x00\xc4", b"\xde\x00\x01\xd9\x05delta\xc4"),
        (b"\x81\x00\xc4", b"\xdf\x00\x00\x00\x01\xda\x00\x05delta\xc4"),
        (b"\x81\x00\xc4", b"\x81\xdb\x00\x00\x00\x05delta\xc4"),
        (b"\x81\x00\xc4", b"\x81\xd1\x00\x00\xc4"),
        (b"\x93\xcd\x04\xe2", b"\xdc\x00\x03\xcd\x04\xe2"),
        (b"\x93\xcd\x04\xe2", b"\xdd\x00\x00\x00\x03\xcd\x04\xe2"),
        (b"\xca" + struct.pack(">f", 0.5), b"\xcb" + struct.pack(">d", 0.5)),
    ],
)


@wider
def test_takes_longer_forms_of_the_same_values(narrow: bytes, wide: bytes) -> None:
    data = encode(UPDATE)
    assert data.count(narrow) == 1
    assert decode(data.replace(narrow, wide), Update) == UPDATE


def test_takes_a_whole_number_where_a_float_belongs() -> None:
    task = decode(packed(TASK, fraction=1, seconds=90), Task)
    assert (task.fraction, task.seconds) == (1.0, 90.0)
    assert (type(task.fraction), type(task.seconds)) == (float, float)


def test_takes_the_entries_of_a_map_in_any_order() -> None:
    facts = [5, 1, {"loss": 0.5, "accuracy": 0.25}]
    assert decode(packed(UPDATE, facts=facts), Update).facts.metrics == {"accuracy": 0.25, "loss": 0.5}


# --- the head ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "not a fedmq message"),
        (b"\x98", "not a fedmq message"),
        (b"\x98\x01", "not a fedmq message"),
        (b"\xdc\x00", "not a fedmq message"),
        (b"\xc0", "not a fedmq message"),
        (b"hello", "not a fedmq message"),
        (b'{"run": 1}', "not a fedmq message"),
        (b"\x98\x02\x03" + bytes(6), "protocol version 2 is not understood; this is version 1"),
        (b"\x98\x01\x63" + bytes(6), "message type 99 is unknown"),
        (b"\x98\x01\xff" + bytes(6), "message type 255 is unknown"),
        (encode(RECEIPT), "a Receipt instead of a Update"),
        (b"\x99" + encode(UPDATE)[1:] + b"\x00", "a head of 99 instead of 98"),
        (b"\x97" + encode(UPDATE)[1:], "a head of 97 instead of 98"),
        (b"\xdc\x00\x08" + encode(UPDATE)[1:], "a head of dc0008 instead of 98"),
        (b"\x98\xcc\x01\x03" + encode(UPDATE)[3:], "protocol version 204"),
    ],
)
def test_refuses_another_head(data: bytes, sentence: str) -> None:
    with pytest.raises(MessageError, match=sentence):
        decode(data, Update)


@each_type
def test_a_message_of_one_type_is_no_other(number: int) -> None:
    for other in NUMBERS:
        if other != number:
            with pytest.raises(MessageError, match=r"^a [A-Z][a-z]+ instead of a [A-Z][a-z]+$"):
                decode(head(other) + bytes(100), MESSAGES[number].make)


@pytest.mark.parametrize(
    "number", [number for number in NUMBERS if MESSAGES[number].make not in {Update, Frame}]
)
def test_refuses_more_bytes_than_the_type_can_have(number: int) -> None:
    with pytest.raises(MessageError, match="at most"):
        decode(head(number) + bytes(longest(number)), MESSAGES[number].make)


def test_only_updates_frames_and_chunks_can_be_long() -> None:
    sizes = {MESSAGES[number].make: longest(number) for number in NUMBERS}
    assert sizes.pop(Update) == limits.BODY_BYTES
    assert sizes.pop(Frame) == limits.BODY_BYTES
    assert limits.PACKET_BYTES < sizes.pop(Chunk) < limits.PACKET_BYTES + 200
    assert max(sizes.values()) < 400_000


# --- the end ----------------------------------------------------------------------------------------------------------


@each_type
@few
@given(data=st.data())
def test_refuses_every_shorter_and_every_longer_message(number: int, data: st.DataObject) -> None:
    message = data.draw(messages(number))
    whole = encode(message)
    cut = data.draw(st.integers(0, len(whole) - 1))
    for wrong in (whole[:cut], whole + whole[cut:], whole + b"\x00"):
        with pytest.raises(MessageError):
            decode(wrong, type(message))


@pytest.mark.parametrize("message", [BIRTH, BEACON, TASK, MANIFEST, CHUNK, UPDATE, RECEIPT, REPORT])
def test_refuses_every_prefix(message: Message) -> None:
    whole = encode(message)
    for cut in range(len(whole)):
        with pytest.raises(MessageError):
            decode(whole[:cut], type(message))


# --- hostile bytes ----------------------------------------------------------------------------------------------------


@each_type
@given(data=st.binary(max_size=200))
def test_any_bytes_are_a_message_or_refused(number: int, data: bytes) -> None:
    for candidate in (data, head(number) + data):
        taken_or_refused(candidate, MESSAGES[number].make)


@each_type
@few
@given(data=st.data())
def test_any_mutant_is_a_message_or_refused(number: int, data: st.DataObject) -> None:
    whole = encode(data.draw(messages(number)))
    taken_or_refused(data.draw(mutants(whole)), MESSAGES[number].make)


def taken_or_refused(data: bytes, kind: type) -> None:
    """Hold decode to its word: MessageError, or a message that can be sent on as it is. And skim to the same."""
    try:
        message: Message = decode(data, kind)
    except MessageError as error:
        sentence = str(error)
        assert 0 < len(sentence) < 500
        assert sentence.isprintable()
        with pytest.raises(MessageError) as caught:
            skim(data, kind)
        assert str(caught.value) == sentence
    else:
        assert skim(data, kind) == message
        assert decode(encode(message), kind) == message


UPDATE_DATA = encode(UPDATE)
TASK_DATA = encode(TASK)


def deep(depth: int) -> bytes:
    return b"\x91" * depth + b"\xc0"


@pytest.mark.parametrize(
    ("data", "kind", "sentence"),
    [
        # What is not of the field's type.
        (packed(UPDATE, model=True), Update, "model: a truth value instead of an integer"),
        (packed(UPDATE, model=1.0), Update, "model: a float instead of an integer"),
        (packed(UPDATE, model=None), Update, "model: nil instead of an integer"),
        (packed(UPDATE, model="1"), Update, "model: text instead of an integer"),
        (packed(UPDATE, run="run12345"), Update, "run: text instead of bytes"),
        (packed(UPDATE, run=[1] * 8), Update, "run: an array instead of bytes"),
        (packed(UPDATE, sections={b"delta": b""}), Update, "sections: bytes instead of text"),
        (
            packed(UPDATE, sections={1: b""}),
            Update,
            "sections: 1 instead of str, at most 64; or int: 0 delta",
        ),
        (packed(UPDATE, sections={-1: b""}), Update, "sections: -1 instead of str"),
        (packed(UPDATE, sections={0.0: b""}), Update, "sections: a float instead of text"),
        (packed(UPDATE, sections=[["delta", b""]]), Update, "sections: an array instead of a map"),
        (packed(UPDATE, facts={}), Update, "facts: a map instead of an array"),
        (packed(UPDATE, facts=[1, 1]), Update, "facts: an array of 2 instead of Facts, array of 3"),
        (packed(UPDATE, facts=[1, 1, {}, 1]), Update, "facts: an array of 4"),
        (packed(UPDATE, facts=[1, 1, {"loss": "0.5"}]), Update, "facts: metrics: text instead of an integer"),
        (packed(BEACON, alive=1), Beacon, "alive: an integer instead of a truth value"),
        (packed(BEACON, alive=None), Beacon, "alive: nil"),
        (packed(TASK, training={"epochs": None}), Task, "training: nil instead of an integer"),
        (packed(TASK, training={"epochs": [1]}), Task, "training: an array instead of an integer"),
        (packed(TASK, training={"epochs": b"1"}), Task, "training: bytes instead of an integer"),
        (packed(UPDATE, model=msgpack.ExtType(1, b"\x01")), Update, "model: an extension"),
        (packed(UPDATE, run=msgpack.ExtType(1, b"runrunru")), Update, "run: an extension instead of bytes"),
        (packed(UPDATE, facts=msgpack.Timestamp(1)), Update, "facts: an extension instead of an array"),
        # Numbers out of bounds.
        (packed(UPDATE, model=-1), Update, "model: -1 instead of int, 0 to 2\\^48"),
        (packed(UPDATE, model=2**64 - 1), Update, "model: 18446744073709551615 instead of"),
        (packed(UPDATE, facts=[-(2**63), 0, {}]), Update, "facts: examples: -9223372036854775808 instead of"),
        (
            packed(UPDATE, facts=[1, 1, {"loss": float("nan")}]),
            Update,
            "metrics: nan instead of float, finite",
        ),
        (packed(UPDATE, facts=[1, 1, {"loss": float("inf")}]), Update, "metrics: inf instead of"),
        (packed(UPDATE, facts=[1, 1, {"loss": float("-inf")}]), Update, "metrics: -inf instead of"),
        (packed(TASK, fraction=float("nan")), Task, "fraction: nan instead of float, 0 to 1"),
        (packed(TASK, fraction=1.0000001), Task, "fraction: 1 instead of"),
        (packed(TASK, training={"rate": float("nan")}), Task, "training: nan"),
        (packed(TASK, training={"epochs": 2**53 + 1}), Task, "training: 9007199254740993 instead of"),
        (packed(TASK, kind=3), Task, "kind: 3 instead of int: 1 train, 2 stop"),
        (packed(TASK, kind=True), Task, "kind: a truth value"),
        # Text that is none.
        (packed(TASK, codec=b"\xff"), Task, "codec: bytes instead of text"),
        (TASK_DATA.replace(b"\xa7float32", b"\xa7floa\xff32"), Task, "codec: text that is not UTF-8"),
        (TASK_DATA.replace(b"\xa7float32", b"\xa7flo\xed\xa0\x80t"), Task, "codec: text that is not UTF-8"),
        (TASK_DATA.replace(b"\xa7float32", b"\xa7floa\xc0\x8032"[:9]), Task, "codec: text"),
        (packed(TASK, codec="float\x0032"), Task, "codec: text with a control character"),
        (packed(RECEIPT, reason="ok\nERROR all is lost"), Receipt, "reason: text with a control character"),
        (packed(RECEIPT, reason="\x1b[2J"), Receipt, "reason: text with a control character"),
        (packed(RECEIPT, reason="\x9b2J"), Receipt, "reason: text with a control character"),
        # Maps that say a thing twice.
        (
            UPDATE_DATA.replace(b"\x81\x00\xc4", b"\x82\xa5delta\xc4\x00\x00\xc4"),
            Update,
            "a map that has a name twice",
        ),
        # Lengths that the bytes do not keep.
        (
            UPDATE_DATA[:3] + b"\xc6\xff\xff\xff\xff",
            Update,
            "run: 4294967295 bytes where|run: \\d+ bytes are missing",
        ),
        (UPDATE_DATA[:3] + b"\xc5\xff", Update, "end in the middle"),
        (packed(UPDATE, facts=[])[:-200] + b"\xdd\xff\xff\xff\xff", Update, "."),
        (
            packed(MANIFEST, behind=[])[:-1] + b"\xdd\xff\xff\xff\xff",
            Manifest,
            "behind: an array of 4294967295 instead of array of",
        ),
        (packed(MANIFEST, behind=[])[:-1] + b"\xdc\x27\x10", Manifest, "end in the middle"),
        (
            packed(UPDATE, sections={})[:-1] + b"\xdf\xff\xff\xff\xff",
            Update,
            "sections: a map of 4294967295 instead of map",
        ),
        (packed(TASK, codec="")[:-40] + b"\xdb\xff\xff\xff\xff", Task, "."),
        (
            packed(UPDATE, sections={})[:-1] + b"\x81\xdb\xff\xff\xff\xff",
            Update,
            "sections: \\d+ bytes are missing at the end",
        ),
        # Depth.
        (UPDATE_DATA[:3] + deep(100_000), Update, "run: an array instead of bytes"),
        (packed(UPDATE, sections={})[:-1] + deep(100_000), Update, "sections: an array instead of a map"),
        (
            packed(UPDATE, sections={})[:-1] + b"\x81\xa1a" * 100_000,
            Update,
            "sections: a map instead of bytes",
        ),
        # The code that msgpack never uses.
        (UPDATE_DATA[:3] + b"\xc1" * 100, Update, "run: an unused code instead of bytes"),
    ],
)
def test_refuses_hostile_bytes(data: bytes, kind: type, sentence: str) -> None:
    with pytest.raises(MessageError, match=sentence):
        decode(data, kind)


def nested(nbytes: int) -> bytes:
    """Return about so many bytes of empty maps in arrays of eight: each byte would cost an object of 64."""
    data = b"\x80"
    while len(data) < nbytes:
        data = b"\x98" + data * 8
    return data


@pytest.mark.parametrize(
    "data",
    [
        nested(2_000_000),
        head(3) + nested(2_000_000),
        packed(UPDATE, sections={})[:-1] + b"\x81\xa1a" + nested(2_000_000),
        packed(UPDATE, sections={})[:-1] + b"\x81\xa1a\xc6\x7f\xff\xff\xff",
        packed(MANIFEST, behind=[])[:-1] + b"\xdc\x27\x10" * 1000 + bytes(200_000),
        packed(MANIFEST, behind=[])[:-1] + b"\xdc\x27\x10" + b"\xdc\x27\x10" * 100_000,
    ],
    ids=["tree", "tree in head", "tree in section", "huge section", "rows", "rows in rows"],
)
@pytest.mark.parametrize("kind", [Update, Manifest])
def test_hostile_bytes_cost_no_memory(data: bytes, kind: type) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(MessageError):
            decode(data, kind)
        assert tracemalloc.get_traced_memory()[1] < 300_000
    finally:
        tracemalloc.stop()


# --- fields that contradict each other --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "kind", "sentence"),
    [
        (packed(TASK, oldest=42), Task, "the oldest round taken is 42, the open one 41"),
        (packed(MANIFEST, behind=[2**29, 1]), Manifest, "536870913 numbers stand behind the model; at most"),
        (
            packed(MANIFEST, version=3),
            Manifest,
            "3 deltas do not lead from version 4, or an earlier one, to 3",
        ),
        (packed(MANIFEST, key=6), Manifest, "3 deltas do not lead from version 6"),
        (packed(MANIFEST, key=1), Manifest, "3 deltas do not lead from version 1"),
        (
            packed(MANIFEST, deltas=[]),
            Manifest,
            "0 deltas do not lead from version 4, or an earlier one, to 5",
        ),
        (packed(MANIFEST, deltas=[1] * 5), Manifest, "5 deltas do not lead"),
        (packed(MANIFEST, deltas=[0]), Manifest, "deltas: 0 instead of int, 1 to"),
        (packed(CHUNK, index=1, count=1), Chunk, "chunk 1 of 1, counted from 0"),
        (
            packed(CHUNK, total=len(CHUNK.data)),
            Chunk,
            "2 chunks, one with 14 bytes, are announced for 14 bytes",
        ),
    ],
)
def test_refuses_contradictions(data: bytes, kind: type, sentence: str) -> None:
    with pytest.raises(MessageError, match=sentence):
        decode(data, kind)


WRONG: dict[str, Any] = {"text": {"loss": "0.5"}, "key": {5: 1.0}, "pairs": [("loss", 0.5)]}

# --- encoding ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        (
            dataclasses.replace(UPDATE, model=-1),
            "Update cannot be sent: model: int -1 instead of int, 0 to 2\\^48",
        ),
        (changed(UPDATE, model=10**400), "model: a huge int"),
        (changed(UPDATE, model=True), "model: a huge bool|model: bool True"),
        (changed(UPDATE, model=1.0), "model: float 1 instead of"),
        (changed(UPDATE, run=b"short"), "run: bytes of 5 instead of bin, 8"),
        (changed(UPDATE, run=bytearray(8)), "run: bytearray instead of"),
        (changed(UPDATE, run="run12345"), "run: str of 8 instead of"),
        (changed(UPDATE, facts=[1, 1, {}]), "facts: list of 3 instead of Facts"),
        (
            dataclasses.replace(UPDATE, facts=Facts(1, 1, {"loss": float("nan")})),
            "facts: metrics: float nan instead of",
        ),
        (
            dataclasses.replace(UPDATE, facts=Facts(1, 1, {"loss": float("inf")})),
            "metrics: float inf instead of",
        ),
        (changed(UPDATE, facts=Facts(1, 1, {"loss": True})), "metrics: bool True instead of"),
        (changed(UPDATE, facts=Facts(1, 1, WRONG["text"])), "metrics: str of 3 instead of"),
        (changed(UPDATE, facts=Facts(1, 1, {"loss": 10**400})), "metrics: a huge int instead of"),
        (changed(UPDATE, facts=Facts(1, 1, {"l\n": 1.0})), "metrics: str of 2 instead of"),
        (changed(UPDATE, facts=Facts(1, 1, {"é\x85": 1.0})), "metrics: str of 2 instead of"),
        (changed(UPDATE, facts=Facts(1, 1, {"\ud800": 1.0})), "metrics: str of 1 instead of"),
        (changed(UPDATE, facts=Facts(1, 1, WRONG["key"])), "metrics: int 5 instead of"),
        (
            dataclasses.replace(UPDATE, facts=Facts(1, 1, WRONG["pairs"])),
            "metrics: list of 1 instead of map",
        ),
        (changed(UPDATE, sections=None), "sections: NoneType instead of"),
        (changed(TASK, kind=1), "kind: int 1 instead of"),
        (changed(TASK, kind=Verdict.ACCEPTED), "kind: Verdict 1 instead of"),
        (changed(TASK, codec="x" * 201), "codec: str of 201 instead of str, at most 200"),
        (changed(TASK, training={"epochs": None}), "training: NoneType instead of bool or int"),
        (changed(TASK, training={"epochs": Verdict.LATE}), "training: Verdict 3 instead of"),
        (changed(TASK, training={"rate": float("nan")}), "training: float nan instead of"),
        (changed(TASK, oldest=42), "Task cannot be sent: the oldest round"),
        (changed(CHUNK, data=b""), "data: bytes of 0 instead of"),
        (changed(RECEIPT, reason=b"no"), "reason: bytes of 2 instead of"),
        (changed(BEACON, alive=1), "alive: int 1 instead of"),
        (changed(BEACON, run=b"four"), "run: bytes of 4 instead of bin, 0 or 8"),
        (changed(MANIFEST, deltas=(UPDATE,)), "deltas: Update instead of int"),
        (changed(MANIFEST, behind={4, 2}), "behind: set instead of array"),
        (Facts(1), "Facts is no message of protocol version 1"),
        ("text", "str is no message"),
    ],
)
def test_refuses_to_send_what_would_be_refused(message: Message, sentence: str) -> None:
    with pytest.raises(MisuseError, match=sentence):
        encode(message)


def test_refuses_to_send_a_longer_update_than_anyone_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BODY_BYTES", 100)
    with pytest.raises(MisuseError, match=r"Update takes \d+ bytes; 100 are allowed"):
        encode(UPDATE)


def test_takes_numpy_numbers() -> None:
    np = pytest.importorskip("numpy")
    facts = Facts(
        np.int64(5),
        np.uint8(2),
        {"loss": np.float32(0.5), "accuracy": np.float64(0.25), "held_out": np.int32(7)},
    )
    sent = decode(encode(changed(UPDATE, facts=facts)), Update)
    assert sent.facts == Facts(5, 2, {"loss": 0.5, "accuracy": 0.25, "held_out": 7.0})


@pytest.mark.parametrize(
    ("reason", "sent"),
    [
        ("fine", "fine"),
        ("two\nlines\tand\x00more", "two lines and more"),
        ("lone \udc80 surrogate", "lone ? surrogate"),
        ("x" * 400, "x" * limits.SENTENCE),
        ("é" * 400, "é" * (limits.SENTENCE // 2)),
        ("x" + "é" * 400, "x" + "é" * ((limits.SENTENCE - 1) // 2)),
    ],
)
def test_makes_text_for_people_fit(reason: str, sent: str) -> None:
    assert decode(encode(changed(RECEIPT, reason=reason)), Receipt).reason == sent


def test_any_text_can_be_given_as_a_reason() -> None:
    @given(st.text(max_size=400))
    def sends(reason: str) -> None:
        decode(encode(changed(RECEIPT, reason=reason)), Receipt)

    sends()


def test_a_birth_certificate_may_say_little() -> None:
    assert decode(encode(Birth(alive=False, session=7)), Birth) == Birth(alive=False, session=7)


def test_a_report_carries_what_a_liar_claimed() -> None:
    report = changed(REPORT, examples=-limits.COUNT)
    assert decode(encode(report), Report) == report
