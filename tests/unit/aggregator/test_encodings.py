"""Which encoding is the thriftiest for each preset of rules: one that fedmq takes without a word."""

from __future__ import annotations

import pytest

from fedmq.aggregator.encodings import DEFAULT, ENCODING_PURPOSES, ENCODINGS, THRIFTIEST, encoding
from fedmq.aggregator.pairing import advice
from fedmq.aggregator.settings import Federation
from fedmq.errors import ConfigError
from fedmq.inspection.parts import find
from fedmq.protocol.policy import Policy
from fedmq.rules import PRESETS, preset


def test_every_preset_of_rules_has_been_measured() -> None:
    assert set(THRIFTIEST) == set(PRESETS)


@pytest.mark.parametrize("rule", PRESETS)
def test_the_thriftiest_pairs_are_taken_without_a_word(rule: str) -> None:
    for devices, name in zip((20, 5), THRIFTIEST[rule], strict=True):
        found = Federation("f", preset(rule), Policy(min_devices=devices), encoding=ENCODINGS[name])
        assert not list(advice(found)), name


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("fedavg", "`extreme` with 20 devices in a round, `lean` with 5."),
        ("median", "as measured where nobody lies: `lean`."),
    ],
)
def test_a_rules_page_names_the_default_and_the_thriftiest(rule: str, said: str) -> None:
    (part,) = find(f"presets/{rule}")
    told = part.doc.sections["Codec"]
    assert f"Where no encoding is given it is `{DEFAULT}`." in told
    assert told.endswith(said)


def test_an_encoding_that_is_not_there_is_refused_with_the_nearest() -> None:
    assert set(ENCODING_PURPOSES) == set(ENCODINGS)
    with pytest.raises(ConfigError, match="did you mean 'lean'"):
        encoding("leen")
    with pytest.raises(ConfigError, match="known are exact, safe"):
        encoding("quux")
