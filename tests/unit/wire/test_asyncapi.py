"""docs/reference/asyncapi.yaml: a sound AsyncAPI 3.0 document that says what the code does."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
import yaml  # type: ignore[import-untyped]

from fedmq.protocol.frames import Step
from fedmq.wire.envelope import CONTENT_TYPE
from fedmq.wire.table import FACTS, MESSAGES
from fedmq.wire.topics import Topics
from tools.print_asyncapi import asyncapi, schema
from tools.print_wire import ASYNCAPI
from tools.wire_samples import ROUND, Sample
from tools.wire_vectors import plain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fedmq.protocol.messages import Message

DOCUMENT: dict[str, Any] = yaml.safe_load(ASYNCAPI.read_text(encoding="utf-8"))
CHANNELS: dict[str, Any] = DOCUMENT["channels"]
OPERATIONS: dict[str, Any] = DOCUMENT["operations"]
SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]
VALUES = {"federation": "greenhouse", "device": "pi-3", "round": "7", "version": "7", "chunk": "2"}


def test_it_is_up_to_date() -> None:
    assert ASYNCAPI.read_text(encoding="utf-8") == asyncapi(), "run: python -m tools.print_wire --asyncapi"


# --- structure --------------------------------------------------------------------------------------------------------


def test_it_has_what_asyncapi_3_requires() -> None:
    assert DOCUMENT["asyncapi"] == "3.0.0"
    assert {"title", "version"} <= DOCUMENT["info"].keys()
    fixed = {
        "asyncapi",
        "id",
        "info",
        "servers",
        "defaultContentType",
        "channels",
        "operations",
        "components",
    }
    assert DOCUMENT.keys() <= fixed
    for server in DOCUMENT["servers"].values():
        assert {"host", "protocol"} <= server.keys()


def references(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        yield from (value for key, value in node.items() if key == "$ref")
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def resolve(reference: str) -> Any:  # noqa: ANN401 - plain data
    node = DOCUMENT
    for step in reference.removeprefix("#/").split("/"):
        node = node[step]
    return node


def test_every_reference_leads_somewhere() -> None:
    found = set(references(DOCUMENT))
    assert found
    for reference in found:
        assert resolve(reference)


@pytest.mark.parametrize("name", CHANNELS)
def test_a_channel_names_its_parameters_and_messages(name: str) -> None:
    channel = CHANNELS[name]
    assert re.findall(r"{(\w+)}", channel["address"]) == list(channel["parameters"])
    assert len(channel["messages"]) == 1
    assert channel.keys() == {"address", "description", "messages", "parameters"}


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_belongs_to_a_channel(name: str) -> None:
    operation = OPERATIONS[name]
    assert operation["action"] in {"send", "receive"}
    channel = operation["channel"]["$ref"]
    assert [m["$ref"].startswith(f"{channel}/messages/") for m in operation["messages"]] == [True]
    allowed = (
        {"qos", "retain", "bindingVersion"} if operation["action"] == "send" else {"qos", "bindingVersion"}
    )
    assert operation["bindings"].keys() == {"mqtt"}
    assert operation["bindings"]["mqtt"].keys() == allowed
    assert operation["bindings"]["mqtt"]["qos"] == 1


@pytest.mark.parametrize(
    "message", DOCUMENT["components"]["messages"].values(), ids=lambda message: message["name"]
)
def test_a_message_says_its_type_and_payload(message: dict[str, Any]) -> None:
    assert MESSAGES[message["x-wire-type"]].make.__name__ == message["name"]
    assert message["contentType"] == CONTENT_TYPE
    assert message["payload"] == {"$ref": f"#/components/schemas/{message['name']}"}


# --- against the code -------------------------------------------------------------------------------------------------


def topic(name: str) -> str:
    return str(CHANNELS[name]["address"].format(**VALUES))


def test_every_topic_of_the_code_is_a_channel() -> None:
    topics = Topics("greenhouse")
    made = {
        topics.task,
        topics.manifest,
        topics.frame(Step(7, key=True), 2),
        topics.frame(Step(7), 2),
        topics.beacon,
        topics.report,
        topics.update("pi-3", 7),
        topics.update("pi-3", 7, 2),
        topics.query("pi-3", 7),
        topics.status("pi-3"),
        topics.receipt("pi-3"),
    }
    assert {topic(name) for name in CHANNELS} == made


def matches(filter_: str, name: str) -> bool:
    return re.fullmatch(filter_.replace("+", "[^/]+"), name) is not None


def received(role: str) -> set[str]:
    operations = (o for name, o in OPERATIONS.items() if o["action"] == "receive" and name.startswith(role))
    return {topic(operation["channel"]["$ref"].rpartition("/")[2]) for operation in operations}


def test_each_role_receives_what_it_subscribes_to() -> None:
    topics = Topics("greenhouse")
    filters = {
        "aggregator": topics.aggregator_filters,
        "device": (
            *topics.device_filters("pi-3"),
            *(topics.frame_filter(Step(7, key=key)) for key in (True, False)),
        ),
    }
    everything = {topic(name) for name in CHANNELS}
    for role, subscribed in filters.items():
        assert received(role) == {name for name in everything if any(matches(f, name) for f in subscribed)}


def test_each_channel_has_one_writer_with_the_retained_flag() -> None:
    writers = {}
    for name, operation in OPERATIONS.items():
        if operation["action"] == "send":
            channel = operation["channel"]["$ref"].rpartition("/")[2]
            assert channel not in writers
            writers[channel] = (name.partition("Sends")[0], operation["bindings"]["mqtt"]["retain"])
    assert writers.keys() == CHANNELS.keys()
    for channel, (role, retained) in writers.items():
        assert role == ("device" if "/up/" in topic(channel) else "aggregator")
        assert retained is (channel not in {"update", "updateChunk", "query", "receipt"})


def test_every_message_and_field_is_there() -> None:
    structs = (*MESSAGES.values(), FACTS)
    assert {struct.make.__name__ for struct in structs} == SCHEMAS.keys()
    assert len(DOCUMENT["components"]["messages"]) == len(MESSAGES)
    for struct in structs:
        found = SCHEMAS[struct.make.__name__]
        names = [name for name, _ in struct.fields]
        assert found["x-wire-order"] == found["required"] == list(found["properties"]) == names
        for name, field in struct.fields:
            assert found["properties"][name].items() >= schema(field).items()
            assert found["properties"][name]["description"]


@pytest.mark.parametrize("sample", ROUND, ids=lambda sample: sample.name)
def test_the_worked_example_fits_channels_and_schemas(sample: Sample) -> None:
    [channel] = [
        channel
        for channel in CHANNELS.values()
        if matches(re.sub(r"{\w+}", "+", channel["address"]), sample.topic)
    ]
    assert list(channel["messages"]) == [type(sample.message).__name__]
    check(sample.message)


def check(message: Message) -> None:
    """Hold a message against its schema, with the keywords that the document uses."""
    hold(plain(message), {"$ref": f"#/components/schemas/{type(message).__name__}"})


def hold(value: Any, rule: dict[str, Any]) -> None:  # noqa: ANN401 - plain data
    if "$ref" in rule:
        rule = resolve(rule["$ref"])
    kinds: dict[str, Any] = {
        "object": dict,
        "array": list,
        "string": str,
        "integer": int,
        "number": (int, float),
        "boolean": bool,
    }
    names = rule["type"] if isinstance(rule["type"], list) else [rule["type"]]
    assert any(isinstance(value, kinds[name]) for name in names)
    assert rule.get("minimum", -2e308) <= value <= rule.get("maximum", 2e308) if "minimum" in rule else True
    assert value in rule.get("enum", [value])
    if rule["type"] == "array":
        assert rule["minItems"] <= len(value) <= rule["maxItems"]
        for entry in value:
            hold(entry, rule["items"])
    elif "properties" in rule:
        assert list(value) == rule["required"]
        for name, entry in value.items():
            hold(entry, rule["properties"][name])
    elif rule["type"] == "object":
        for entry in value.values():
            hold(entry, rule["additionalProperties"])
