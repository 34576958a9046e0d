"""Everything that a rule can be made of, read from the tables that configuration reads it from.

A new row in one of the tables is in `fedmq rules`, in the reference and under the tests' eyes without a line here.
"""

from __future__ import annotations

import dataclasses
import difflib
import typing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal, get_args, get_origin

from fedmq.aggregator.encodings import DEFAULT, THRIFTIEST
from fedmq.aggregator.pairing import suiting
from fedmq.algorithms import ALGORITHMS
from fedmq.config.printing import spelt, to_toml
from fedmq.config.rules import CHOICES, bare, inside
from fedmq.config.tables import inline, kind_of
from fedmq.errors import ConfigError
from fedmq.inspection.docs import Doc, read_doc
from fedmq.inspection.examples import home, runnable
from fedmq.rules import GUARDS, HYBRIDS, PRESETS, REDUCERS, STEPS, WEIGHERS, AnyRule, Needs, Rule
from fedmq.rules.presets import PURPOSES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@dataclass(frozen=True, slots=True)
class Slot:
    """A place in a rule and what fits there. `key` is its name in ``[rule]``, `singular` what one row is called."""

    name: str
    singular: str
    key: str
    purpose: str
    rows: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Setting:
    """One key of a part: its type in words, and its default as TOML (empty where there is none)."""

    name: str
    type: str
    default: str


@dataclass(frozen=True, slots=True)
class Part:
    """One row of a table.

    `toml` is a ``[rule]`` with the part in it, its settings as they are by default; `python` is its name there.
    """

    slot: Slot
    kind: str
    doc: Doc
    settings: tuple[Setting, ...]
    toml: str
    python: str

    @property
    def summary(self) -> str:
        """What it is for, on one line."""
        return self.doc.summary


SLOTS: Final = (
    Slot("guards", "guard", "guards", "look at one update: pass it, change it or refuse it", GUARDS),
    Slot("weighers", "weigher", "weigh", "say how much one update counts", WEIGHERS),
    Slot("reducers", "reducer", "reduce", "make one delta of all updates", REDUCERS),
    Slot("steps", "step", "step", "move the model by that delta", STEPS),
    Slot("algorithms", "algorithm", "algorithm", "have a half on the devices as well", ALGORITHMS),
    Slot("hybrids", "hybrid", "rule", "are rules made of rules", HYBRIDS),
    Slot("presets", "preset", "preset", "are whole rules by name", PRESETS),
)
"""What `fedmq rules` lists, in the order in which an update meets it."""


def parts() -> Iterator[Part]:
    """Yield every row of every table."""
    for slot in SLOTS:
        for kind, row in slot.rows.items():
            yield _part(slot, kind, row)


