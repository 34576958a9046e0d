from __future__ import annotations

import contextlib
from typing import Any
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from fedmq.errors import BrokerRefused, MisuseError
from fedmq.transport.interface import Message, Outgoing
from fedmq.transport.packets import (
    MQTT_3_1_1,
    MQTT_5,
    PACKET_TOO_LARGE,
    check_size,
    decode_puback,
    decode_publish,
    decode_suback,
    encode_puback,
    encode_publish,
    encode_subscribe,
    encode_unsubscribe,
    explain,
    gather,
)

names = st.text(st.characters(exclude_characters="+#\0", exclude_categories=["Cs"]), min_size=1, max_size=200)
outgoings = st.builds(
    Outgoing,
    names,
    st.binary(max_size=300),
    retain=st.booleans(),
    expiry_s=st.none() | st.integers(1, 2**32 - 1),
    content_type=st.none() | names,
    correlation=st.none() | st.binary(max_size=200),
    properties=st.dictionaries(names, names, max_size=3),
)


def length_bytes(value: int) -> bytes:
    out = bytearray()
    while True:
        value, byte = value >> 7, value & 0x7F
        out.append(byte | (0x80 if value else 0))
        if not value:
            return bytes(out)


def encode(outgoing: Outgoing, protocol: int, identifier: int = 7) -> bytes:
    return b"".join(encode_publish(outgoing, protocol).parts(identifier))


def what_paho_sends(outgoing: Outgoing, protocol: int, identifier: int) -> bytes:
    client = Client(CallbackAPIVersion.VERSION2, "me", protocol=protocol)  # type: ignore[arg-type]
    client._sock, client._packet_queue = Mock(), Mock()  # type: ignore[method-assign]
    client._send_publish(
        identifier,
        outgoing.topic.encode(),
        outgoing.payload,
        qos=1,
        retain=outgoing.retain,
        properties=paho_properties(outgoing) if protocol == MQTT_5 else None,
    )
    client._sock = None
    return bytes(client._packet_queue.call_args.args[1])


def paho_properties(outgoing: Outgoing) -> Properties:
    properties: Any = Properties(PacketTypes.PUBLISH)
    if outgoing.expiry_s is not None:
        properties.MessageExpiryInterval = outgoing.expiry_s
    if outgoing.content_type is not None:
        properties.ContentType = outgoing.content_type
    if outgoing.correlation is not None:
        properties.CorrelationData = outgoing.correlation
    if outgoing.properties:
        properties.UserProperty = list(outgoing.properties.items())
    return properties  # type: ignore[no-any-return]


@given(outgoings, st.sampled_from([MQTT_3_1_1, MQTT_5]), st.integers(1, 65_535))
def test_a_publish_is_what_paho_sends(outgoing: Outgoing, protocol: int, identifier: int) -> None:
    sent = what_paho_sends(outgoing, protocol, identifier)
    assert encode(outgoing, protocol, identifier) == sent
    assert encode_publish(outgoing, protocol).size == len(sent)


@pytest.mark.parametrize("size", [0, 120, 121, 122, 123, 124, 16_373, 16_376, 16_380, 2_097_140, 2_097_152])
def test_where_the_length_grows_by_a_byte(size: int) -> None:
    outgoing = Outgoing("t", bytes(size))
    assert encode(outgoing, MQTT_5) == what_paho_sends(outgoing, MQTT_5, 7)


@given(
    st.lists(names, min_size=1, max_size=5),
    st.sampled_from([MQTT_3_1_1, MQTT_5]),
    st.integers(1, 65_535),
)
def test_a_subscription_and_its_end_are_what_paho_sends(
    filters: list[str], protocol: int, identifier: int
) -> None:
    client = Client(CallbackAPIVersion.VERSION2, "me", protocol=protocol)  # type: ignore[arg-type]
    client._sock, client._packet_queue = Mock(), Mock()  # type: ignore[method-assign]
    client._last_mid = identifier - 1
    wanted: Any = [(each, SubscribeOptions(qos=1) if protocol == MQTT_5 else 1) for each in filters]
    client.subscribe(wanted)
    assert encode_subscribe(identifier, filters, protocol) == client._packet_queue.call_args.args[1]
    client._last_mid = identifier - 1
    client.unsubscribe(filters)
    assert encode_unsubscribe(identifier, filters, protocol) == client._packet_queue.call_args.args[1]
    client._sock = None


