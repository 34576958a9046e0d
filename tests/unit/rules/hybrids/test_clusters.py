"""By cluster: one model, then one for each way in which updates point."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedmq.errors import ConfigError, DecodeError, MisuseError, Refused
from fedmq.rules import Claim, Fold, Memory, Momentum, Outcome, Rule, preset
from fedmq.rules.hybrids import ByCluster, aside
from fedmq.rules.hybrids.grouping import cosines, grouped
from fedmq.rules.hybrids.stack import slots, stacked
from fedmq.rules.memory import as_figure
from fedmq.vectors import Layout, Variable, Vector

PLAIN = Layout(
    (Variable("w", (2,)), Variable("mine", (3,), scope="personal"), Variable("s", (1,), "statistic"))
)
LAYOUT = stacked(PLAIN, 3)
MODEL = np.array([1, 2, 3, 0, 0, 0, 0, 0, 0], np.float32)
NOW = ByCluster(Rule(), models=3, rounds=0)
EAST, NORTH, WEST = [1.0, 0.0, 1.0], [0.0, 1.0, 1.0], [-1.0, 0.0, 1.0]


def update(direction: list[float], length: float = 1.0, model: int = 0) -> Vector:
    delta = np.zeros(9, np.float32)
    delta[3 * model : 3 * model + 3] = length * np.array(direction)
    return delta


def folded(rule: ByCluster, deltas: list[Vector], memory: Memory | None = None) -> Fold:
    fold = rule.zero(LAYOUT, memory or {})
    for number, delta in enumerate(deltas):
        rule.absorb(fold, delta, Claim(number + 1, metrics={"accuracy": 0.5}))
    return fold


def played(rule: ByCluster, deltas: list[Vector], before: Outcome | None = None) -> Outcome:
    memory, model = ({}, MODEL) if before is None else (before.memory, before.model)
    return rule.finish(folded(rule, deltas, memory), model)


THREE_WAYS = [update(EAST, 1), update(EAST, 3), update(NORTH, 2), update(WEST, 4), update(EAST, 2)]


def test_the_stack_has_the_first_model_under_its_own_names() -> None:
    assert [v.name for v in LAYOUT.shared] == [
        "w",
        "s",
        "cluster1/w",
        "cluster1/s",
        "cluster2/w",
        "cluster2/s",
    ]
    assert LAYOUT.trainable.tolist() == [True, True, False] * 3
    assert [v.name for v in LAYOUT.variables if v.scope == "personal"] == ["mine"]
    assert stacked(PLAIN, 1) == PLAIN
    assert [place.of(MODEL).tolist() for place in slots(LAYOUT, 3)] == [[1, 2, 3], [0, 0, 0], [0, 0, 0]]


def test_a_layout_that_is_no_stack_is_told_of_the_algorithm() -> None:
    with pytest.raises(ConfigError, match="does not hold 3 models"):
        NOW.zero(PLAIN)


def test_until_the_split_there_is_one_model() -> None:
    rule = ByCluster(Rule(), models=3, rounds=3)
    first = played(rule, THREE_WAYS)
    second = played(rule, THREE_WAYS, first)
    assert second.model[3:].tolist() == [0] * 6
    np.testing.assert_allclose(second.model[:3], [1 + 2 * 0.4, 2 + 2 * 0.4, 3 + 2 * 2.4], rtol=1e-6)
    third = played(rule, THREE_WAYS, second)  # the third: the next one is the split
    assert third.model[3:].tolist() == [0] * 6
    assert played(rule, THREE_WAYS, third).model[3:].tolist() != [0] * 6


def test_the_split_makes_one_model_for_each_way_the_largest_group_s_first() -> None:
    found = played(NOW, THREE_WAYS)
    np.testing.assert_allclose(found.model[:3], [1 + 2, 2, 3 + 2])
    others = {tuple(place.of(found.model).tolist()) for place in slots(LAYOUT, 3)[1:]}
    assert others == {(1.0, 4.0, 5.0), (-3.0, 2.0, 7.0)}
    assert found.measurements["updates"] == 5
    assert found.measurements["weight"] == 5
    assert {found.measurements[f"models.{number}.updates"] for number in range(3)} == {3.0, 1.0}


def test_the_split_does_not_hang_on_the_order() -> None:
    claims = list(enumerate(THREE_WAYS))
    found = set()
    for order in itertools.permutations(claims):
        fold = NOW.zero(LAYOUT)
        for number, delta in order:
            NOW.absorb(fold, delta, Claim(number + 1))
        found.add((NOW.dump(fold), NOW.finish(fold, MODEL).model.tobytes()))
    assert len(found) == 1


def test_the_rule_weighs_within_a_group() -> None:
    found = played(replace(NOW, rule=preset("fedavg")), [update(EAST, 1), update(EAST, 4), update(WEST, 2)])
    np.testing.assert_allclose(found.model[:3], [1 + 3, 2, 3 + 3])  # one example at length 1, two at length 4


def test_fewer_groups_than_models_leave_the_rest_what_all_gave() -> None:
    found = played(NOW, [update(EAST, 1), update(EAST, 3)])
    for place in slots(LAYOUT, 3):
        np.testing.assert_allclose(place.of(found.model), [1 + 2, 2, 3 + 2])
    assert found.measurements["weight"] == 2


def test_after_the_split_an_update_moves_its_own_model() -> None:
    split = played(NOW, THREE_WAYS)
    found = played(NOW, [update(EAST, 1, model=2), update(EAST, 3, model=2)], split)
    np.testing.assert_array_equal(found.model[:6], split.model[:6])
    np.testing.assert_allclose(found.model[6:] - split.model[6:], [2, 0, 2])
    assert found.measurements["models.2.updates"] == 2.0
    assert "models.0.updates" not in found.measurements


def test_what_an_update_has_for_other_models_is_left_out() -> None:
    split = played(NOW, THREE_WAYS)
    found = played(NOW, [update(EAST, 3, model=1) + update(NORTH, 1, model=0)], split)
    np.testing.assert_array_equal(found.model[:3], split.model[:3])
    np.testing.assert_allclose(found.model[3:6] - split.model[3:6], [3, 0, 3])


def test_each_model_remembers_for_itself_also_while_it_waits() -> None:
    rule = ByCluster(Rule(step=Momentum()), models=3, rounds=0)
    split = played(rule, THREE_WAYS)
    assert {f"models.{number}.step.velocity" for number in range(3)} <= set(split.memory)
    found = played(rule, [update(EAST, 1)], split)
    waiting = "models.1.step.velocity"
    np.testing.assert_array_equal(found.memory[waiting], split.memory[waiting])
    assert not np.array_equal(found.memory["models.0.step.velocity"], split.memory["models.0.step.velocity"])


def test_one_model_is_the_rule() -> None:
    alone, rule = ByCluster(preset("fedavgm"), models=1, rounds=0), preset("fedavgm")
    deltas = [delta[:3] for delta in THREE_WAYS]
    plain = Layout(tuple(v for v in PLAIN.shared))
    one, other = alone.zero(plain), rule.zero(plain)
    for delta in deltas:
        assert alone.absorb(one, delta, Claim(2)) == rule.absorb(other, delta, Claim(2))
    found, wanted = alone.finish(one, MODEL[:3]), rule.finish(other, MODEL[:3])
    np.testing.assert_array_equal(found.model, wanted.model)
    assert wanted.measurements.items() <= found.measurements.items()
    np.testing.assert_array_equal(found.memory["models.0.step.velocity"], wanted.memory["step.velocity"])
    assert alone.zero(plain, found.memory).lanes[2] is None


@pytest.mark.parametrize(("opposite", "splits"), [(False, False), (True, True)])
def test_it_waits_until_updates_disagree(*, opposite: bool, splits: bool) -> None:
    rule = ByCluster(Rule(), models=3, rounds=1, agreement=0.5)
    first = played(rule, [update(EAST), update(WEST if opposite else EAST)])
    second = played(rule, [update(EAST), update(WEST)], first)
    assert bool(second.model[3:].any()) is splits


def test_what_the_rule_refuses_is_refused_and_leaves_no_trace() -> None:
    fold = folded(NOW, THREE_WAYS)
    before = NOW.dump(fold)
    for bad in (np.nan, np.inf):
        delta = update(EAST)
        delta[-1] = bad
        with pytest.raises(Refused, match="not finite"):
            NOW.absorb(fold, delta, Claim(1))
    with pytest.raises(Refused, match="claims 0 examples"):
        NOW.absorb(fold, update(EAST), Claim(0))
    assert NOW.dump(fold) == before


def test_a_round_that_groups_has_room_for_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aside, "MOST_ASIDE", 2)
    fold = folded(NOW, THREE_WAYS[:2])
    with pytest.raises(Refused, match="room for 2 updates"):
        NOW.absorb(fold, update(EAST), Claim(1))


PHASES = {"together": 0.0, "splitting": 1.0, "apart": 2.0}


@pytest.mark.parametrize("phase", PHASES)
def test_folds_merge_and_come_back_in_every_phase(phase: str) -> None:
    rule = ByCluster(Rule(step=Momentum()), models=3, rounds=5)
    memory = {"phase": as_figure(PHASES[phase])}
    deltas = [*THREE_WAYS, update(EAST, 1, model=1), update(WEST, 2, model=2)]
    whole = folded(rule, deltas, memory)
    left, right = rule.zero(LAYOUT, memory), rule.zero(LAYOUT, memory)
    for number, delta in enumerate(deltas):
        rule.absorb(left if number % 2 else right, delta, Claim(number + 1, metrics={"accuracy": 0.5}))
    merged = rule.merge(left, right)
    again = rule.load(rule.dump(merged), LAYOUT, memory)
    assert rule.dump(whole) == rule.dump(merged) == rule.dump(again)
    model = np.arange(9, dtype=np.float32)
    assert rule.finish(whole, model).model.tobytes() == rule.finish(again, model).model.tobytes()
    assert rule.serving(model, memory, LAYOUT).tobytes() == model.tobytes()


def test_folds_of_two_phases_do_not_mix() -> None:
    before, after = folded(NOW, THREE_WAYS), folded(NOW, THREE_WAYS, {"phase": as_figure(2.0)})
    with pytest.raises(MisuseError, match="before and after a split"):
        NOW.merge(before, after)
    with pytest.raises(DecodeError, match="another rule"):
        NOW.load(NOW.dump(before), LAYOUT, after.memory)


def test_an_empty_round_is_not_finished() -> None:
    with pytest.raises(MisuseError, match="abandon the round"):
        NOW.finish(NOW.zero(LAYOUT, {"phase": as_figure(2.0)}), MODEL)


def test_damaged_bytes_are_refused() -> None:
    data = NOW.dump(folded(NOW, THREE_WAYS))
    with pytest.raises(DecodeError, match="does not hold the 5 updates"):
        NOW.load(data + bytes(8), LAYOUT)
    claim = data.index(b"[1, 0, ")
    with pytest.raises(DecodeError, match="a claim that cannot be read"):
        NOW.load(data[:claim] + b"{" + data[claim + 1 :], LAYOUT)
    shorter = data[:-20] + (11).to_bytes(8, "little") + data[-12:-1]
    with pytest.raises(DecodeError, match="put aside takes 11 bytes, 12"):
        NOW.load(shorter, LAYOUT)


@pytest.mark.parametrize("wrong", [{"models": 0}, {"rounds": -1}, {"agreement": 0.0}, {"agreement": 1.5}])
def test_clusters_that_cannot_be_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=f"clusters has {next(iter(wrong))}"):
        ByCluster(**wrong)  # type: ignore[arg-type]


def test_it_prints_on_one_line() -> None:
    assert str(ByCluster(Rule(), 3, 5)) == f"3 models (after 5 rounds): {Rule()}"
    assert "once updates agree to no more than 0.5" in str(ByCluster(agreement=0.5))


# --- grouping ---------------------------------------------------------------------------------------------------------


def test_planted_groups_are_found() -> None:
    rng = np.random.default_rng(3)
    centres = rng.standard_normal((4, 50))
    truth = rng.permutation(np.repeat(np.arange(4), [9, 8, 7, 6]))
    rows = (centres[truth] + 0.3 * rng.standard_normal((30, 50))) * rng.uniform(0.1, 10, (30, 1))
    groups = grouped(cosines(rows @ rows.T), 4)
    assert [len(group) for group in groups] == [9, 8, 7, 6]
    assert all(len(set(truth[group])) == 1 for group in groups)


rows_of_numbers = st.integers(1, 12).flatmap(
    lambda n: arrays(np.float64, (n, 3), elements=st.integers(-9, 9).map(float))
)


@settings(deadline=None)
@given(rows_of_numbers, st.integers(1, 4))
def test_every_row_is_in_one_group(
    rows: np.ndarray[tuple[int, int], np.dtype[np.float64]], most: int
) -> None:
    groups = grouped(cosines(rows @ rows.T), most)
    assert sorted(index for group in groups for index in group) == list(range(len(rows)))
    assert len(groups) <= most


def test_in_the_end_every_row_is_with_the_mean_that_it_is_nearest_to() -> None:
    rng = np.random.default_rng(5)
    for _ in range(20):
        rows = rng.standard_normal((30, 3))
        rows /= np.linalg.norm(rows, axis=1)[:, None]
        groups = grouped(cosines(rows @ rows.T), 4)
        means = np.array([rows[group].sum(axis=0) for group in groups])
        nearest = (rows @ (means / np.linalg.norm(means, axis=1)[:, None]).T).argmax(axis=1)
        assert all(set(nearest[group]) == {number} for number, group in enumerate(groups))


def test_grouping_stops_where_nothing_settles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedmq.rules.hybrids.grouping._MOST_PASSES", 0)
    assert grouped(np.eye(3), 2) == [[0, 2], [1]]
