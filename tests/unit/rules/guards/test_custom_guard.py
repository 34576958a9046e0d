from __future__ import annotations

import numpy as np
import pytest

from fedmq.errors import ConfigError, MisuseError, Refused
from fedmq.rules import Claim, CustomGuard, Rule
from fedmq.vectors import Layout, Variable, Vector

LAYOUT = Layout((Variable("w", (2,)),))
DELTA = np.array([3.0, -5.0], np.float32)
HERE = "tests.unit.rules.guards.test_custom_guard"


def halve(delta: Vector, claim: Claim, layout: Layout) -> Vector:
    return delta / np.float32(2)


def first_half(delta: Vector, claim: Claim, layout: Layout) -> Vector:
    return delta[:1]


def widen(delta: Vector, claim: Claim, layout: Layout) -> object:
    return delta.astype(np.float64)


def nothing(delta: Vector, claim: Claim, layout: Layout) -> None:
    pass


def another_view(delta: Vector, claim: Claim, layout: Layout) -> Vector:
    return delta[:]


def scribble(delta: Vector, claim: Claim, layout: Layout) -> Vector:
    delta[0] = 0
    return delta


def checked(name: str) -> Vector:
    return CustomGuard(f"{HERE}:{name}").check(DELTA, Claim(1), LAYOUT)


def test_the_function_passes_changes_or_refuses() -> None:
    assert CustomGuard().check(DELTA, Claim(1), LAYOUT) is DELTA
    np.testing.assert_array_equal(checked("halve"), [1.5, -2.5])
    with pytest.raises(Refused, match="beyond a million"):
        CustomGuard().check(np.full(2, 3e7, np.float32), Claim(1), LAYOUT)


def test_it_works_in_a_rule() -> None:
    rule = Rule((CustomGuard(f"{HERE}:halve"),))
    fold = rule.zero(LAYOUT)
    assert rule.absorb(fold, DELTA, Claim(1)).changed
    np.testing.assert_array_equal(rule.finish(fold, np.zeros(2, np.float32)).model, [1.5, -2.5])


def test_another_view_of_the_delta_is_copied() -> None:
    passed = checked("another_view")
    np.testing.assert_array_equal(passed, DELTA)
    assert not np.shares_memory(passed, DELTA)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("first_half", r"float32 of shape \(1,\)"),
        ("widen", "returned float64"),
        ("nothing", "returned NoneType"),
    ],
)
def test_what_is_no_vector_like_the_delta_is_misuse(name: str, says: str) -> None:
    with pytest.raises(MisuseError, match=says):
        checked(name)


def test_the_function_cannot_write_to_the_delta() -> None:
    with pytest.raises(ValueError, match="read-only"):
        checked("scribble")
    assert DELTA[0] == 3.0


def test_a_name_that_is_none_is_a_config_error() -> None:
    with pytest.raises(
        ConfigError, match="custom guard has name 'nowhere:check', but there is no module 'nowhere'"
    ):
        CustomGuard("nowhere:check")


def test_it_prints_its_name() -> None:
    assert str(CustomGuard()) == "custom fedmq.rules.samples:within_a_million"