def find(name: str) -> list[Part]:
    """Return the parts called `name`, also as ``slot/name``. Raises ConfigError, naming the nearest, for none."""
    wanted = name.strip().lower().replace("-", "_").replace(".", "/")
    everything = list(parts())
    found = [part for part in everything if wanted in _names(part)]
    if found:
        return found
    near = difflib.get_close_matches(wanted, [part.kind for part in everything], n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else "`fedmq rules` lists what there is"
    raise ConfigError(f"there is no part of a rule called {name!r}: {hint}")


def _names(part: Part) -> set[str]:
    slot = part.slot
    return {part.kind, *(f"{place}/{part.kind}" for place in (slot.name, slot.singular, slot.key))}


def _part(slot: Slot, kind: str, row: Any) -> Part:  # noqa: ANN401 - a class, or a rule
    return _class(slot, kind, row) if isinstance(row, type) else _preset(slot, kind, row)


def _class(slot: Slot, kind: str, row: type) -> Part:
    needs = getattr(row, "needs", None)  # steps see no update, so they have none
    made = None if needs is None or any(map(_is_required, dataclasses.fields(row))) else row()
    doc = _doc(row)
    if needs is not None:
        told = AS_PARTS if made is None else in_codec_words(made.needs)
        doc = replace(doc, sections={**doc.sections, "Codec": told})
    name = f"{home(row, row.__module__)}.{row.__name__}"
    return Part(slot, kind, doc, tuple(_settings(row)), _snippet(slot, kind, row), name)


ANY_CODEC: Final = "Any."
AS_PARTS: Final = "What its most demanding part wants."


def in_codec_words(needs: Needs) -> str:
    """Return what a part asks of the codec that updates come in, in words for people."""
    if needs.allow("large"):
        return ANY_CODEC
    return f"One whose error of each update is {needs.error} at most, such as `{suiting(needs)}`: {needs.reason}."


def _doc(part: type) -> Doc:
    """Read the part's docstring; its example gets the imports that it takes outside its module."""
    doc = read_doc(part)
    example = doc.sections.get("Example")
    if example is None:
        return doc
    return replace(doc, sections={**doc.sections, "Example": runnable(example, part.__module__)})


# --- parts ------------------------------------------------------------------------------------------------------------


def _settings(part: type) -> Iterator[Setting]:
    hints = typing.get_type_hints(part)
    for field in dataclasses.fields(part):
        yield Setting(field.name, in_words(hints[field.name]), _default(field))


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default_factory is not dataclasses.MISSING:
        return _spelt_short(field.default_factory())
    if field.default is dataclasses.MISSING:
        return ""
    return "none" if field.default is None else _spelt_short(field.default)


def _spelt_short(value: Any) -> str:  # noqa: ANN401 - a default
    preset = next((name for name, rule in reversed(list(PRESETS.items())) if rule == value), None)
    return inline(preset or spelt(value))


_WORDS: Final[Mapping[Any, str]] = {
    int: "whole number",
    float: "number",
    str: "text",
    bool: "true or false",
    AnyRule: "rule",
    **{slot: slot.__name__.lower() for slot in CHOICES if slot is not AnyRule},
}


def in_words(hint: Any) -> str:  # noqa: ANN401 - a typing form
    """Return a field's type as the configuration reference spells it."""
    inner = [choice for choice in get_args(hint) if choice not in (type(None), ...)]
    if get_origin(hint) is Literal:
        return " or ".join(f'"{choice}"' for choice in inner)
    if get_origin(hint) in (tuple, list):
        return f"list of {in_words(inner[0])}s"
    if get_origin(hint) is not None and type(None) in get_args(hint):
        return in_words(inner[0])
    return _WORDS.get(bare(hint), "table")


def _snippet(slot: Slot, kind: str, part: type) -> str:
    """Return TOML with the part in it, its settings as they are by default; empty where it has none to show."""
    if any(_is_required(field) for field in dataclasses.fields(part)):
        return ""
    made, place = part(), inside(part)
    rows = {field.name: getattr(made, field.name) for field in dataclasses.fields(part)}
    given = {name: spelt(value) for name, value in rows.items() if value is not None and name != place}
    if slot.key in {"algorithm", "rule"}:
        return "\n".join(
            [f'[{slot.key}]\nkind = "{kind}"', *(f"{key} = {inline(value)}" for key, value in given.items())]
        )
    spelling: Any = {"kind": kind, **given} if given else kind
    if slot.key == "guards":
        usual = [kind_of(guard) for guard in Rule().guards]
        spelling = [spelling if other == kind else other for other in dict.fromkeys([*usual, kind])]
    elif place is not None:
        spelling = [spelling, spelt(rows[place])]
    return f"[rule]\n{slot.key} = {inline(spelling)}"


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


# --- presets ----------------------------------------------------------------------------------------------------------


def _thriftiest(name: str) -> str:
    """Return which encoding would be of fewer bytes than the default, in words."""
    many, few = THRIFTIEST[name]
    told = f"`{many}`" if many == few else f"`{many}` with 20 devices in a round, `{few}` with 5"
    return f"Of the fewest bytes at no more than half a point lost, as measured where nobody lies: {told}."


def _preset(slot: Slot, name: str, rule: Any) -> Part:  # noqa: ANN401 - any rule
    written = f"Written out, it is\n\n```toml\n{to_toml(rule).rstrip()}\n```"
    codec = f"{in_codec_words(rule.needs)} Where no encoding is given it is `{DEFAULT}`. {_thriftiest(name)}"
    sections = {"Formula": f"`{rule}`", "Configuration": written, "Codec": codec}
    doc = Doc(PURPOSES.get(name, str(rule)), "", sections)
    return Part(slot, name, doc, (), f'[rule]\npreset = "{name}"', f'fedmq.rules.preset("{name}")')
