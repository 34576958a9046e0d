"""The published test vectors hold, and cover every stage."""

import json
from typing import Any

import numpy as np
import pytest

from fedmq.codecs import STAGES, parse
from fedmq.errors import DecodeError
from fedmq.vectors import Vector
from tests.unit.codecs.golden import ABOUT, FILE, LINES, canonical, hexed, pairs, steady

PUBLISHED: dict[str, Any] = json.loads(FILE.read_text())


def vector(text: str) -> Vector:
    return np.frombuffer(bytes.fromhex(text), dtype="<f4").astype(np.float32)


def named(case: dict[str, Any]) -> str:
    return f"{case['codec']}: {case.get('name', case.get('why'))}"


@pytest.mark.parametrize("case", PUBLISHED["good"], ids=named)
def test_a_published_message_decodes_bit_by_bit(case: dict[str, Any]) -> None:
    codec, sizes = parse(case["codec"]), case["sizes"]
    decoded = codec.decode(bytes.fromhex(case["message"]), sizes, seed=int(case["seed"], 16))
    assert hexed(decoded) == case["decoded"]


@pytest.mark.parametrize("case", PUBLISHED["good"], ids=named)
def test_a_published_vector_encodes_to_the_message_or_its_equal(case: dict[str, Any]) -> None:
    codec, sizes, seed = parse(case["codec"]), case["sizes"], int(case["seed"], 16)
    message = codec.encode(vector(case["vector"]), sizes, seed=seed)
    decoded = codec.decode(message, sizes, seed=seed)
    assert hexed(decoded) == case["decoded"] or not steady(codec)
    assert np.allclose(decoded, vector(case["decoded"]), rtol=1e-3, atol=1e-30)
    assert message.hex() == case["message"] or not case["canonical"]
    assert case["canonical"] == canonical(codec)


@pytest.mark.parametrize("case", PUBLISHED["bad"], ids=named)
def test_a_published_bad_message_is_refused(case: dict[str, Any]) -> None:
    with pytest.raises(DecodeError):
        parse(case["codec"]).decode(bytes.fromhex(case["message"]), case["sizes"])


def test_the_file_has_every_vector_under_every_line() -> None:
    assert PUBLISHED["about"] == ABOUT
    assert [(case["codec"], case["name"]) for case in PUBLISHED["good"]] == pairs()


@pytest.mark.parametrize("stage", STAGES)
def test_every_spelling_of_every_stage_has_a_vector(stage: str) -> None:
    used = {part for line in LINES for part in line.split(" | ")}
    assert set(STAGES[stage].examples) <= used | {"dense", "packed", "none"}  # written by leaving them out
