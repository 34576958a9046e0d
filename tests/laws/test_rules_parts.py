"""Laws of every part of every table, and of every preset: values that print, compare and load from plain fields."""

from __future__ import annotations

import ast
import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any, get_type_hints

import numpy as np
import pytest

from fedmq.errors import MisuseError, Refused
from fedmq.rules import GUARDS, PRESETS, REDUCERS, STEPS, WEIGHERS, Claim, Guard, Step, Weigher
from fedmq.vectors import Layout, Variable, Vector

TABLES: dict[str, Mapping[str, type[Any]]] = {
    "guards": GUARDS,
    "weigh": WEIGHERS,
    "reduce": REDUCERS,
    "step": STEPS,
}
ROWS = [(kind, cls) for table in TABLES.values() for kind, cls in table.items()]
LAYOUT = Layout((Variable("kernel", (4,)), Variable("variance", (3,), kind="statistic")))
PLAIN = (bool, int, float, str, type(None))
METRICS = ("accuracy", "loss", "variance")

every_part = pytest.mark.parametrize(("kind", "cls"), ROWS, ids=[kind for kind, _ in ROWS])
every_guard = pytest.mark.parametrize("guard", [cls() for cls in GUARDS.values()], ids=str)
every_weigher = pytest.mark.parametrize("weigher", [cls() for cls in WEIGHERS.values()], ids=str)
every_step = pytest.mark.parametrize("step", [cls() for cls in STEPS.values()], ids=str)


def plain(value: object) -> object:
    """A part as configuration spells it: nested tables with a kind, lists, and single values."""
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    if not dataclasses.is_dataclass(value):
        assert isinstance(value, PLAIN), f"{value!r} cannot stand in a TOML file"
        return value
    kind = next(kind for kind, cls in ROWS if cls is type(value))
    return {"kind": kind} | {
        field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)
    }


def built(value: object) -> object:
    if isinstance(value, list):
        return tuple(map(built, value))
    if not isinstance(value, dict):
        return value
    fields = {name: built(item) for name, item in value.items() if name != "kind"}
    return dict(ROWS)[value["kind"]](**fields)


@every_part
def test_a_part_is_a_value(kind: str, cls: type[Any]) -> None:
    part = cls()
    assert part == cls()
    assert hash(part) == hash(cls())
    assert not hasattr(part, "__dict__")
    with pytest.raises((dataclasses.FrozenInstanceError, AttributeError, TypeError)):
        part.anything = 1
    for field in dataclasses.fields(part):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(part, field.name, 1)


@every_part
def test_a_part_prints(kind: str, cls: type[Any]) -> None:
    part = cls()
    assert str(part)
    assert "\n" not in str(part)
    assert str(part) != repr(part)
    assert repr(part).startswith(f"{cls.__name__}(")


@every_part
def test_a_part_comes_back_from_plain_fields(kind: str, cls: type[Any]) -> None:
    part = cls()
    assert built(plain(part)) == part
    assert ast.literal_eval(repr(plain(part))) == plain(part)


@every_part
def test_a_parts_docstring_says_formula_source_cost_use_and_kind(kind: str, cls: type[Any]) -> None:
    text = inspect.getdoc(cls) or ""
    for heading in ("Formula: ", "Source: ", "Cost: ", "Use it ", f'Configuration: `kind = "{kind}"`'):
        assert heading in text, f"the docstring of {cls.__name__} has no {heading!r}"
    for field in dataclasses.fields(cls):
        assert f"`{field.name}`" in text, f"the docstring of {cls.__name__} does not explain {field.name}"


@every_part
def test_a_parts_field_types_can_be_read_at_run_time(kind: str, cls: type[Any]) -> None:
    """Configuration structures TOML tables by them."""
    assert set(get_type_hints(cls)) == {field.name for field in dataclasses.fields(cls)}


def test_kinds_and_classes_are_unique() -> None:
    assert len({kind for kind, _ in ROWS}) == len(ROWS)
    assert len({cls for _, cls in ROWS}) == len(ROWS)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_made_of_parts_in_the_tables(name: str) -> None:
    rule = PRESETS[name]
    for part in (*rule.guards, rule.weigh, rule.reduce, rule.step):
        assert built(plain(part)) == part
    assert hash(rule) == hash(dataclasses.replace(rule))
    assert str(rule).count(" | ") == 3