def test_a_publish_byte_by_byte() -> None:
    """As MQTT 5, section 3.3, and MQTT 3.1.1, section 3.3, have it."""
    outgoing = Outgoing("a/b", b"xyz", True, 60, "t/x", b"\x01\x02", {"k": "é"})  # noqa: FBT003 - retain
    assert encode(outgoing, MQTT_5, 0x0102).hex(" ") == (
        "33 23 00 03 61 2f 62 01 02 "  # PUBLISH at QoS 1, retained; 35 bytes follow; topic; packet identifier
        "18 02 00 00 00 3c 03 00 03 74 2f 78 "  # 24 bytes of properties: expiry, content type,
        "09 00 02 01 02 26 00 01 6b 00 02 c3 a9 "  # correlation data, a user property
        "78 79 7a"
    ).replace("33 27", "33 23").replace("18 02", "18 02")
    assert encode(outgoing, MQTT_3_1_1, 0x0102).hex(" ") == "33 0a 00 03 61 2f 62 01 02 78 79 7a"
    assert encode(Outgoing("a", b""), MQTT_5, 1).hex(" ") == "32 06 00 01 61 00 01 00"


@pytest.mark.parametrize(
    "outgoing",
    [
        Outgoing("t", b"", expiry_s=2**32),
        Outgoing("t", b"", expiry_s=-1),
        Outgoing("t", b"", content_type="x" * 65_536),
        Outgoing("t", b"", correlation=bytes(65_536)),
        Outgoing("t", b"", properties={"k": "\ud800"}),
    ],
)
def test_what_mqtt_cannot_express_is_misuse(outgoing: Outgoing) -> None:
    with pytest.raises(MisuseError, match="'t' holds what MQTT has no room for"):
        encode_publish(outgoing, MQTT_5)


@given(st.lists(st.integers(0, 50) | st.integers(32_700, 32_800), max_size=12))
def test_gathering_keeps_bytes_and_order(sizes: list[int]) -> None:
    parts = [bytes([place]) * size for place, size in enumerate(sizes)]
    pieces = list(gather(parts))
    assert b"".join(pieces) == b"".join(parts)
    assert all(len(piece) for piece in pieces)


def test_small_parts_are_joined_and_large_ones_not_copied() -> None:
    large = bytes(100_000)
    pieces = list(gather([b"ab", b"c", large, b"d", b"", b"ef"]))
    assert [bytes(piece[:3]) for piece in pieces] == [b"abc", bytes(3), b"def"]
    assert pieces[1].obj is large


@given(outgoings, st.sampled_from([MQTT_3_1_1, MQTT_5]), st.integers(1, 65_535))
def test_decoding_undoes_encoding(outgoing: Outgoing, protocol: int, identifier: int) -> None:
    packet = encode(outgoing, protocol, identifier)
    body = memoryview(packet)[len(packet) - _body_bytes(packet) :]
    message = Message(outgoing.topic, outgoing.payload, outgoing.retain)
    assert decode_publish(packet[0], body, protocol) == (identifier, message)


def _body_bytes(packet: bytes) -> int:
    at = 1
    while packet[at] & 0x80:
        at += 1
    return len(packet) - at - 1


@given(st.integers(0, 255), st.binary(max_size=60), st.sampled_from([MQTT_3_1_1, MQTT_5]))
def test_nonsense_raises_only_what_is_promised(command: int, body: bytes, protocol: int) -> None:
    with contextlib.suppress(ValueError, IndexError):
        decode_publish(command, memoryview(body), protocol)


@pytest.mark.parametrize(
    ("command", "body"),
    [
        (0x30, b"\0\x05ab"),  # the topic is longer than the packet
        (0x32, b"\0\x01a\0\0x"),  # packet identifier 0
        (0x34, b"\0\x01a\0\1x"),  # QoS 2, which nobody asked for
        (0x36, b"\0\x01a\0\1x"),  # QoS 3, which does not exist
    ],
)
def test_packets_that_do_not_add_up(command: int, body: bytes) -> None:
    with pytest.raises(ValueError, match="does not add up"):
        decode_publish(command, memoryview(body), MQTT_3_1_1)


def test_a_topic_that_is_not_utf8_costs_nothing_but_itself() -> None:
    _, message = decode_publish(0x30, memoryview(b"\0\x02\xff\xfex"), MQTT_3_1_1)
    assert message == Message("\ufffd\ufffd", b"x")


@given(st.integers(1, 65_535))
def test_a_puback_of_ours_can_be_read(identifier: int) -> None:
    packet = encode_puback(identifier)
    assert decode_puback(packet[0], memoryview(packet)[2:], MQTT_3_1_1) == (identifier, 0)


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b"\x01\x02", (0x0102, 0)),
        (b"\x01\x02\x10", (0x0102, 0x10)),
        (b"\x01\x02\x87\x00", (0x0102, 0x87)),
        (b"\x01\x02\x87\x04\x1f\x00\x01n", (0x0102, 0x87)),  # with a reason in words
    ],
)
def test_a_puback_with_and_without_reason(body: bytes, found: tuple[int, int]) -> None:
    assert decode_puback(0x40, memoryview(body), MQTT_5) == found


