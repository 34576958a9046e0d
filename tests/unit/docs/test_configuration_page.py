"""docs/reference/configuration.md against the dataclasses that it describes."""

from __future__ import annotations

import dataclasses
import json
import re
import tomllib
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

from fedmq.aggregator.encodings import DEFAULT, ENCODINGS
from fedmq.aggregator.settings import Encoding
from fedmq.aggregator.steering import Budget
from fedmq.codecs import Codec
from fedmq.config import AggregatorFile, DeviceFile, structure
from fedmq.config.tables import kind_of
from fedmq.device.interface import ModuleName
from fedmq.inspection.parts import parts
from fedmq.protocol.quantities import ByteCount
from fedmq.rules import Rule
from fedmq.simulate import SimulationSettings
from fedmq.trainers.settings import Settings
from fedmq.worlds import WORLDS, Attack, Attackers, World
from fedmq.worlds.attacks import SignFlip
from tools.rule_pages import expanded

PAGE = expanded(Path("docs/reference/configuration.md").read_text(encoding="utf-8"), "rules")
FILES = {"federation.toml": AggregatorFile, "device.toml": DeviceFile, "world.toml": SimulationSettings}
TYPES = {int: "whole number", float: "number", str: "text", bool: "true or false"}
TYPES |= {Attack: "attack", Path: "path", ModuleName: "module", Codec: "codec", ByteCount: "bytes"}


def tables() -> dict[str, type]:
    """Every table of every file by the heading under which the page has it."""
    found: dict[str, type] = {"`[training]`": Settings, "`[encoding.budget]`": Budget}
    for kind in FILES.values():
        for name, hint in get_type_hints(kind).items():
            if dataclasses.is_dataclass(hint) and hint is not Rule:
                found[f"`[{name}]`"] = hint  # type: ignore[assignment]
    for name, hint in get_type_hints(World).items():
        (table,) = [choice for choice in get_args(hint) or (hint,) if choice is not type(None)]
        found[f"`[world.{name}]`"] = table
    return found


def rows(heading: str) -> dict[str, tuple[str, str]]:
    """Type and default of each key under a heading."""
    assert f"\n### {heading}\n" in PAGE, f"the page has no heading {heading}"
    text = re.split(r"\n##+ ", PAGE.split(f"\n### {heading}\n", 1)[1])[0]
    return {
        key: (kind, default)
        for key, kind, default in re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \| .+ \|$", text, re.MULTILINE)
    }


def spelt(hint: Any) -> str:  # noqa: ANN401 - a typing form
    inner = [choice for choice in get_args(hint) if choice is not type(None)]
    if get_origin(hint) is Literal:
        words = [f"`{choice}`" for choice in inner]
        return f"{', '.join(words[:-1])} or {words[-1]}"
    if get_origin(hint) is tuple:
        return f"list of {TYPES[inner[0]]}s"
    if get_origin(hint) is dict:
        return "table"
    return TYPES[inner[0] if inner else hint]


def default_of(field: dataclasses.Field[Any], kind: type | None = None) -> str:
    if kind is Encoding:  # files begin with a preset
        value = getattr(ENCODINGS[DEFAULT], field.name)
        return "none" if value is None else f"`{json.dumps(value, default=str)}`".replace("|", r"\|")
    value = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    if value is dataclasses.MISSING:
        return "required"
    return "none" if value is None else f"`{json.dumps(value, default=kind_of)}`"


@pytest.mark.parametrize("heading", sorted(tables()))
def test_a_table_is_there_whole_with_types_and_defaults(heading: str) -> None:
    kind = tables()[heading]
    hints = get_type_hints(kind)
    fields = [field for field in dataclasses.fields(kind) if hints[field.name] is not Budget]
    wanted = {field.name: (spelt(hints[field.name]), default_of(field, kind)) for field in fields}
    if kind is Encoding:
        wanted = {"preset": ("text", f'`"{DEFAULT}"`'), **wanted}
    assert rows(heading) == wanted


def test_the_top_level_is_there() -> None:
    plain = [field for field in dataclasses.fields(SimulationSettings) if field.type in ("str", "float")]
    spelling = {"str": "text", "float": "number"}
    assert rows("Top level") == {
        field.name: (spelling[str(field.type)], default_of(field)) for field in plain
    }
    for kind in FILES.values():
        for name in get_type_hints(kind):
            assert f"\n### `[{name}]`\n" in PAGE or name in rows("Top level"), name


def test_the_rule_table_names_every_slot_part_and_preset() -> None:
    text = PAGE.split("\n### `[rule]`\n", 1)[1].split("\n### ", 1)[0]
    assert set(rows("`[rule]`")) == {"preset", *(field.name for field in dataclasses.fields(Rule))}
    text += PAGE.split("\n### `[algorithm]`\n", 1)[1].split("\n### ", 1)[0]
    for part in parts():
        assert f"[`{part.kind}`](rules/{part.slot.name}/{part.kind}.md)" in text, part.kind


def test_the_rule_tables_defaults_are_the_rules() -> None:
    told = {key: default for key, (_, default) in rows("`[rule]`").items() if key != "preset"}
    text = "\n".join(f"{key} = {default.strip('`')}" for key, default in told.items())
    assert structure(tomllib.loads(text), Rule) == Rule()


BLOCKS = re.findall(r'^```toml title="([\w.]+)"\n(.*?)^```$', PAGE, re.MULTILINE | re.DOTALL)


def test_each_file_has_a_whole_example() -> None:
    assert {name for name, _ in BLOCKS} == set(FILES)


@pytest.mark.parametrize(("name", "text"), BLOCKS, ids=[name for name, _ in BLOCKS])
def test_a_whole_example_loads(name: str, text: str) -> None:
    loaded: object = structure(tomllib.loads(text), FILES[name], text=text)
    if isinstance(loaded, AggregatorFile):
        assert loaded.settings().name == "motors"


def test_the_other_examples_load() -> None:
    world, rule = re.findall(r"^```toml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert "blend" in rule
    structure(tomllib.loads(rule)["rule"], Rule)
    settings = structure({"fleet": {"module": "m"}, **tomllib.loads(world)}, SimulationSettings)
    assert settings.world is not None
    assert settings.world.attackers == Attackers(0.1, SignFlip(3.0))


def test_every_world_is_named() -> None:
    (text,) = re.findall(r"^\| `preset` \| text \| `\"lab\"` \| (.*) \|$", PAGE, re.MULTILINE)
    assert re.findall(r"`([\w-]+)` \(", text) == list(WORLDS)
