"""Requests to bytes, PUBLISH and answers from bytes, and what MQTT's failure codes mean to a person."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from fedmq.errors import BrokerRefused, MisuseError
from fedmq.transport.interface import Message

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

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

_PUBLISH_AT_QOS_1: Final = 0x32
_PUBACK: Final = 0x40
_SUBSCRIBE, _UNSUBSCRIBE = b"\x82", b"\xa2"
_SUBACK: Final = 0x90
_UNSUBACK: Final = 0xB0
_EXPIRY, _CONTENT_TYPE, _CORRELATION, _USER = b"\x02", b"\x03", b"\x09", b"\x26"
"""Identifiers of properties (MQTT 5, section 2.2.2.2)."""

_LARGE: Final = 32 * 1024
"""Bytes from which on a system call of its own costs less than one more copy."""

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


class Publish(NamedTuple):
    """A PUBLISH at QoS 1 that waits for its packet identifier: what comes before it, what after, and the payload."""

    front: bytes
    back: bytes
    payload: bytes

    @property
    def size(self) -> int:
        """Bytes of the whole packet, fixed header included."""
        return len(self.front) + 2 + len(self.back) + len(self.payload)

    def parts(self, identifier: int) -> tuple[bytes, bytes]:
        """Return the packet in two parts, the payload as it was given."""
        return b"%b%b%b" % (self.front, identifier.to_bytes(2, "big"), self.back), self.payload


def encode_publish(outgoing: Outgoing, protocol: int) -> Publish:
    """Return the PUBLISH packet at QoS 1 (MQTT 5 and 3.1.1, section 3.3); MQTT 3.1.1 knows no properties.

    Raises MisuseError for what MQTT cannot express.
    """
    try:
        topic, back = _text(outgoing.topic), b""
        if protocol == MQTT_5:
            properties = _properties(outgoing)
            back = _varint(len(properties)) + properties
    except (OverflowError, UnicodeError) as error:
        raise MisuseError(
            f"a message to {outgoing.topic[:40]!r} holds what MQTT has no room for ({error}): texts and correlation "
            f"data take 65,535 bytes of UTF-8, an expiry 32 bits"
        ) from None
    length = len(topic) + 2 + len(back) + len(outgoing.payload)
    front = bytes((_PUBLISH_AT_QOS_1 | outgoing.retain,)) + _varint(length) + topic
    return Publish(front, back, outgoing.payload)


def gather(parts: Iterable[bytes]) -> Iterator[memoryview]:
    """Join small parts that follow each other, and pass on large ones uncopied.

    They come as views: paho cuts off what has been sent, and to cut a view copies nothing.
    """
    small: list[bytes] = []
    for part in parts:
        if len(part) < _LARGE:
            small.append(part)
            continue
        if joined := b"".join(small):
            yield memoryview(joined)
        small.clear()
        yield memoryview(part)
    if joined := b"".join(small):
        yield memoryview(joined)


def encode_puback(identifier: int) -> bytes:
    """Return the PUBACK packet that says "success" (MQTT 5 and 3.1.1, section 3.4)."""
    return b"\x40\x02" + identifier.to_bytes(2, "big")


def encode_subscribe(identifier: int, filters: Iterable[str], protocol: int) -> bytes:
    """Return the SUBSCRIBE packet at QoS 1 (MQTT 5 and 3.1.1, section 3.8), all its options but that as they are."""
    return _request(_SUBSCRIBE, identifier, (_text(each) + b"\x01" for each in filters), protocol)


def encode_unsubscribe(identifier: int, filters: Iterable[str], protocol: int) -> bytes:
    """Return the UNSUBSCRIBE packet (MQTT 5 and 3.1.1, section 3.10)."""
    return _request(_UNSUBSCRIBE, identifier, map(_text, filters), protocol)


def _request(command: bytes, identifier: int, entries: Iterable[bytes], protocol: int) -> bytes:
    body = identifier.to_bytes(2, "big") + (b"\0" if protocol == MQTT_5 else b"") + b"".join(entries)
    return command + _varint(len(body)) + body


def decode_puback(command: int, body: memoryview, protocol: int) -> tuple[int, int]:
    """Return packet identifier and reason code of one PUBACK, `body` being all after the fixed header.

    Its properties are skipped. Raises ValueError or IndexError for a packet that cannot be read.
    """
    identifier, size, code = body[0] << 8 | body[1], len(body), 0
    if size > 2 and protocol == MQTT_5:  # noqa: PLR2004 - what follows the identifier may be left out
        code = body[2]
        size = 3 if size == 3 else _after_properties(body, 3)  # noqa: PLR2004 - (same)
    elif size > 2:  # noqa: PLR2004 - (same)
        size = 2
    if command != _PUBACK or size != len(body) or not identifier:
        raise ValueError(f"a PUBACK of {len(body)} bytes for message {identifier} does not add up")
    return identifier, code


def decode_suback(command: int, body: memoryview, protocol: int) -> tuple[int, Sequence[int]]:
    """Return packet identifier and reason codes, one for each filter, of a SUBACK or UNSUBACK (sections 3.9, 3.11).

    Before MQTT 5 an UNSUBACK has no codes. Properties are skipped. Raises ValueError or IndexError for a packet that
    cannot be read.
    """
    identifier, at = body[0] << 8 | body[1], 2
    if protocol == MQTT_5:
        at = _after_properties(body, at)
    codes = bytes(body[at:])
    if (
        command not in {_SUBACK, _UNSUBACK}
        or at > len(body)
        or not identifier
        or (command == _SUBACK and not codes)
    ):
        raise ValueError(f"an answer of {len(body)} bytes to subscription {identifier} does not add up")
    return identifier, codes


def check_size(topic: str, size: int, limit: int) -> None:
    """Raise BrokerRefused when a PUBLISH of `size` bytes is larger than the broker takes."""
    if size > limit:
        raise BrokerRefused(
            f"the message to {topic!r} takes {size:,} bytes, the broker takes at most {limit:,}: "
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


def _properties(outgoing: Outgoing) -> bytes:
    found = b"" if outgoing.expiry_s is None else _EXPIRY + outgoing.expiry_s.to_bytes(4, "big")
    if outgoing.content_type is not None:
        found += _CONTENT_TYPE + _text(outgoing.content_type)
    if outgoing.correlation is not None:
        found += _CORRELATION + _binary(outgoing.correlation)
    if outgoing.properties:
        pairs = outgoing.properties.items()
        found += b"".join(_USER + _text(key) + _text(value) for key, value in pairs)
    return found


def _text(text: str) -> bytes:
    return _binary(text.encode())


def _binary(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:  # noqa: PLR2004 - seven bits to a byte (MQTT 5, section 1.5.5)
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
