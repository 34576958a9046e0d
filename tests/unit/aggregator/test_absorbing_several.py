"""Updates that are decoded together are taken as if each had come alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fedmq.aggregator import modelling as module
from fedmq.aggregator.modelling import Answer, Modelling
from fedmq.aggregator.settings import Federation
from fedmq.codecs import Codec, parse
from fedmq.errors import MisuseError
from fedmq.protocol.messages import DELTA, Facts, Task, TaskKind, Update
from fedmq.protocol.seeds import update_seed
from fedmq.testing.federation import SMALL
from fedmq.vectors import Vector

RUN = b"run-one."
NAN = np.full(SMALL.size, np.nan, np.float32).tobytes()


def task(round_: int, codec: str) -> Task:
    return Task(RUN, round_, 1, TaskKind.TRAIN, 1, SMALL.digest, b"s" * 16, 1.0, 9.0, codec, 9999)


def opened(*codecs: str) -> Modelling:
    """Return a model in its last round of so many, each with a codec of its own; all are still taken."""
    modelling = Modelling.found(Federation("watches"), RUN, SMALL, np.zeros(SMALL.size, np.float32))
    for round_, codec in enumerate(codecs, start=1):
        modelling.begin(task(round_, codec))
    return modelling


def delta(number: int) -> Vector:
    return np.random.default_rng(number).normal(size=SMALL.size).astype(np.float32)


def answer(number: int, codec: Codec, round_: int = 1, body: bytes | None = None) -> Answer:
    name = number.to_bytes(8, "big")
    if body is None:
        body = codec.encode(delta(number), SMALL.sizes, seed=update_seed(RUN, round_, name))
    return Answer(Update(RUN, name, 1, SMALL.digest, Facts(number + 1), {DELTA: body}), round_)


def moved(modelling: Modelling) -> bytes:
    return modelling.finish(2).weights.vector.tobytes()


@pytest.mark.parametrize("line", ["float32", "int8", "fold(2) | rotate(2) | eden"])
@pytest.mark.parametrize("at_once", [1, SMALL.size, 3 * SMALL.size, 1 << 20])
def test_together_they_move_the_model_as_one_by_one(
    line: str, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_DECODED_AT_ONCE", at_once)
    answers = [answer(number, parse(line)) for number in range(8)]
    together, apart = opened(line), opened(line)
    assert together.absorb_all(answers) == [None] * 8
    for each in answers:
        apart.absorb(each.update, each.round)
    assert moved(together) == moved(apart)


@pytest.mark.parametrize("bad", [0, 2, 4])
@pytest.mark.parametrize("body", [b"", b"far too short", NAN])
def test_a_bad_one_is_refused_and_the_others_count(bad: int, body: bytes) -> None:
    codec = parse("float32")
    answers = [answer(n, codec, body=body if n == bad else None) for n in range(5)]
    modelling, without = opened("float32"), opened("float32")
    wrong = modelling.absorb_all(answers)
    assert [error is not None for error in wrong] == [n == bad for n in range(5)]
    without.absorb_all([each for n, each in enumerate(answers) if n != bad])
    assert moved(modelling) == moved(without)


def test_a_guard_that_refuses_one_lets_the_others_in() -> None:
    codec = parse("int8")
    answers = [answer(n, codec) for n in range(3)]
    answers[1] = Answer(replace(answers[1].update, facts=Facts(0)), 1)
    wrong = opened("int8").absorb_all(answers)
    assert "0 examples" in str(wrong[1])
    assert (wrong[0], wrong[2]) == (None, None)


def test_one_without_a_delta_is_refused_alone() -> None:
    codec = parse("int8")
    answers = [answer(n, codec) for n in range(3)]
    answers[0] = Answer(replace(answers[0].update, sections={}), 1)
    wrong = opened("int8").absorb_all(answers)
    assert "has no section" in str(wrong[0])
    assert wrong[1:] == [None, None]


def test_each_round_has_its_own_codec() -> None:
    modelling, rounds = opened("int8", "float32"), (1, 2, 1, 1, 2)
    codecs = {1: parse("int8"), 2: parse("float32")}
    answers = [answer(n, codecs[round_], round_) for n, round_ in enumerate(rounds)]
    assert modelling.absorb_all(answers) == [None] * 5


def test_after_the_round_none_is_taken() -> None:
    modelling = opened("int8")
    modelling.discard()
    wrong = modelling.absorb_all([answer(n, parse("int8")) for n in range(2)])
    assert [type(error) for error in wrong] == [MisuseError, MisuseError]
