"""Budgets on the aggregator's side: what a round took turns the codec of the next."""

from __future__ import annotations

import pytest

from fedmq.aggregator.roundcodecs import RoundCodecs
from fedmq.aggregator.settings import Encoding
from fedmq.aggregator.steering import PREFIX, Budget, Pace, Seen, Steering, told
from fedmq.codecs import parse
from fedmq.errors import ConfigError
from fedmq.protocol.quantities import ByteCount
from tests.unit.protocol.stage import task

SAMPLE = parse("rotate | sample(0.1) | eden")
STEP = parse("deadzone(2) | lzma")
NONE = parse("float32")


def seen(
    round_: int = 1, answers: int = 10, bytes_up: int = 10_000, seconds: float = 60.0, step: int = 0
) -> Seen:
    return Seen(round_, answers, bytes_up, devices=10, seconds=seconds, step_bytes=step)


def test_without_a_budget_nothing_is_turned_or_told() -> None:
    steering = Steering(Budget(), SAMPLE, NONE)
    steering.seen(seen())
    assert (steering.up, steering.down) == (SAMPLE, NONE)
    assert steering.figures(1) == {}
    assert told({}) == []


def test_a_budget_a_round_turns_the_share() -> None:
    steering = Steering(Budget(up=ByteCount(500)), SAMPLE, NONE)
    steering.seen(seen())
    assert str(steering.up) == "rotate | sample(0.0475) | eden"
    figures = steering.figures(1)
    assert figures == {f"{PREFIX}up": 500.0, f"{PREFIX}up_bytes": 1000.0, f"{PREFIX}up_share": 0.1}
    assert told(figures) == ["up 1.0 kB of 500 B a device at share 0.1"]
    assert steering.figures(1) == {}, "a round is told of once"


def test_a_budget_a_day_is_shared_out_over_the_rounds_of_a_day() -> None:
    steering = Steering(Budget(up=ByteCount(1_440_000), per="day"), SAMPLE, NONE)
    steering.seen(seen())  # one answer of each device a minute
    assert steering.figures(1)[f"{PREFIX}up"] == pytest.approx(1000.0)
    steering.seen(seen(2, seconds=240.0))
    assert steering.figures(2)[f"{PREFIX}up"] > 2000.0
    rare = Steering(Budget(up=ByteCount(500), per="day"), SAMPLE, NONE)
    rare.seen(seen(seconds=1e6))
    assert rare.figures(1)[f"{PREFIX}up"] == 500.0, "a round that takes days gets one day's"


def test_steps_between_models_have_a_budget_of_their_own() -> None:
    steering = Steering(Budget(down=ByteCount(500)), SAMPLE, STEP)
    steering.seen(seen(step=0))
    assert steering.down == STEP, "a model published whole says nothing of steps"
    steering.seen(seen(2, step=2000))
    assert steering.down != STEP
    assert steering.up == SAMPLE
    assert told(steering.figures(2)) == ["down 2.0 kB of 500 B a device at threshold 2"]


def test_a_round_without_answers_turns_nothing() -> None:
    steering = Steering(Budget(up=ByteCount(500)), SAMPLE, NONE)
    steering.seen(seen(answers=0, bytes_up=0))
    assert steering.up == SAMPLE


def test_after_a_restart_it_goes_on_from_the_newest_of_its_codecs() -> None:
    lines = ["rotate | sample(0.02) | eden", "rotate | sample(0.03) | eden", "int8"]
    assert str(Steering(Budget(up=ByteCount(500)), SAMPLE, NONE, lines).up) == lines[1]
    assert Steering(Budget(), SAMPLE, NONE, lines).up == SAMPLE


def test_after_a_restart_the_steps_between_models_go_on_as_well() -> None:
    steering = Steering(Budget(down=ByteCount(500)), SAMPLE, STEP)
    steering.seen(seen(2, step=2000))
    turned = steering.down
    assert turned != STEP
    again = Steering(Budget(down=ByteCount(500)), SAMPLE, STEP, earlier_down=[str(STEP), str(turned), "int8"])
    assert again.down == turned


def test_nothing_known_of_the_pace_is_one_answer_a_day() -> None:
    assert Pace().answers_a_day == 1.0


def test_a_codec_with_nothing_to_turn_cannot_have_a_budget() -> None:
    with pytest.raises(ConfigError, match="`int8` has nothing to turn for a budget"):
        Encoding(up=parse("int8"), budget=Budget(up=ByteCount(500)))
    with pytest.raises(ConfigError, match="budget down is -1 bytes"):
        Budget(down=ByteCount(-1))


def test_the_codec_of_a_round_is_its_own_or_the_next_that_is_known() -> None:
    codecs = RoundCodecs("float32")
    assert str(codecs.of(7)) == "float32"
    codecs.recall({3: "int8", 4: "", 5: "float16"})
    assert [str(codecs.of(round_)) for round_ in (2, 3, 4, 5, 6)] == [
        "int8",
        "int8",
        "float16",
        "float16",
        "float32",
    ]
    codecs.open(task(6, oldest=4, codec="int8 | lzma"))
    assert codecs.lines == {5: "float16", 6: "int8 | lzma"}