def samples() -> list[Vector]:
    rng = np.random.default_rng(1)
    return [(rng.standard_normal(LAYOUT.size) * scale).astype(np.float32) for scale in (0.0, 1e-3, 1.0, 1e4)]


@every_guard
@pytest.mark.parametrize("delta", samples(), ids=lambda delta: f"{np.abs(delta).max():.1g}")
def test_a_guard_keeps_shape_and_never_writes(guard: Guard, delta: Vector) -> None:
    delta.flags.writeable = False
    try:
        passed = guard.check(delta, Claim(examples=5), LAYOUT)
    except Refused:
        return
    assert passed.shape == delta.shape
    assert passed.dtype == np.float32
    if passed is not delta:
        assert not np.shares_memory(passed, delta)
        np.testing.assert_allclose(guard.check(passed, Claim(examples=5), LAYOUT), passed, rtol=1e-6)


@every_weigher
def test_lanes_are_shares_of_one_and_each_gets_a_weight(weigher: Weigher) -> None:
    weights = weigher.weigh(Claim(examples=5, metrics=dict.fromkeys(METRICS, 0.5)))
    assert len(weights) == len(weigher.lanes)
    assert sum(weigher.lanes) == pytest.approx(1.0)
    assert all(weight > 0 for weight in weights)


@every_weigher
def test_a_weight_hangs_on_the_claim_alone(weigher: Weigher) -> None:
    claim = Claim(examples=5, metrics=dict.fromkeys(METRICS, 0.5))
    first = weigher.weigh(claim)
    weigher.weigh(Claim(examples=900, metrics=dict.fromkeys(METRICS, 0.9)))
    assert weigher.weigh(claim) == first


@every_step
@pytest.mark.parametrize("delta", samples(), ids=lambda delta: f"{np.abs(delta).max():.1g}")
def test_statistics_are_averaged_under_every_step(step: Step, delta: Vector) -> None:
    memory: Mapping[str, Vector] = {}
    model = np.ones(LAYOUT.size, np.float32)
    for _ in range(3):
        moved, memory = step.apply(model, delta, memory, LAYOUT)
        np.testing.assert_array_equal(moved[4:], (model + delta)[4:])
        model = moved


@every_step
def test_a_zero_delta_moves_nothing_at_first(step: Step) -> None:
    model = np.linspace(-1, 1, LAYOUT.size, dtype=np.float32)
    moved, memory = step.apply(model, np.zeros_like(model), {}, LAYOUT)
    np.testing.assert_array_equal(moved, model)
    assert moved.dtype == np.float32
    assert not np.shares_memory(moved, model)
    for array in memory.values():  # vectors, and single figures
        assert (array.dtype, array.shape) in {(np.dtype("f4"), model.shape), (np.dtype("f8"), (1,))}


@every_step
def test_memory_of_another_model_is_misuse(step: Step) -> None:
    model = np.ones(LAYOUT.size, np.float32)
    _, memory = step.apply(model, model, {}, LAYOUT)
    for name in memory:
        with pytest.raises(MisuseError, match=name):
            step.apply(model, model, {**memory, name: np.ones(LAYOUT.size + 1, np.float32)}, LAYOUT)


@every_step
def test_a_step_along_the_delta_goes_its_way(step: Step) -> None:
    model = np.zeros(LAYOUT.size, np.float32)
    delta = np.array([0.1, -0.2, 0.3, -0.4, 0.1, 0.1, 0.1], np.float32)
    moved, _ = step.apply(model, delta, {}, LAYOUT)
    np.testing.assert_array_equal(np.sign(moved), np.sign(delta))


@every_weigher
@pytest.mark.parametrize("examples", [-1, 0])
def test_no_weigher_gives_a_weight_that_is_not_positive(weigher: Weigher, examples: int) -> None:
    try:
        weights = weigher.weigh(Claim(examples=examples, metrics=dict.fromkeys(METRICS, 0.0)))
    except Refused:
        return
    assert all(weight > 0 for weight in weights)
