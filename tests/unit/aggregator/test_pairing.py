"""Rules and codecs brought together: a pair that cannot work is refused, one that hardly works is talked about."""

from __future__ import annotations

import pytest

from fedmq.aggregator.encodings import ENCODINGS
from fedmq.aggregator.pairing import advice, noise
from fedmq.aggregator.settings import Encoding, Federation
from fedmq.algorithms import Algorithm, Plain, Scaffold
from fedmq.codecs import parse
from fedmq.errors import ConfigError
from fedmq.protocol.policy import Policy
from fedmq.rules import PRESETS, ByLayer, Momentum, Part, Replace, Rule, Scheduled, preset

NOISY = "rotate | sample(0.05) | eden"
MANY = Policy(min_devices=20)


def federation(
    up: str, rule: str = "fedavg", algorithm: Algorithm | None = None, policy: Policy = MANY
) -> Federation:
    return Federation(
        "f", preset(rule), policy, encoding=Encoding(up=parse(up)), algorithm=algorithm or Plain()
    )


def test_a_rule_that_compares_updates_refuses_a_noisy_codec_and_says_why_and_what_to_do() -> None:
    with pytest.raises(
        ConfigError, match=r"krum\(0.2\) cannot work with updates as `rotate .*compares.*take `safe`"
    ):
        federation(NOISY, "krum")
    federation("safe", "krum")
    federation(NOISY, "fedavg")


def test_a_guard_by_norm_refuses_it_too() -> None:
    with pytest.raises(ConfigError, match="goes by the length"):
        federation(NOISY, "clipped")


def test_an_algorithm_that_remembers_refuses_it() -> None:
    with pytest.raises(ConfigError, match=r"scaffold cannot work with .*remember"):
        federation(NOISY, algorithm=Scaffold())


@pytest.mark.parametrize("rule", PRESETS)
@pytest.mark.parametrize("name", ["exact", "safe"])
def test_what_suits_all_suits_all(rule: str, name: str) -> None:
    found = Federation("f", preset(rule), encoding=ENCODINGS[name])
    assert not list(advice(found))


@pytest.mark.parametrize("name", ENCODINGS)
def test_every_encoding_suits_averaging(name: str) -> None:
    assert not list(advice(Federation("f", preset("fedavg"), MANY, encoding=ENCODINGS[name])))


def test_a_biased_codec_without_feedback_is_talked_about() -> None:
    (sentence,) = advice(federation("deadzone(3) | bitmap | lzma"))
    assert "write `feedback | deadzone | bitmap | lzma`" in sentence
    assert not list(advice(federation("feedback | deadzone(3) | bitmap | lzma")))


@pytest.mark.parametrize("policy", [Policy(min_devices=20, buffer=3), Policy(min_devices=20, fraction=0.2)])
def test_noise_that_few_updates_average_is_talked_about(policy: Policy) -> None:
    (sentence,) = advice(federation(NOISY, policy=policy))
    assert "take `safe`, or wait for more devices" in sentence


@pytest.mark.parametrize(
    ("rule", "carried"), [("fedavgm", 2.3), ("fedadam", 1.8), ("fedyogi", 1.8), ("fedadagrad", 1.8)]
)
def test_noise_that_steps_carry_on_is_talked_about_sooner(rule: str, carried: float) -> None:
    (sentence,) = advice(federation(NOISY, rule, policy=Policy(min_devices=10)))
    assert "a mean of 10, all that a round may have, one of 1.8, which the rule's step" in sentence
    assert f"makes {carried} times as much from round to round: take `lean`" in sentence
    assert not list(advice(federation(NOISY, rule, policy=Policy(min_devices=30))))
    assert not list(advice(federation(NOISY, policy=Policy(min_devices=10))))
    assert not list(advice(federation("lean", rule, policy=Policy(min_devices=2))))


def test_a_scheduled_step_is_judged_by_the_one_inside() -> None:
    plain, moving = (
        Federation(
            "f", Rule(step=Scheduled(step)), Policy(min_devices=10), encoding=Encoding(up=parse(NOISY))
        )
        for step in (Replace(), Momentum())
    )
    assert not list(advice(plain))
    assert len(list(advice(moving))) == 1


def test_rules_made_of_rules_are_not_judged_by_their_steps() -> None:
    layers = ByLayer((Part(("*",), preset("fedavgm")),))
    found = Federation("f", layers, Policy(min_devices=10), encoding=Encoding(up=parse(NOISY)))
    assert not list(advice(found))


@pytest.mark.parametrize(("line", "error"), [("stateless", 5.6), ("extreme", 8.8), ("float32", 0.0)])
def test_noise_is_what_codecs_make_of_real_updates_too(line: str, error: float) -> None:
    assert noise(parse(line)) == pytest.approx(error, rel=0.1)
