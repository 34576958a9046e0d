"""Rules in TOML: every way to spell one, what is wrong with the others, and that what is printed loads again."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmq.config import rules as configured
from fedmq.config import structure, to_toml
from fedmq.config.tables import kind_of, tables
from fedmq.errors import ConfigError, MisuseError
from fedmq.rules import (
    GUARDS,
    PRESETS,
    REDUCERS,
    STEPS,
    WEIGHERS,
    Adam,
    AnyRule,
    Blend,
    ByExamples,
    ByLayer,
    ByMetric,
    BySchedule,
    Finite,
    Memory,
    Momentum,
    NormClip,
    Part,
    Plateau,
    Replace,
    Rule,
    Stage,
    Step,
    Uniform,
    preset,
)
from fedmq.vectors import Layout, Vector


@dataclasses.dataclass(frozen=True)
class File:
    """What these tests load: a file with nothing in it but a rule."""

    rule: AnyRule


def load(text: str) -> AnyRule:
    return structure(tomllib.loads(text), File, text=text).rule


# --- spelling ---------------------------------------------------------------------------------------------------------

LAYERS = """[rule]
kind = "by_layer"
default = "fedavgm"

[[rule.parts]]
match = "conv*/*"
rule = "average"

[[rule.parts]]
match = ["head/*", "dense/*"]
rule = { preset = "fedavg", step = { kind = "replace", rate = 0.5 } }
"""

SCHEDULE = """[rule]
kind = "by_schedule"

[[rule.stages]]
rule = "fedadam"
plateau = { patience = 3, min_delta = 0.01 }

[[rule.stages]]
rounds = 10
[rule.stages.rule]
weigh = "by_examples"

