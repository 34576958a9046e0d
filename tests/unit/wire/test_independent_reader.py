"""The specification suffices: a reader made from its text alone passes every vector, as the page asks of a peer."""

from __future__ import annotations

import ast
import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmq.errors import MessageError
from fedmq.wire.envelope import decode, encode
from fedmq.wire.table import MESSAGES
from tests.unit.wire import independent
from tests.unit.wire.independent import Reader, RefusedError
from tests.unit.wire.mutations import mutants
from tests.unit.wire.strategies import messages

VECTORS = Path(__file__).parents[2] / "vectors"
KINDS = {struct.make.__name__: struct.make for struct in MESSAGES.values()}


def vectors(name: str) -> Any:  # noqa: ANN401 - JSON
    return json.loads((VECTORS / name).read_text(encoding="utf-8"))


MESSAGE_VECTORS = {row["name"]: row for row in vectors("messages.json")}


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader()


def test_the_reader_knows_nothing_of_fedmq() -> None:
    tree = ast.parse(Path(independent.__file__).read_text(encoding="utf-8"))
    names = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert not {
        name for name in names if name and name.split(".")[0] in {"fedmq", "msgpack", "tests", "tools"}
    }


@pytest.mark.parametrize("row", MESSAGE_VECTORS.values(), ids=MESSAGE_VECTORS.keys())
def test_reads_every_message(reader: Reader, row: dict[str, Any]) -> None:
    assert reader.message(row["type"], bytes.fromhex(row["encoded"])) == row["message"]


@pytest.mark.parametrize("row", vectors("accepted.json"), ids=lambda row: row["how"])
def test_reads_every_other_form(reader: Reader, row: dict[str, Any]) -> None:
    wanted = MESSAGE_VECTORS[row["message"]]
    assert row["encoded"] != wanted["encoded"]
    assert reader.message(wanted["type"], bytes.fromhex(row["encoded"])) == wanted["message"]


@pytest.mark.parametrize("row", vectors("invalid.json"), ids=lambda row: row["why"])
def test_refuses_what_must_be_refused(reader: Reader, row: dict[str, Any]) -> None:
    with pytest.raises(RefusedError):
        reader.message(row["type"], bytes.fromhex(row["encoded"]))


@pytest.mark.parametrize("row", vectors("chunks.json"), ids=lambda row: row["name"])
def test_puts_bodies_together(reader: Reader, row: dict[str, Any]) -> None:
    chunks = [reader.message("Chunk", bytes.fromhex(chunk)) for chunk in row["chunks"]]
    strangers = [reader.message("Chunk", bytes.fromhex(stranger["encoded"])) for stranger in row["strangers"]]
    assert independent.assemble([*chunks[::-1], *strangers, *chunks]).hex() == row["body"]


@pytest.mark.parametrize(
    "row", vectors("cohort.json"), ids=lambda row: f"{row['device'][:8]} {row['fraction']}"
)
def test_finds_the_cohort(row: dict[str, Any]) -> None:
    assert independent.in_cohort(bytes.fromhex(row["salt"]), row["fraction"], row["device"]) is row["in"]


@pytest.mark.parametrize("row", vectors("layout.json"), ids=lambda row: row["digest"])
def test_computes_layout_digests(row: dict[str, Any]) -> None:
    assert independent.layout(row["variables"]) == (row["sizes"], row["digest"])


def test_computes_seeds() -> None:
    seeds = vectors("seeds.json")
    for row in seeds["update"]:
        assert independent.update_seed(row["run"], row["round"], row["update"]) == row["seed"]
    for row in seeds["frame"]:
        assert independent.frame_seed(row["run"], row["version"]) == row["seed"]


def test_follows_the_worked_example_to_the_second_model(reader: Reader) -> None:
    model = [0.0] * 8
    for name, frame in (("first model", "first model"), ("second model", "delta to the second model")):
        row = MESSAGE_VECTORS[f"{frame}, its only chunk"]
        body = independent.assemble([reader.message("Chunk", bytes.fromhex(row["encoded"]))])
        data = bytes.fromhex(reader.message("Frame", body)["data"])
        model = [old + new for old, new in zip(model, struct.unpack("<8f", data), strict=True)]
        manifest = reader.message("Manifest", bytes.fromhex(MESSAGE_VECTORS[f"{name}, manifest"]["encoded"]))
        replica = hashlib.sha256(struct.pack("<8f", *model)).hexdigest()[:16]
        assert replica == manifest["replica"]
    assert model == [0.75, 0.0, 0.0, 1.0, 0.5, -0.5, 1.0, 2.0]


# --- both readers say the same of anything ----------------------------------------------------------------------------


@pytest.mark.parametrize("number", sorted(MESSAGES), ids=lambda number: MESSAGES[number].make.__name__)
@settings(max_examples=25)
@given(data=st.data())
def test_agrees_with_fedmq_on_mutants(reader: Reader, number: int, data: st.DataObject) -> None:
    whole = encode(data.draw(messages(number)))
    candidate = data.draw(mutants(whole) | st.just(whole))
    kind = MESSAGES[number].make
    assert taken_here(kind, candidate) is taken_there(reader, kind, candidate)


def taken_here(kind: type, data: bytes) -> bool:
    try:
        decode(data, kind)
    except MessageError:
        return False
    return True


def taken_there(reader: Reader, kind: type, data: bytes) -> bool:
    try:
        reader.message(kind.__name__, data)
    except RefusedError:
        return False
    return True
