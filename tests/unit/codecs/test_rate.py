"""The search for a budget: it ends under it and near it on any monotone curve, and stays there."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmq.codecs import Codec, parse
from fedmq.codecs.entropy import Zlib
from fedmq.codecs.quantise import Int8
from fedmq.codecs.rate import AIM, Dial, Rate, Search, dial, loosest, rate_of, require_dial
from fedmq.errors import ConfigError
from tests.unit.codecs.transforms import Flip

if TYPE_CHECKING:
    from collections.abc import Callable

BUDGET = 800.0
RISING = Rate("share", 0.001, 1.0)
FALLING = Rate("step", 0.1, 20.0, slope=-3.0)
RANKS = Rate("rank", 1, 64, whole=True)
LAYERS = Rate("layers", 2, 1000, slope=-1.0, whole=True)


@dataclass(frozen=True, slots=True)
class Sparse(Int8):
    """A quantiser with something to turn."""

    rate: ClassVar[Rate] = RISING
    share: float = 0.5


@dataclass(frozen=True, slots=True)
class Coarse(Int8):
    """One that takes fewer bytes the larger its step."""

    rate: ClassVar[Rate] = FALLING
    step: float = 2.0


@dataclass(frozen=True, slots=True)
class Turning(Zlib):
    """An entropy coder with something to turn, for the places behind the quantiser."""

    rate: ClassVar[Rate] = Rate("share", 0.1, 1.0)
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class Shrinking(Flip):
    """A transform with something to turn."""

    rate: ClassVar[Rate] = Rate("factor", 0.25, 4.0)


def ride(
    curve: Callable[[float, int], float], rate: Rate, value: float, rounds: int
) -> list[tuple[float, float]]:
    """Return value and share of the budget, round by round."""
    search, seen = Search(), []
    for round_ in range(rounds):
        nbytes = curve(value, round_)
        seen.append((value, nbytes / BUDGET))
        search, value = search.turned(rate, value, nbytes, BUDGET)
    return seen


def test_bytes_that_are_proportional_meet_the_budget_at_the_second_turn() -> None:
    seen = ride(lambda value, _: 20_000 * value, RISING, 0.1, 3)
    assert [round(share, 2) for _, share in seen] == [2.5, 0.95, 0.95]


def test_bytes_that_every_message_takes_beside_are_seen_through_at_the_third() -> None:
    seen = ride(lambda value, _: 300 + 2000 * value, RISING, 0.05, 4)
    assert [round(share, 2) for _, share in seen][2:] == [0.95, 0.95]


@given(
    rate=st.sampled_from([RISING, FALLING]),
    power=st.floats(0.3, 6.0),
    at=st.floats(0.1, 0.9),
    bend=st.floats(0.0, 1.0),
    start=st.floats(0.0, 1.0),
)
def test_any_monotone_curve_ends_under_the_budget_and_within_a_tenth_of_it(
    rate: Rate, power: float, at: float, bend: float, start: float
) -> None:
    low, high = math.log(rate.least), math.log(rate.most)
    middle, sign = low + at * (high - low), math.copysign(1.0, rate.slope)

    def curve(value: float, _: int) -> float:
        away = sign * (math.log(value) - middle)
        return BUDGET * 0.93 * math.exp(power * (away + bend * math.tanh(3 * away)))

    shares = [share for _, share in ride(curve, rate, rate.rounded(math.exp(low + start * (high - low))), 40)]
    assert all(0.9 <= share <= 1.0 for share in shares[-20:])


@given(
    jumps=st.lists(st.tuples(st.floats(0.002, 0.9), st.floats(1.0, 1e4)), min_size=1, max_size=6),
    start=st.floats(0.001, 1.0),
)
def test_where_bytes_jump_over_the_budget_it_stays_below(
    jumps: list[tuple[float, float]], start: float
) -> None:
    seen = ride(lambda value, _: 1 + sum(size for at, size in jumps if value >= at), RISING, start, 60)
    assert all(share <= 1.0 for _, share in seen[-20:])
    assert len({value for value, _ in seen[-20:]}) == 1


@given(
    rate=st.sampled_from([RANKS, LAYERS]),
    scale=st.floats(0.02, 50.0),
    start=st.floats(0.0, 1.0),
)
def test_whole_numbers_end_at_the_last_that_keeps_the_budget(rate: Rate, scale: float, start: float) -> None:
    sign = math.copysign(1.0, rate.slope)

    def curve(value: float, _: int) -> float:
        return BUDGET * scale * math.pow(value / 8, sign)

    seen = ride(curve, rate, rate.rounded(rate.least + start * (rate.most - rate.least)), 40)
    assert all(isinstance(value, int) for value, _ in seen)
    value, share = seen[-1]
    assert {value} == {last for last, _ in seen[-10:]}
    fewest = rate.least if sign > 0 else rate.most
    assert share <= 1.0 or value == fewest
    more = value + sign
    assert share >= 0.9 or curve(more, 0) > AIM * BUDGET or not rate.least <= more <= rate.most


@pytest.mark.parametrize(
    ("line", "turned"), [("fold | rotate | eden", "fold(3)"), ("lowrank | int4", "lowrank(3)")]
)
def test_stages_with_whole_numbers_are_turned_to_them(line: str, turned: str) -> None:
    assert turned in str(require_dial(parse(line)).turned(3.0))


@given(
    after=st.floats(0.05, 20.0),
    start=st.floats(0.001, 1.0),
    curve=st.sampled_from([RISING, FALLING]),
)
def test_it_follows_a_curve_that_moves(after: float, start: float, curve: Rate) -> None:
    sign = math.copysign(1.0, curve.slope)

    def moving(value: float, round_: int) -> float:
        return BUDGET * math.pow(value / curve.rounded(0.3), 2 * sign) * (1.0 if round_ < 20 else after)

    shares = [share for _, share in ride(moving, curve, curve.rounded(20 * start), 50)]
    assert all(share <= 1.0 for share in shares[-10:])
    assert after < 0.3 or all(
        share >= 0.9 for share in shares[-10:]
    )  # else the end of the range may be in the way


def test_a_jump_that_moves_away_is_noticed_from_below_it() -> None:
    seen = ride(lambda value, round_: 500 if value < 0.1 else (1000 if round_ < 30 else 600), RISING, 0.5, 30)
    assert seen[-1][0] < 0.1
    seen = ride(
        lambda value, round_: (1000 if value >= 0.1 else 500) if round_ < 30 else 400 * value, RISING, 0.5, 90
    )
    assert seen[-1] == (1.0, 0.5)  # the end of the range


@pytest.mark.parametrize(("nbytes", "end"), [(1e9, 0.001), (1.0, 1.0)])
def test_it_stops_at_the_ends_of_the_range(nbytes: float, end: float) -> None:
    assert ride(lambda *_: nbytes, RISING, 0.1, 20)[-1][0] == end


@pytest.mark.parametrize("rate", [RANKS, LAYERS], ids=lambda rate: rate.parameter)
def test_a_whole_number_outlives_a_logarithm(rate: Rate) -> None:
    """exp(log(n)) may come out a hair below n or above it, and is n all the same."""
    for number in range(int(rate.least), int(rate.most) + 1):
        assert rate.rounded(math.exp(math.log(number))) == number


def test_a_value_has_few_digits() -> None:
    assert RISING.rounded(0.123456) == 0.1235
    assert str(Sparse(share=RISING.rounded(1 / 3)).share) == "0.3333"


@pytest.mark.parametrize(
    "codec",
    [
        Codec(Sparse()),
        Codec(Coarse(), entropy=Zlib()),
        Codec(Int8(), entropy=Turning()),
        Codec(Int8(), transforms=(Flip(), Shrinking())),
    ],
)
def test_a_dial_turns_its_stage_and_nothing_else(codec: Codec) -> None:
    found = require_dial(codec)
    turned = found.turned(0.25)
    other = dial(turned)
    assert isinstance(other, Dial)
    assert other.value == 0.25
    assert other.turned(found.value) == codec
    assert found.alike(turned)
    assert not found.alike(parse("int8"))
    assert not found.alike(replace(codec, entropy=Zlib(9)))


def test_the_loosest_is_where_the_most_bytes_are() -> None:
    assert loosest(Codec(Sparse())) == Codec(Sparse(share=1.0))
    assert loosest(Codec(Coarse())) == Codec(Coarse(step=0.1))
    assert loosest(parse("int8")) == parse("int8")


def test_a_codec_with_nothing_to_turn_has_no_dial() -> None:
    assert dial(parse("int8 | lzma")) is None
    assert rate_of(Int8()) is None
    with pytest.raises(ConfigError, match="nothing to turn for a budget"):
        require_dial(parse("safe"))
