"""The protocol as an AsyncAPI 3.0 document: channels, operations, and each message's schema from the wire's table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import yaml  # type: ignore[import-untyped]  # its types are a package of their own

from fedmq.wire.containers import Row, Struct, Table
from fedmq.wire.envelope import CONTENT_TYPE, VERSION
from fedmq.wire.fields import Bool, Bytes, Choice, Field, Int, Name, Real, SettingValue, Text
from fedmq.wire.table import FACTS, MESSAGES
from tools.wire_meanings import ABOUT, FIELDS


@dataclass(frozen=True, slots=True)
class Channel:
    """One sort of topic below ``fedmq/v1/{federation}/``: what it carries, who writes it, who reads it."""

    name: str
    address: str
    message: str
    about: str
    writer: str
    readers: tuple[str, ...]
    retained: bool


CHANNELS: Final = (
    Channel("task", "all/task", "Task", "The open round.", "aggregator", ("device",), retained=True),
    Channel("model", "all/model", "Manifest", "The newest model.", "aggregator", ("device",), retained=True),
    Channel(
        "keyFrame",
        "all/model/{version}/{chunk}",
        "Chunk",
        "One chunk of a whole model. A device subscribes only while it fetches that version.",
        "aggregator",
        ("device",),
        retained=True,
    ),
    Channel(
        "delta",
        "all/delta/{version}/{chunk}",
        "Chunk",
        "One chunk of what separates a model from the version before it. A device subscribes only while it fetches it.",
        "aggregator",
        ("device",),
        retained=True,
    ),
    Channel(
        "aggregatorStatus",
        "all/status",
        "Beacon",
        "Whether the aggregator is there.",
        "aggregator",
        ("device",),
        retained=True,
    ),
    Channel(
        "report", "all/report", "Report", "The figures of the last round.", "aggregator", (), retained=True
    ),
    Channel(
        "update",
        "up/{device}/update/{round}",
        "Update",
        "A device's update in one packet.",
        "device",
        ("aggregator",),
        retained=False,
    ),
    Channel(
        "updateChunk",
        "up/{device}/update/{round}/{chunk}",
        "Chunk",
        "One chunk of a longer update.",
        "device",
        ("aggregator",),
        retained=False,
    ),
    Channel(
        "query",
        "up/{device}/query/{round}",
        "Query",
        "What has become of an update, and which of its chunks are missing?",
        "device",
        ("aggregator",),
        retained=False,
    ),
    Channel(
        "deviceStatus",
        "up/{device}/status",
        "Birth",
        "Whether a device is there.",
        "device",
        ("aggregator",),
        retained=True,
    ),
    Channel(
        "receipt",
        "down/{device}/receipt",
        "Receipt",
        "What became of a device's updates.",
        "aggregator",
        ("device",),
        retained=False,
    ),
)
"""Every sort of topic. `readers` name the two roles; people and dashboards may read what stands under `all` too."""

PARAMETERS: Final = {
    "federation": "The federation's name: 1 to 64 ASCII letters, digits, dots, dashes or underscores.",
    "device": "The device's name, of the same form.",
    "round": "The round's number in decimal, without leading zeros.",
    "version": "The model version in decimal, without leading zeros.",
    "chunk": "The chunk's index in decimal, without leading zeros; the same as in the message.",
}


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]
    """Indents lists, as yamllint wants them."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002
        super().increase_indent(flow, False)  # noqa: FBT003 - PyYAML's signature


def asyncapi() -> str:
    """Return the document as YAML."""
    text: str = yaml.dump(document(), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=80)
    return "# Printed by `python -m tools.print_wire --asyncapi`; do not edit.\n" + text


