"""The specification is printed from the code, and says what the code does."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from fedmq.device.sending import ASK_FROM_BYTES
from fedmq.protocol.cohort import in_cohort
from fedmq.protocol.frames import Step
from fedmq.protocol.messages import Verdict
from fedmq.protocol.participant import FETCH_PAUSE_S, LONGEST_PAUSE_S, RECEIPT_PAUSE_S
from fedmq.protocol.spans import EVERYTHING
from fedmq.wire import limits
from fedmq.wire.chunks import OVERHEAD_BYTES
from fedmq.wire.envelope import CONTENT_TYPE
from fedmq.wire.table import FACTS, MESSAGES
from fedmq.wire.topics import Topics
from tools import print_wire, wire_vectors
from tools.wire_meanings import ABOUT, FIELDS
from tools.wire_samples import DEVICE, LAYOUT, ROUND, SALT, TASK

if TYPE_CHECKING:
    from pathlib import Path

PAGE = print_wire.PAGE.read_text(encoding="utf-8")
WORDS = " ".join(PAGE.split())
STRUCTS = (*MESSAGES.values(), FACTS)


def test_tables_and_example_are_up_to_date() -> None:
    assert print_wire.printed(PAGE) == PAGE, "run: python -m tools.print_wire"


def test_every_field_has_a_meaning_and_no_other() -> None:
    assert {
        f"{struct.make.__name__}.{name}" for struct in STRUCTS for name, _ in struct.fields
    } == FIELDS.keys()
    assert {struct.make.__name__ for struct in STRUCTS} == ABOUT.keys()


def test_a_page_without_a_marker_is_no_page_to_print_into() -> None:
    with pytest.raises(SystemExit, match="0 places for heads"):
        print_wire.printed(PAGE.replace("<!-- begin: heads -->", ""))


@pytest.mark.parametrize(
    "fact",
    [
        CONTENT_TYPE,
        f"{limits.PACKET_BYTES:,} bytes",
        f"{limits.LEAST_PACKET_BYTES:,} bytes",
        f"{limits.CHUNK_BYTES:,}",
        f"{OVERHEAD_BYTES} bytes less",
        f"at most {limits.CHUNKS - 1:,}",
        f"waits {FETCH_PAUSE_S:.0f} s (doubled with each",
        f"{RECEIPT_PAUSE_S:.0f} s after the last of it was sent without a receipt",
        f"An update of less than {ASK_FROM_BYTES:,} bytes",
        f"more than {limits.SPANS // 2} gaps",
        f"`[0, {EVERYTHING[1]}]` are all",
        f"{LONGEST_PAUSE_S:.0f} s at most",
        LAYOUT.digest.hex(),
        "".join(f"{v.kind} {v.name} {','.join(map(str, v.shape))}\n" for v in LAYOUT.shared),
    ],
)
def test_the_text_names_the_numbers_of_the_code(fact: str) -> None:
    assert " ".join(fact.split()) in WORDS


def test_every_verdict_is_explained() -> None:
    for verdict in Verdict:
        assert f"| {verdict.value} `{verdict.name.lower()}` |" in PAGE


def test_the_device_of_the_example_is_in_the_cohort() -> None:
    assert in_cohort(DEVICE, SALT, TASK.fraction)


def test_the_table_of_topics_is_that_of_the_code() -> None:
    topics = Topics("f")
    made = [
        (topics.task, "aggregator", "yes"),
        (topics.manifest, "aggregator", "yes"),
        (topics.frame(Step(1, key=True), 2), "aggregator", "yes"),
        (topics.frame(Step(1), 2), "aggregator", "yes"),
        (topics.beacon, "aggregator", "yes, and last will"),
        (topics.report, "aggregator", "yes"),
        (topics.update("d", 1), "device", "no"),
        (topics.update("d", 1, 2), "device", "no"),
        (topics.query("d", 1), "device", "no"),
        (topics.status("d"), "device", "yes, and last will"),
        (topics.receipt("d"), "aggregator", "no"),
    ]
    rows = re.findall(r"^\| `([a-z/<>]+)` \| `\w+` \| (\w+) \| [\w ]+ \| ([\w ,]+) \|$", PAGE, re.MULTILINE)
    values = {"<version>": "1", "<round>": "1", "<chunk>": "2", "<device>": "d"}
    written = [(re.sub("<[a-z]+>", lambda name: values[name[0]], topic), *rest) for topic, *rest in rows]
    assert [(f"fedmq/v1/f/{topic}", *rest) for topic, *rest in written] == made


def test_the_example_flies_the_flags_of_the_topics() -> None:
    for sample in ROUND:
        assert sample.retained is not bool(re.search("/update/|/query/|/receipt", sample.topic))


@pytest.mark.parametrize("option", [[], ["--vectors"], ["--asyncapi"]])
def test_the_tool_writes_what_is_stored(
    option: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, document = tmp_path / "protocol.md", tmp_path / "asyncapi.yaml"
    page.write_text(PAGE, encoding="utf-8")
    monkeypatch.setattr(print_wire, "PAGE", page)
    monkeypatch.setattr(print_wire, "ASYNCAPI", document)
    stored = {name: (print_wire.VECTORS / name).read_text(encoding="utf-8") for name in wire_vectors.FILES}
    monkeypatch.setattr(print_wire, "VECTORS", tmp_path)
    monkeypatch.setattr("sys.argv", ["print_wire", *option])
    print_wire.main()
    assert page.read_text(encoding="utf-8") == PAGE
    if "--vectors" in option:
        assert {name: (tmp_path / name).read_text(encoding="utf-8") for name in stored} == stored
    if "--asyncapi" in option:
        assert document.read_text(encoding="utf-8").startswith("# Printed by")