[[rule.stages]]
[rule.stages.rule]
kind = "by_layer"
parts = [{ match = "*", rule = "average" }]
"""

SPELT: dict[str, AnyRule] = {
    'rule = "fedadam"': preset("fedadam"),
    "[rule]": Rule(),
    '[rule]\nguards = "finite"\nreduce = ["mean"]': Rule(guards=(Finite(),)),
    LAYERS: ByLayer(
        (
            Part(("conv*/*",), preset("average")),
            Part(("head/*", "dense/*"), Rule(weigh=ByExamples(), step=Replace(0.5))),
        ),
        preset("fedavgm"),
    ),
    SCHEDULE: BySchedule(
        (
            Stage(preset("fedadam"), plateau=Plateau(patience=3, min_delta=0.01)),
            Stage(Rule(weigh=ByExamples()), rounds=10),
            Stage(ByLayer((Part(("*",), preset("average")),))),
        )
    ),
}


@pytest.mark.parametrize("text", SPELT)
def test_a_rule_can_be_spelt(text: str) -> None:
    assert load(text) == SPELT[text]


WRONG = {
    'rule = "fedagv"': "line 1: rule there is no rule 'fedagv': did you mean 'fedavg'?",
    "rule = 3": "line 1: rule is 3; a preset's name or a table was wanted",
    '[rule]\nkind = "by_layr"': "line 1: rule has kind 'by_layr'; it must be by_layer or by_schedule (did you mean",
    '[rule]\nkind = "fedavg"': "which is a whole rule: say preset = 'fedavg'",
    "[rule]\nkind = [1]": "rule has kind [1]; it must be",
    "[rule]\nparts = []": "line 2: rule.parts belongs to another kind of rule: say kind = 'by_layer'",
    '[rule]\nkind = "by_layer"\nparts = []\nguards = []': "line 4: rule.guards is unknown here",
    '[rule]\nkind = "by_layer"\nparts = []': "rule by_layer has no parts",
    '[rule]\nkind = "by_layer"\npart = []': "line 3: rule.part is unknown here (did you mean 'parts'?); known are",
    LAYERS.replace('"head/*"', "7"): "line 10: rule.parts[1].match[0] is 7; a text in quotes was wanted",
    LAYERS.replace('"average"', '"avrage"'): "line 7: rule.parts[0].rule there is no rule 'avrage'",
    LAYERS.replace("rate", "rat"): "line 11: rule.parts[1].rule.step.rat is unknown here (did you mean 'rate'?)",
    SCHEDULE.replace("patience", "patiense"): "line 6: rule.stages[0].plateau.patiense is unknown here (did you mean",
    SCHEDULE.replace("rounds = 10\n", ""): "stage 2 never ends",
    "[rule]\nreduce = []": "line 2: rule.reduce is an empty list",
    '[rule]\nreduce = ["mean", "mean"]': "line 2: rule.reduce goes on after 'mean', which takes no other reducer",
    '[rule]\nreduce = ["meen", "mean"]': "rule.reduce has kind 'meen'",
    "[rule]\nreduce = [3, 'mean']": "rule.reduce is a sequence with 3 in it",
    "[rule]\npreset = 'fedavg'\nstages = 3": "rule.stages belongs to another kind of rule: say kind = 'by_schedule'",
    "[rule]\nguard = 3": "line 2: rule.guard is unknown here (did you mean 'guards'?); known are guards, weigh, "
    "reduce, step, preset, kind",
}  # fmt: skip


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_is_named_with_its_line(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(text)
    assert WRONG[text] in str(caught.value)


# --- sequences --------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class Twice(Step):
    """A step around another; only for these tests."""

    times: int = 2
    inner: Step = dataclasses.field(default_factory=Replace)

    def apply(self, model: Vector, delta: Vector, memory: Memory, layout: Layout) -> tuple[Vector, Memory]:
        return self.inner.apply(model, self.times * delta, memory, layout)


@pytest.fixture
def twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STEPS, "twice", Twice)


@pytest.mark.usefixtures("twice")
def test_parts_in_a_list_hold_each_other() -> None:
    text = '[rule]\nstep = ["twice", { kind = "twice", times = 3 }, { kind = "momentum", beta = 0.5 }]\n'
    rule = load(text)
    assert rule == Rule(step=Twice(2, Twice(3, Momentum(beta=0.5))))
    assert text.splitlines()[1] in to_toml(rule)
    assert load(to_toml(rule)) == rule
    assert load('[rule]\nstep = { kind = "twice", inner = "adam" }') == Rule(step=Twice(inner=Adam()))
    assert load('[rule]\nstep = ["twice"]') == Rule(step=Twice())


@pytest.mark.usefixtures("twice")
def test_a_part_of_a_sequence_may_not_hold_one_of_its_own() -> None:
    with pytest.raises(ConfigError, match="which says its own inner"):
        load('[rule]\nstep = [{ kind = "twice", inner = "adam" }, "momentum"]')


# --- printing ---------------------------------------------------------------------------------------------------------


def test_a_rule_is_printed_as_a_person_would_write_it() -> None:
    rule = ByLayer(
        (
            Part(("conv*/*",), Rule((Finite(), NormClip(2.5)), weigh=Blend((Uniform(), ByMetric("recall"))))),
            Part(("head/*",), preset("average")),
        ),
        BySchedule((Stage(preset("fedadam"), rounds=5), Stage(preset("fedavg")))),
    )
    assert (
        to_toml(rule)
        == """[rule]
kind = "by_layer"

[[rule.parts]]
match = ["conv*/*"]

[rule.parts.rule]
guards = ["finite", { kind = "norm_clip", limit = 2.5 }]
weigh = { kind = "blend", parts = ["uniform", { kind = "by_metric", name = "recall" }] }
reduce = "mean"
step = "replace"

[[rule.parts]]
match = ["head/*"]
rule = { guards = ["finite", "examples"], weigh = "uniform", reduce = "mean", step = "replace" }

[rule.default]
kind = "by_schedule"

[[rule.default.stages]]
rule = { guards = ["finite", "examples"], weigh = "by_examples", reduce = "mean", step = "adam" }
rounds = 5

