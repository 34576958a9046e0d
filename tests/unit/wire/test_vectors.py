"""The golden vectors: stored once, the same ever since."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from fedmq.errors import MessageError
from fedmq.protocol.cohort import in_cohort
from fedmq.protocol.messages import Chunk
from fedmq.vectors import Layout, Variable
from fedmq.wire.chunks import Assembly, Collector, cut
from fedmq.wire.envelope import decode, encode
from fedmq.wire.table import MESSAGES
from tools.print_wire import VECTORS, vectors
from tools.wire_samples import EXTREMES, ROUND
from tools.wire_vectors import FILES

KINDS = {struct.make.__name__: struct.make for struct in MESSAGES.values()}
SAMPLES = {sample.name: sample for sample in (*ROUND, *EXTREMES)}


def stored(name: str) -> Any:  # noqa: ANN401 - JSON
    return json.loads((VECTORS / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", FILES)
def test_the_wire_is_what_it_was(name: str) -> None:
    assert vectors()[name] == (VECTORS / name).read_text(encoding="utf-8"), (
        "The bytes on the wire have changed. Devices in the field speak the stored ones: this is a new version of the "
        "protocol (see docs/explanation/protocol.md, Versions). New samples only: python -m tools.print_wire --vectors"
    )


@pytest.mark.parametrize("row", stored("messages.json"), ids=lambda row: row["name"])
def test_messages_are_read_and_written(row: dict[str, Any]) -> None:
    message = SAMPLES[row["name"]].message
    assert encode(message).hex() == row["encoded"]
    assert decode(bytes.fromhex(row["encoded"]), KINDS[row["type"]]) == message


def test_there_is_a_vector_for_every_type() -> None:
    assert {row["type"] for row in stored("messages.json")} == KINDS.keys()
    assert len(SAMPLES) == len(ROUND) + len(EXTREMES)


@pytest.mark.parametrize("row", stored("accepted.json"), ids=lambda row: row["how"])
def test_other_forms_are_read(row: dict[str, Any]) -> None:
    message = SAMPLES[row["message"]].message
    assert decode(bytes.fromhex(row["encoded"]), type(message)) == message


@pytest.mark.parametrize("row", stored("invalid.json"), ids=lambda row: row["why"])
def test_invalid_messages_are_refused(row: dict[str, Any]) -> None:
    with pytest.raises(MessageError):
        decode(bytes.fromhex(row["encoded"]), KINDS[row["type"]])


def test_no_two_invalid_messages_are_the_same() -> None:
    rows = [(row["type"], row["encoded"]) for row in stored("invalid.json")]
    assert len(set(rows)) == len(rows)


@pytest.mark.parametrize("row", stored("chunks.json"), ids=lambda row: row["name"])
def test_bodies_are_cut_and_put_together(row: dict[str, Any]) -> None:
    body = bytes.fromhex(row["body"])
    pieces = [decode(bytes.fromhex(piece), Chunk) for piece in row["chunks"]]
    assert list(cut(body, bytes.fromhex(row["run"]), bytes.fromhex(row["stem"]), row["room"])) == pieces
    for order in itertools.islice(itertools.permutations(pieces), 24):
        collector = Collector(len(body))
        assert [collector.take(piece) for piece in order][-1] == body
    for stranger in row["strangers"]:
        with pytest.raises(MessageError, match="another body"):
            Assembly.begin(pieces[0], len(body)).take(decode(bytes.fromhex(stranger["encoded"]), Chunk))


@pytest.mark.parametrize(
    "row", stored("cohort.json"), ids=lambda row: f"{row['device'][:8]} {row['fraction']}"
)
def test_the_cohort_is_found(row: dict[str, Any]) -> None:
    assert in_cohort(row["device"], bytes.fromhex(row["salt"]), row["fraction"]) is row["in"]


@pytest.mark.parametrize("row", stored("layout.json"), ids=lambda row: row["digest"])
def test_layouts_have_their_digests(row: dict[str, Any]) -> None:
    layout = Layout(tuple(Variable(**{**v, "shape": tuple(v["shape"])}) for v in row["variables"]))
    assert (list(layout.sizes), layout.digest.hex()) == (row["sizes"], row["digest"])
