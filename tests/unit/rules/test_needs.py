"""What rules ask of codecs: parts say it, and whatever is made of parts asks for what the most demanding one does."""

from __future__ import annotations

import pytest

from fedmq.algorithms import ALGORITHMS, Scaffold
from fedmq.rules import (
    GUARDS,
    PRESETS,
    REDUCERS,
    WEIGHERS,
    AnyRule,
    Blend,
    ByCluster,
    ByExamples,
    ByLayer,
    BySchedule,
    CoordinateMedian,
    Needs,
    NormClip,
    Part,
    Product,
    QFair,
    Reducer,
    Rule,
    Similarity,
    Stage,
    preset,
    strictest,
)

MEDIAN = Rule(reduce=CoordinateMedian())
AVERAGES = {
    "average", "weighted", "quality", "fedavg", "fedavgm", "fedadam", "fedyogi", "fedadagrad", "fedasync", "fedbuff",
    "hybrid",
}  # fmt: skip


@pytest.mark.parametrize("name", PRESETS)
def test_presets_that_average_take_any_error_and_the_others_do_not(name: str) -> None:
    least = "small" if name in {"qfedavg", "clipped", "krum", "centred"} else "moderate"
    assert PRESETS[name].needs.error == ("large" if name in AVERAGES else least)


@pytest.mark.parametrize("kind", REDUCERS)
def test_only_the_mean_takes_any_error(kind: str) -> None:
    found: Reducer[object] = REDUCERS[kind]()
    careful = {"krum", "minimum_diameter", "centred_clipping", "norm_filtered"}
    assert found.needs.error == ("large" if kind == "mean" else "small" if kind in careful else "moderate")


@pytest.mark.parametrize("kind", sorted(GUARDS.keys() - {"custom_guard"}))
def test_guards_that_measure_updates_need_a_small_error(kind: str) -> None:
    bounds = {"norm_clip": {"limit": 1.0}, "norm_bound": {"limit": 1.0}}
    guard = GUARDS[kind](**bounds.get(kind, {}))
    measures = "norm" in kind or "clip" in kind or kind == "similarity"
    assert guard.needs.error == ("small" if measures else "large")
    assert bool(guard.needs.reason) is measures
    assert Rule((guard,)).needs == guard.needs


@pytest.mark.parametrize("kind", sorted(WEIGHERS.keys() - {"custom_weigher"}))
def test_weighers_by_norm_need_a_small_error(kind: str) -> None:
    assert WEIGHERS[kind]().needs.error == ("small" if kind == "q_fair" else "large")


@pytest.mark.parametrize(
    "rule",
    [
        Rule(weigh=Blend((ByExamples(), QFair()), (0.5, 0.5))),
        Rule(weigh=Product((ByExamples(), QFair()))),
        ByLayer((Part(("w",), MEDIAN),), preset("fedavg")),
        ByLayer((Part(("w",), preset("fedavg")),), MEDIAN),
        BySchedule((Stage(preset("fedavg"), rounds=3), Stage(MEDIAN))),
        ByCluster(),
        Scaffold().govern(MEDIAN),
    ],
    ids=str,
)
def test_what_one_part_needs_the_whole_does(rule: AnyRule) -> None:
    assert rule.needs.error != "large"
    assert rule.needs.part
    assert rule.needs.reason


def test_what_no_part_needs_the_whole_does_not() -> None:
    assert ByLayer((Part(("w",), preset("average")),)).needs == Needs()
    assert Scaffold().govern(preset("fedavg")).needs == Needs()


def test_the_most_demanding_is_told_the_first_of_several() -> None:
    first, second = NormClip(1.0).needs, Similarity().needs
    assert strictest([Needs(), first, second, Needs()]) == first
    assert strictest([first, Needs("none", "x", "y"), second]).part == "x"
    assert strictest([]) == Needs()


def test_an_error_no_larger_is_allowed() -> None:
    assert [Needs("small").allow(error) for error in ("none", "small", "moderate")] == [True, True, False]
    assert [Needs("moderate").allow(error) for error in ("moderate", "large")] == [True, False]
    assert Needs().allow("large")
    assert not Needs("none").allow("small")


@pytest.mark.parametrize("kind", ALGORITHMS)
def test_algorithms_whose_devices_remember_need_a_small_error(kind: str) -> None:
    remembers = kind in {"scaffold", "feddyn"}
    assert ALGORITHMS[kind]().needs.error == ("small" if remembers else "large")
