"""Rules as one names them on a command line: a preset, or a TOML file with a ``[rule]`` table."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from fedmq.config.structure import structure
from fedmq.errors import ConfigError
from fedmq.rules import AnyRule, preset


@dataclass(frozen=True, slots=True)
class _RuleFile:
    rule: AnyRule


def named_rule(name: str) -> tuple[str, AnyRule]:
    """Return the rule and what to call it: the preset's name, or the file's without its ending. Raises ConfigError."""
    path = Path(name)
    if path.suffix != ".toml" and not path.is_file():
        return name, preset(name)
    return path.stem, _from_file(path)


def _from_file(path: Path) -> AnyRule:
    try:
        text = path.read_text(encoding="utf-8")
        tree = tomllib.loads(text)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"cannot read a rule from {path}: {reason}") from None
    if "rule" not in tree:
        raise ConfigError(f"{path} has no [rule] table: write one, as `fedmq rules NAME` shows it")
    return structure({"rule": tree["rule"]}, _RuleFile, text=text, source=str(path)).rule