def document() -> dict[str, Any]:
    """Return the document as plain data."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "fedmq",
            "version": f"{VERSION}.0.0",
            "description": (
                "Federated learning over MQTT. Payloads are msgpack arrays of version, type and fields; the schemas "
                "show the fields by name, in the order of `x-wire-order`. The specification is docs/explanation/"
                "protocol.md."
            ),
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": CONTENT_TYPE,
        "servers": {
            "broker": {
                "host": "broker.example:8883",
                "protocol": "mqtts",
                "protocolVersion": "5.0",
                "description": "Any MQTT broker of version 5 or 3.1.1.",
            }
        },
        "channels": {channel.name: _channel(channel) for channel in CHANNELS},
        "operations": dict(_operations()),
        "components": {
            "parameters": {name: {"description": about} for name, about in PARAMETERS.items()},
            "messages": {struct.make.__name__: _message(number) for number, struct in MESSAGES.items()},
            "schemas": {struct.make.__name__: _schema(struct) for struct in (*MESSAGES.values(), FACTS)},
        },
    }


# --- channels ---------------------------------------------------------------------------------------------------------


def _channel(channel: Channel) -> dict[str, Any]:
    address = f"fedmq/v{VERSION}/{{federation}}/{channel.address}"
    return {
        "address": address,
        "description": channel.about,
        "messages": {channel.message: {"$ref": f"#/components/messages/{channel.message}"}},
        "parameters": {
            name: {"$ref": f"#/components/parameters/{name}"}
            for name in PARAMETERS
            if f"{{{name}}}" in address
        },
    }


def _operations() -> list[tuple[str, dict[str, Any]]]:
    """Return what each role sends and receives; both bind QoS 1."""
    operations = []
    for channel in CHANNELS:
        operations.append(
            (
                f"{channel.writer}Sends{_upper(channel.name)}",
                _operation(channel, "send", retain=channel.retained),
            )
        )
        operations += [
            (f"{reader}Receives{_upper(channel.name)}", _operation(channel, "receive"))
            for reader in channel.readers
        ]
    return operations


def _operation(channel: Channel, action: str, **binding: bool) -> dict[str, Any]:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel.name}"},
        "messages": [{"$ref": f"#/channels/{channel.name}/messages/{channel.message}"}],
        "bindings": {"mqtt": {"qos": 1, **binding, "bindingVersion": "0.2.0"}},
    }


def _upper(name: str) -> str:
    return name[0].upper() + name[1:]


# --- messages ---------------------------------------------------------------------------------------------------------


def _message(number: int) -> dict[str, Any]:
    name = MESSAGES[number].make.__name__
    return {
        "name": name,
        "summary": ABOUT[name],
        "contentType": CONTENT_TYPE,
        "payload": {"$ref": f"#/components/schemas/{name}"},
        "x-wire-type": number,
    }


def _schema(struct: Struct) -> dict[str, Any]:
    name = struct.make.__name__
    return {
        "type": "object",
        "description": ABOUT[name],
        "additionalProperties": False,
        "required": [field for field, _ in struct.fields],
        "x-wire-order": [field for field, _ in struct.fields],
        "properties": {
            field: {"description": FIELDS[f"{name}.{field}"], **schema(kind)} for field, kind in struct.fields
        },
    }


def schema(field: Field) -> dict[str, Any]:  # noqa: C901, PLR0911 - one row per type of field
    """Return the JSON schema of one field; lengths of text and bytes are in bytes, as `x-least` and `x-most`."""
    match field:
        case Int(low, high):
            return {"type": "integer", "minimum": low, "maximum": high}
        case Real(low, high):
            return {"type": "number", "format": "double", "minimum": low, "maximum": high}
        case Bool():
            return {"type": "boolean"}
        case Text(most):
            return {"type": "string", "x-most": most}
        case Name(text, known):
            return {**schema(text), "x-numbered": list(known)}
        case Bytes(least, most, blank):
            return {"type": "string", "format": "binary", "x-least": 0 if blank else least, "x-most": most}
        case Choice(kind):
            names = [member.name.lower() for member in kind]
            return {"type": "integer", "enum": [member.value for member in kind], "x-enum-varnames": names}
        case SettingValue():
            return {"type": ["boolean", "integer", "number", "string"], "x-most": field.longest - 5}
        case Table(key, value, most):
            return {
                "type": "object",
                "maxProperties": most,
                "propertyNames": schema(key),
                "additionalProperties": schema(value),
            }
        case Row(value, least, most):
            return {"type": "array", "minItems": least, "maxItems": most, "items": schema(value)}
        case Struct(make):
            return {"$ref": f"#/components/schemas/{make.__name__}"}
    raise NotImplementedError(field)
