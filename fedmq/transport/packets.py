"""How many bytes a PUBLISH takes on the wire, and what MQTT's failure codes mean to a person."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fedmq.errors import BrokerRefused
from fedmq.transport.interface import Message

if TYPE_CHECKING:
    from fedmq.transport.interface import Outgoing

MQTT_5: Final = 5
MQTT_3_1_1: Final = 4

LARGEST_PACKET: Final = 268_435_460
"""Bytes of the largest packet MQTT can express: a four-byte length of 268,435,455 and its fixed header of five."""

PACKET_TOO_LARGE: Final = 0x95
NOT_AUTHORIZED: Final = 0x87
UNSUPPORTED_VERSION: Final = 0x84
SESSION_TAKEN_OVER: Final = 0x8E
FAILURE: Final = 0x80
"""Reason codes from here on are failures (MQTT 5, section 2.4)."""

HINTS: Final = {
    0x81: "malformed packet",
    0x82: "protocol error",
    0x83: "the broker has its own reasons",
    UNSUPPORTED_VERSION: "it does not speak this version of MQTT",
    0x85: "it does not allow this client identifier",
    0x86: "wrong user name or password",
    NOT_AUTHORIZED: "not authorized: look at the broker's access control list",
    0x88: "the broker is not available",
    0x89: "the broker is busy",
    0x8A: "banned",
    0x8B: "the broker is shutting down",
    0x8D: "keep-alive timeout",
    SESSION_TAKEN_OVER: "another program connected under the same identity: each needs one of its own",
    0x8F: "the topic filter is not valid",
    0x90: "the topic name is not valid",
    0x93: "more messages in flight than it allows",
    PACKET_TOO_LARGE: "the packet is too large",
    0x96: "messages come too fast",
    0x97: "a quota is used up",
    0x99: "the payload format is not valid",
    0x9A: "it does not keep retained messages, and fedmq needs them",
    0x9B: "it does not support QoS 1, and fedmq needs it",
    0x9F: "connections come too fast",
    0xA1: "it does not support subscription identifiers",
    0xA2: "it does not support wildcards, and fedmq needs them",
}
"""Reason codes in words (MQTT 5, section 2.4); 3.1.1's return codes are translated before they come here."""


def explain(code: int) -> str:
    """Return a few words on an MQTT reason code, the number included."""
    return f"{HINTS.get(code, 'no reason given')} (0x{code:02X})"


def publish_bytes(outgoing: Outgoing, protocol: int) -> int:
    """Return the size in bytes of the PUBLISH packet at QoS 1, fixed header included (MQTT 5, section 3.3)."""
    body = 2 + _utf8(outgoing.topic) + 2 + len(outgoing.payload)
    if protocol == MQTT_5:
        properties = _property_bytes(outgoing)
        body += _varint_bytes(properties) + properties
    return 1 + _varint_bytes(body) + body


def check_size(outgoing: Outgoing, protocol: int, limit: int) -> None:
    """Raise BrokerRefused when the packet would be larger than the broker takes."""
    size = publish_bytes(outgoing, protocol)
    if size > limit:
        raise BrokerRefused(
            f"the message to {outgoing.topic!r} takes {size:,} bytes, the broker takes at most {limit:,}: "
            f"send smaller chunks",
            code=PACKET_TOO_LARGE,
        )


def decode_publish(command: int, body: memoryview, protocol: int) -> tuple[int, Message]:
    """Return packet identifier (0 at QoS 0) and message of one PUBLISH, `body` being all after the fixed header.

    A topic that is not UTF-8 comes with replacement characters: it is the broker's task to refuse it, and one bad
    publisher must not cost us the link. Properties are skipped, as nothing may depend on them. Raises ValueError or
    IndexError for a packet that cannot be read.
    """
    quality, identifier = command >> 1 & 3, 0
    at = 2 + int.from_bytes(body[:2], "big")
    topic = str(body[2:at], "utf-8", "replace")
    if quality == 1:
        identifier = body[at] << 8 | body[at + 1]
        at += 2
    if protocol == MQTT_5:
        at = _after_properties(body, at)
    if at > len(body) or quality > 1 or (quality and not identifier):
        raise ValueError(f"a PUBLISH of {len(body)} bytes at QoS {quality} does not add up")
    return identifier, Message(topic, bytes(body[at:]), bool(command & 1))


def _after_properties(body: memoryview, at: int) -> int:
    length = body[at] & 0x7F
    for shift in (7, 14, 21):
        if body[at] < 0x80:  # noqa: PLR2004 - the bit that says "one more byte"
            break
        at += 1
        length |= (body[at] & 0x7F) << shift
    return at + 1 + length


def _property_bytes(outgoing: Outgoing) -> int:
    size = 0 if outgoing.expiry_s is None else 5
    if outgoing.content_type is not None:
        size += 3 + _utf8(outgoing.content_type)
    if outgoing.correlation is not None:
        size += 3 + len(outgoing.correlation)
    return size + sum(5 + _utf8(key) + _utf8(value) for key, value in outgoing.properties.items())


def _utf8(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _varint_bytes(value: int) -> int:
    return max(1, (value.bit_length() + 6) // 7)