@pytest.mark.parametrize(
    ("command", "body", "protocol"),
    [
        (0x40, b"", MQTT_5),
        (0x40, b"\x01", MQTT_5),
        (0x40, b"\x00\x00", MQTT_5),  # packet identifier 0
        (0x42, b"\x00\x01", MQTT_5),  # flags that are reserved
        (0x40, b"\x00\x01\x00\x05", MQTT_5),  # properties that are not there
        (0x40, b"\x00\x01\x00\x00\x00", MQTT_5),  # more than its properties
        (0x40, b"\x00\x01\x00\xff", MQTT_5),  # a length that does not end
        (0x40, b"\x00\x01\x00", MQTT_3_1_1),  # no reasons before MQTT 5
    ],
)
def test_pubacks_that_do_not_add_up(command: int, body: bytes, protocol: int) -> None:
    with pytest.raises((ValueError, IndexError)):
        decode_puback(command, memoryview(body), protocol)


@given(st.integers(0, 255), st.binary(max_size=12), st.sampled_from([MQTT_3_1_1, MQTT_5]))
def test_a_puback_of_nonsense_raises_only_what_is_promised(command: int, body: bytes, protocol: int) -> None:
    with contextlib.suppress(ValueError, IndexError):
        decode_puback(command, memoryview(body), protocol)


@pytest.mark.parametrize(
    ("command", "body", "protocol", "found"),
    [
        (0x90, b"\x01\x02\x01", MQTT_3_1_1, (0x0102, b"\x01")),
        (0x90, b"\x01\x02\x01\x80", MQTT_3_1_1, (0x0102, b"\x01\x80")),
        (0x90, b"\x01\x02\x00\x87", MQTT_5, (0x0102, b"\x87")),
        (0x90, b"\x01\x02\x04\x1f\x00\x01n\x01\x01", MQTT_5, (0x0102, b"\x01\x01")),  # with a reason in words
        (0xB0, b"\x01\x02", MQTT_3_1_1, (0x0102, b"")),
        (0xB0, b"\x01\x02\x00\x00\x11", MQTT_5, (0x0102, b"\x00\x11")),
    ],
)
def test_answers_to_subscriptions(command: int, body: bytes, protocol: int, found: tuple[int, bytes]) -> None:
    assert decode_suback(command, memoryview(body), protocol) == found


@pytest.mark.parametrize(
    ("command", "body", "protocol"),
    [
        (0x90, b"\x01", MQTT_5),
        (0x90, b"\x00\x00\x00", MQTT_3_1_1),  # packet identifier 0
        (0x90, b"\x00\x01", MQTT_3_1_1),  # no code
        (0x90, b"\x00\x01\x00", MQTT_5),  # (same)
        (0x92, b"\x00\x01\x00", MQTT_3_1_1),  # flags that are reserved
        (0x90, b"\x00\x01\x05\x00", MQTT_5),  # properties that are not there
        (0x90, b"\x00\x01\xff\xff", MQTT_5),  # a length that does not end
    ],
)
def test_answers_to_subscriptions_that_do_not_add_up(command: int, body: bytes, protocol: int) -> None:
    with pytest.raises((ValueError, IndexError)):
        decode_suback(command, memoryview(body), protocol)


@given(st.integers(0, 255), st.binary(max_size=12), st.sampled_from([MQTT_3_1_1, MQTT_5]))
def test_an_answer_of_nonsense_raises_only_what_is_promised(command: int, body: bytes, protocol: int) -> None:
    with contextlib.suppress(ValueError, IndexError):
        decode_suback(command, memoryview(body), protocol)


def test_too_large_says_how_much_and_what_to_do() -> None:
    size = encode_publish(Outgoing("fleet/up", bytes(2_000)), MQTT_5).size
    check_size("fleet/up", size, size)
    with pytest.raises(
        BrokerRefused, match=r"'fleet/up' takes 2,016 bytes.* at most 2,015: send smaller"
    ) as caught:
        check_size("fleet/up", size, size - 1)
    assert caught.value.code == PACKET_TOO_LARGE


def test_codes_in_words() -> None:
    assert explain(0x86) == "wrong user name or password (0x86)"
    assert explain(0xC3) == "no reason given (0xC3)"