[[rule.default.stages]]
rule = { guards = ["finite", "examples"], weigh = "by_examples", reduce = "mean", step = "replace" }
"""
    )
    assert load(to_toml(rule)) == rule


def test_a_long_list_of_parts_has_a_line_for_each() -> None:
    rule = Rule(tuple(NormClip(float(limit)) for limit in range(1, 6)))
    assert 'guards = [\n    { kind = "norm_clip", limit = 1.0 },\n' in to_toml(rule)
    assert load(to_toml(rule)) == rule


def test_texts_come_back_whatever_is_in_them() -> None:
    rule = Rule(weigh=ByMetric("\"\\é\x7f\t\n'''#"))
    assert load(to_toml(rule)) == rule


class Own(Step):
    """A step in no table."""

    __slots__ = ()


def test_a_part_that_no_file_can_name_is_refused() -> None:
    own = dataclasses.make_dataclass("Own", [], bases=(Own,), frozen=True)
    with pytest.raises(MisuseError, match="Own is in no table of parts"):
        to_toml(Rule(step=own()))


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_comes_back(name: str) -> None:
    assert load(to_toml(PRESETS[name])) == PRESETS[name]


def parts(table: dict[str, type[Any]]) -> st.SearchStrategy[Any]:
    """Each part of a table as it is by default, and with its numbers a little different where that can be."""
    return st.sampled_from([variant for cls in table.values() for variant in variants(cls())])


def variants(part: Any) -> list[Any]:  # noqa: ANN401
    """A part, and what it can be where one of its numbers is halved, doubled or one more."""
    found = [part]
    for field in dataclasses.fields(part):
        value = getattr(part, field.name)
        found += [other for change in CHANGES for other in changed(part, field.name, change, value)]
    return found


CHANGES: tuple[Callable[[Any], Any], ...] = (
    lambda x: x / 2,
    lambda x: x + 1,
    lambda x: not x,
    lambda x: f"{x}x",
)


def changed(part: Any, name: str, change: Callable[[Any], Any], value: Any) -> list[Any]:  # noqa: ANN401
    try:
        other = change(value)
        return [dataclasses.replace(part, **{name: other})] if type(other) is type(value) else []
    except (ConfigError, TypeError):
        return []


def rules() -> st.SearchStrategy[AnyRule]:
    """Rules of four slots from all parts there are, and rules made of these, three deep."""
    slots = st.tuples(
        st.lists(parts(GUARDS), max_size=4).map(tuple), parts(WEIGHERS), parts(REDUCERS), parts(STEPS)
    )
    return st.recursive(slots.filter(fits).map(lambda parts: Rule(*parts)), hybrids, max_leaves=5)


def fits(slots: tuple[Any, ...]) -> bool:
    """Whether the reducer has a use for such weights, and whatever else a rule may ask of its parts."""
    try:
        Rule(*slots)
    except ConfigError:
        return False
    return True


names = st.text(max_size=8).filter(str.isprintable)
patterns = st.lists(names, min_size=1, max_size=3).map(tuple)
plateaus = st.builds(Plateau, names, st.integers(1, 9), st.floats(0, 1e300), lower_is_better=st.booleans())


def hybrids(inner: st.SearchStrategy[AnyRule]) -> st.SearchStrategy[AnyRule]:
    layers = st.builds(
        ByLayer, st.lists(st.builds(Part, patterns, inner), min_size=1, max_size=3).map(tuple), inner
    )
    stages = st.lists(st.builds(Stage, inner, st.integers(1, 99), st.none() | plateaus), max_size=2)
    schedules = st.builds(lambda some, last: BySchedule((*some, Stage(last))), stages, inner)
    return layers | schedules


@settings(max_examples=80, deadline=None)
@given(rules())
def test_what_is_printed_loads_to_an_equal_rule(rule: AnyRule) -> None:
    text = to_toml(rule)
    assert load(text) == rule
    assert max(map(len, text.splitlines())) <= 1000
    assert "\n" not in str(rule)


@settings(max_examples=30, deadline=None)
@given(rules())
def test_the_long_form_loads_to_an_equal_rule_too(rule: AnyRule) -> None:
    assert structure({"rule": tables(rule)}, File).rule == rule


def test_every_row_of_every_table_has_one_name() -> None:
    rows = [row for table in configured.CHOICES.values() for row in table.items()]
    for kind, cls in rows:
        if not dataclasses.fields(cls) or all(
            field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
            for field in dataclasses.fields(cls)
        ):
            assert kind_of(cls()) == kind
