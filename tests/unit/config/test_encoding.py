"""Encodings in files: by name, as a preset with changes, with budgets; and what is said where nothing is."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from fedmq.aggregator.encodings import DEFAULT, ENCODING_PURPOSES, ENCODINGS, encoding
from fedmq.aggregator.settings import Encoding
from fedmq.aggregator.steering import Budget
from fedmq.codecs import parse
from fedmq.config import AggregatorFile, structure
from fedmq.config.encoding import name_of
from fedmq.config.tables import tables
from fedmq.device.metering import LinkTable
from fedmq.errors import ConfigError
from fedmq.protocol.quantities import ByteCount

LEAST: dict[str, Any] = {"federation": {"name": "f", "folder": "x"}, "model": {"file": "m"}}


def read(table: Any = None, **more: Any) -> Encoding:  # noqa: ANN401 - whatever a file may hold
    given = {} if table is None else {"encoding": table}
    return structure({**LEAST, **given, **more}, AggregatorFile).settings().encoding


def test_without_a_table_it_is_the_default() -> None:
    assert read() == read({}) == ENCODINGS[DEFAULT]


@pytest.mark.parametrize("name", ENCODINGS)
def test_a_preset_is_named(name: str) -> None:
    assert read(name) == read({"preset": name}) == encoding(name) == ENCODINGS[name]
    assert ENCODING_PURPOSES[name].endswith(".")
    assert structure(json.loads(json.dumps(tables(ENCODINGS[name]))), Encoding) == ENCODINGS[name]
    assert name_of(ENCODINGS[name]) == f"preset {name}"


def test_keys_change_a_preset() -> None:
    found = read({"preset": "exact", "up": "int8 | lzma", "keyframe_every": 5})
    assert found == replace(ENCODINGS["exact"], up=parse("int8 | lzma"), keyframe_every=5)
    assert name_of(replace(ENCODINGS["exact"], chunk_bytes=5000)) == "preset exact but for chunk_bytes"


def test_keys_alone_change_the_default() -> None:
    assert read({"keyframe_every": 5}) == replace(ENCODINGS[DEFAULT], keyframe_every=5)


@pytest.mark.parametrize("name", ENCODINGS)
def test_whole_models_alone_need_no_word_about_the_steps_between(name: str) -> None:
    found = read({"preset": name, "keyframe_every": 1, "key": "float32"})
    assert (found.keyframe_every, found.down.exact) == (1, True)
    with pytest.raises(ConfigError, match="each model travels whole"):
        read({"preset": name, "keyframe_every": 1, "down": "int8"})


def test_a_budget_goes_with_the_preset_s_codec() -> None:
    found = read({"preset": "stateless", "budget": {"up": "2 MB", "per": "day"}})
    assert found.budget == Budget(up=ByteCount(2_000_000), per="day")
    assert read({"preset": "stateless", "budget": {"up": 700}}).budget.up == 700
    assert structure(tables(found), Encoding) == found


WRONG: dict[str, tuple[Any, str]] = {
    "a preset that is none": ("safest", "there is no encoding 'safest': did you mean 'safe'?"),
    "a preset like no other": ({"preset": "qqq"}, "known are exact, safe"),
    "a preset that is no text": ({"preset": 3}, "preset is 3; a text in quotes was wanted"),
    "no table": (3, "is 3; a preset's name or a table was wanted"),
    "an unknown key": ({"presett": "safe"}, "did you mean 'preset'?"),
    "a budget for a codec that cannot be turned": (
        {"budget": {"up": 700}},
        "has nothing to turn for a budget",
    ),
    "a budget that is no number": ({"preset": "lean", "budget": {"up": 1.5}}, "a number of bytes was wanted"),
    "a budget in no unit": ({"preset": "lean", "budget": {"up": "2 MiB"}}, "encoding.budget.up is '2 MiB'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_is_told_in_a_sentence(name: str) -> None:
    table, sentence = WRONG[name]
    with pytest.raises(ConfigError) as told:
        read(table)
    assert sentence in str(told.value)


def test_a_pair_that_cannot_work_is_refused_as_the_file_is_read() -> None:
    with pytest.raises(ConfigError, match="median cannot work with updates as"):
        structure({**LEAST, "encoding": "stateless", "rule": "median"}, AggregatorFile)


def test_a_link_has_its_limit_in_words() -> None:
    assert structure({"metered": True, "bytes_per_day": "2 MB"}, LinkTable).bytes_per_day == 2_000_000
