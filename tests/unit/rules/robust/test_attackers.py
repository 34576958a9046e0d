"""How a number of attackers is given, counted and refused."""

from __future__ import annotations

import pytest

from fedmq.errors import ConfigError, Refused
from fedmq.rules.robust.attackers import most_bad, outvoted, require_attackers, shown


@pytest.mark.parametrize(
    ("attackers", "n", "bad"), [(0.2, 9, 1), (0.2, 10, 2), (0.29, 100, 29), (0.2, 4, 0), (3, 7, 3)]
)
def test_a_share_is_rounded_down_and_a_count_is_as_given(attackers: float, n: int, bad: int) -> None:
    assert most_bad(attackers, n) == bad


def test_no_product_of_a_share_loses_one_to_rounding() -> None:
    for hundredths in range(50):
        for n in range(1, 500):
            assert most_bad(hundredths / 100, n) == hundredths * n // 100


@pytest.mark.parametrize("attackers", [0.5, 0.9, -0.1, -3, 1.5, float("nan"), float("inf")])
def test_what_is_neither_a_share_nor_a_count_is_an_error(attackers: float) -> None:
    with pytest.raises(ConfigError, match=r"krum has attackers .*, wants a share of the updates below 0\.5"):
        require_attackers("krum", attackers)


@pytest.mark.parametrize("attackers", [0.0, 0.49, 1.0, 7, 4000.0])
def test_a_share_or_a_count_is_none(attackers: float) -> None:
    require_attackers("krum", attackers)


def test_a_round_that_cannot_outvote_its_attackers_is_refused() -> None:
    assert outvoted("krum", 2.0, 7, each=2, spare=3) == 2
    with pytest.raises(Refused, match="krum needs 7 updates to outvote 2 bad ones, the round has 6: wait"):
        outvoted("krum", 2.0, 6, each=2, spare=3)


def test_nothing_is_refused_where_there_is_no_attacker() -> None:
    assert outvoted("krum", 0.2, 1, each=2, spare=3) == 0


def test_a_share_prints_as_one_and_a_count_as_f() -> None:
    assert shown(0.25) == "0.25"
    assert shown(3.0) == "f=3"
