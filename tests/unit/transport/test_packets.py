from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.packettypes import PacketTypes

from fedmq.errors import BrokerRefused
from fedmq.transport.interface import Message, Outgoing
from fedmq.transport.mqtt import _properties
from fedmq.transport.packets import (
    MQTT_3_1_1,
    MQTT_5,
    PACKET_TOO_LARGE,
    check_size,
    decode_publish,
    explain,
    publish_bytes,
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
    """A PUBLISH at QoS 1 as the specification has it, its properties packed by paho."""
    topic = outgoing.topic.encode()
    properties = _properties(outgoing, PacketTypes.PUBLISH, protocol)
    packed = b"" if properties is None else bytes(properties.pack())
    body = struct.pack("!H", len(topic)) + topic + struct.pack("!H", identifier) + packed + outgoing.payload
    return bytes([0x32 | outgoing.retain]) + length_bytes(len(body)) + body


@given(outgoings, st.sampled_from([MQTT_3_1_1, MQTT_5]))
def test_size_is_what_goes_over_the_wire(outgoing: Outgoing, protocol: int) -> None:
    assert publish_bytes(outgoing, protocol) == len(encode(outgoing, protocol))


@pytest.mark.parametrize("size", [0, 120, 121, 122, 123, 124, 16_373, 16_376, 16_380, 2_097_140, 2_097_152])
def test_size_where_the_length_grows_by_a_byte(size: int) -> None:
    outgoing = Outgoing("t", bytes(size))
    assert publish_bytes(outgoing, MQTT_5) == len(encode(outgoing, MQTT_5))


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


def test_too_large_says_how_much_and_what_to_do() -> None:
    outgoing = Outgoing("fleet/up", bytes(2_000))
    check_size(outgoing, MQTT_5, publish_bytes(outgoing, MQTT_5))
    with pytest.raises(
        BrokerRefused, match=r"'fleet/up' takes 2,016 bytes.* at most 2,015: send smaller"
    ) as caught:
        check_size(outgoing, MQTT_5, publish_bytes(outgoing, MQTT_5) - 1)
    assert caught.value.code == PACKET_TOO_LARGE


def test_codes_in_words() -> None:
    assert explain(0x86) == "wrong user name or password (0x86)"
    assert explain(0xC3) == "no reason given (0xC3)"
