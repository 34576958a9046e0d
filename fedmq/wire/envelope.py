"""Messages to bytes and back: msgpack arrays ``[version, type, field, …]``, each field within its limits.

Positions, not names, tell the fields apart: at updates of a few hundred bytes, names would be a tenth of the traffic.
So the first bytes of a message, its *head*, say all about its form: the array's length, the version of the protocol and
the type of message. They are written in one way only, and a message that begins otherwise is refused unread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import msgpack

from fedmq.errors import MessageError, MisuseError
from fedmq.protocol.messages import Message
from fedmq.wire import limits, tokens
from fedmq.wire.table import MESSAGES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fedmq.wire.containers import Struct

VERSION: Final = 1
CONTENT_TYPE: Final = "application/vnd.fedmq.v1+msgpack"

_NUMBERS: Final[Mapping[type, int]] = {struct.make: number for number, struct in MESSAGES.items()}
MessageT = TypeVar("MessageT", bound=Message)


def head(number: int) -> bytes:
    """Return the first bytes of every message of type `number`."""
    array: bytes = msgpack.Packer().pack_array_header(2 + len(MESSAGES[number].fields))
    return array + bytes((VERSION, number))


def longest(number: int) -> int:
    """Return how many bytes a message of type `number` can have at most."""
    return min(len(head(number)) + MESSAGES[number].longest, limits.BODY_BYTES)


_FORMS: Final[Mapping[type, tuple[Struct, bytes, int]]] = {
    struct.make: (struct, head(number), longest(number)) for number, struct in MESSAGES.items()
}


def encode(message: Message) -> bytes:
    """Return the message's bytes.

    Raises MisuseError when a value is outside the specification's limits: what cannot be read must not be sent.
    """
    kind = type(message)
    number = _NUMBERS.get(kind)
    if number is None:
        raise MisuseError(f"{kind.__name__} is no message of protocol version {VERSION}")
    try:
        struct = MESSAGES[number]
        fields = struct.write(message)
    except MisuseError as error:
        raise MisuseError(f"{kind.__name__} cannot be sent: {error}") from None
    data: bytes = msgpack.packb((VERSION, number, *fields), use_single_float=struct.single)
    if len(data) > limits.BODY_BYTES:
        raise MisuseError(f"{kind.__name__} takes {len(data)} bytes; {limits.BODY_BYTES} are allowed")
    return data


def decode(data: bytes, kind: type[MessageT]) -> MessageT:
    """Return the message of type `kind` that `data` holds.

    Raises MessageError when it holds anything else: another version, another type, a field outside its limits, a flaw
    between fields, or bytes left over.
    """
    struct, wanted, most = _FORMS[kind]
    if data[: len(wanted)] != wanted or len(data) > most:
        raise MessageError(_first_fault(data, kind))
    try:
        message, end = struct.read_fields(data, len(wanted))
    except MessageError as error:
        raise MessageError(f"{kind.__name__}: {error}") from None
    except tokens.ENDED:
        raise MessageError(f"{kind.__name__}: its {len(data)} bytes end in the middle") from None
    if end != len(data):
        raise MessageError(f"{kind.__name__}: {len(data) - end} bytes are left over")
    read: MessageT = message
    return read


def skim(data: bytes, kind: type[MessageT]) -> MessageT:
    """Do as `decode`, but leave long fields where they are: as views into `data`, good for looking and joining."""
    return decode(cast("bytes", memoryview(data)), kind)


def front(data: bytes, kind: type[Message], count: int) -> list[Any] | None:
    """Return the first `count` fields of a message whose beginning `data` holds; None where they are not all there.

    Nothing is said about the rest: `decode` has the last word on it.
    """
    struct, wanted, _ = _FORMS[kind]
    if data[: len(wanted)] != wanted:
        return None
    values, at = [], len(wanted)
    try:
        for _, field in struct.fields[:count]:
            value, at = field.read(data, at)
            values.append(value)
    except (MessageError, *tokens.ENDED):
        return None
    return values


def _first_fault(data: bytes, kind: type) -> str:
    """Say what is wrong with the head of a message, or with its length."""
    try:
        _, at = tokens.array_count(data, 0)
        version, number = data[at], data[at + 1]
    except (MessageError, *tokens.ENDED):
        return "not a fedmq message: an array of version, type and fields was wanted"
    if version != VERSION:
        return f"protocol version {version} is not understood; this is version {VERSION}"
    if number not in MESSAGES:
        return f"message type {number} is unknown in version {VERSION}"
    found = MESSAGES[number].make
    if found is not kind:
        return f"a {found.__name__} instead of a {kind.__name__}"
    if data[: len(head(number))] != head(number):
        return f"{kind.__name__}: a head of {data[:at].hex()} instead of {head(number)[:-2].hex()}"
    return f"{kind.__name__}: {len(data)} bytes; it has {longest(number)} at most"
