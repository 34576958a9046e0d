"""A user's own part of a rule, named in a file by where it is imported from."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass

import pytest

from fedmq.config import structure
from fedmq.config.tables import inline, kind_of, tables
from fedmq.errors import ConfigError
from fedmq.rules import Claim, Rule, Weigher

HERE = "tests.unit.config.test_own_parts"


@dataclass(frozen=True, slots=True)
class ByPower(Weigher):
    """Examples to a power."""

    power: float = 0.5

    def weigh(self, claim: Claim) -> tuple[float, ...]:
        return (claim.examples**self.power,)


def loaded(weigh: str) -> Rule:
    return structure(tomllib.loads(f"weigh = {weigh}"), Rule)


def test_a_part_of_ones_own_loads_with_its_settings() -> None:
    rule = loaded(f'{{ kind = "{HERE}:ByPower", power = 2 }}')
    assert rule.weigh.weigh(Claim(3)) == (9.0,)
    assert kind_of(rule.weigh) == f"{HERE}:ByPower"


def test_what_is_printed_loads_again() -> None:
    rule = loaded(f'{{ kind = "blend", parts = ["uniform", "{HERE}:ByPower"], shares = [0.5, 0.5] }}')
    assert loaded(inline(tables(rule)["weigh"])) == rule


def test_a_part_that_no_import_finds_has_no_kind() -> None:
    @dataclass(frozen=True)
    class Hidden(ByPower):
        pass

    assert kind_of(Hidden()) is None


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("tests.nowhere:ByPower", "there is no module"),
        ("fedmq.rules:Mean", r"inherits from fedmq\.rules\.Weigher"),
    ],
)
def test_what_is_no_part_for_the_slot_is_named_with_its_place(kind: str, says: str) -> None:
    with pytest.raises(ConfigError, match=f"weigh .*{says}"):
        loaded(f'"{kind}"')
