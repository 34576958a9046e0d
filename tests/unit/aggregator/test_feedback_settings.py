"""Where error feedback has no place."""

from __future__ import annotations

import pytest

from fedmq.aggregator.settings import Encoding, Federation
from fedmq.algorithms import Differences, Scaffold
from fedmq.codecs import parse
from fedmq.errors import ConfigError

FEEDBACK = parse("feedback(0.9) | int8")


def test_the_published_model_has_none() -> None:
    with pytest.raises(ConfigError, match=r"`feedback\(0.9\) \| int8`: leave `feedback` out there"):
        Encoding(down=FEEDBACK)
    assert Encoding(up=FEEDBACK).up.feedback is not None


def test_an_algorithm_that_makes_good_what_codecs_lose_has_none() -> None:
    with pytest.raises(ConfigError, match="differences makes good itself"):
        Federation("f", encoding=Encoding(up=FEEDBACK), algorithm=Differences())
    Federation("f", encoding=Encoding(up=parse("int8")), algorithm=Differences())
    Federation("f", encoding=Encoding(up=FEEDBACK), algorithm=Scaffold())
