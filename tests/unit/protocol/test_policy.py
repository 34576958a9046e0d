from __future__ import annotations

import math

import pytest

from fedmq.errors import ConfigError
from fedmq.protocol.policy import Policy, StopWhen


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"fraction": 0.0}, "fraction"),
        ({"fraction": 1.5}, "fraction"),
        ({"fraction": math.nan}, "fraction"),
        ({"over_selection": 0.9}, "over_selection"),
        ({"quorum": 0}, "quorum"),
        ({"min_devices": 2, "quorum": 3}, "could never end well"),
        ({"soft_deadline_s": 0.0}, "soft_deadline_s"),
        ({"soft_deadline_s": 10.0, "hard_deadline_s": 9.0}, "soft_deadline_s"),
        ({"hard_deadline_s": math.inf}, "wait for ever"),
        ({"soft_deadline_s": math.nan}, "soft_deadline_s"),
        ({"grace_s": -1.0}, "grace_s is -1.0"),
        ({"grace_s": math.inf}, "grace_s is inf"),
        ({"grace_s": math.nan}, "grace_s is nan"),
        ({"buffer": -1}, "buffer is -1"),
        ({"buffer": 1, "quorum": 2}, "a full buffer"),
        ({"buffer": 1, "over_selection": 1.3}, "over_selection is 1.3 beside a buffer"),
        ({"max_staleness": -1}, "max_staleness"),
        ({"buffer": 1, "max_staleness": 1001}, "max_staleness"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, float], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        Policy(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "gracious"), [({}, True), ({"grace_s": 0.0}, False), ({"buffer": 2}, False)]
)
def test_rounds_are_gracious_unless_told_otherwise(settings: dict[str, float], gracious: bool) -> None:  # noqa: FBT001 - a case
    assert Policy(**settings).gracious is gracious  # type: ignore[arg-type]  # names from the table


@pytest.mark.parametrize(
    ("fraction", "over", "invited"), [(0.1, 1.3, 0.13), (0.9, 1.3, 1.0), (1.0, 1.0, 1.0)]
)
def test_over_selection_invites_more_but_never_more_than_all(
    fraction: float, over: float, invited: float
) -> None:
    assert Policy(fraction=fraction, over_selection=over).invited == pytest.approx(invited)


@pytest.mark.parametrize("name", ["rounds", "patience", "abandoned"])
def test_a_negative_count_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        StopWhen(**{name: -1})  # type: ignore[arg-type]


def test_anything_is_better_than_nothing() -> None:
    assert StopWhen().better(0.1, None)


@pytest.mark.parametrize(("lower", "better"), [(False, True), (True, False)])
def test_better_goes_the_metrics_way(lower: bool, better: bool) -> None:  # noqa: FBT001 - parametrised
    assert StopWhen(lower_is_better=lower).better(0.9, 0.8) is better
    assert StopWhen(lower_is_better=lower).better(0.8, 0.9) is not better
    assert not StopWhen(lower_is_better=lower).better(0.8, 0.8)


def test_no_target_is_never_reached() -> None:
    assert not StopWhen().reached(1e9)


@pytest.mark.parametrize(
    ("lower", "value", "reached"), [(False, 0.5, True), (False, 0.4, False), (True, 0.4, True)]
)
def test_a_target_is_reached_from_its_side(lower: bool, value: float, reached: bool) -> None:  # noqa: FBT001
    assert StopWhen(target=0.5, lower_is_better=lower).reached(value) is reached
