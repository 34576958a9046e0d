from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fedmq.errors import ConfigError
from fedmq.rules import ByExamples, Mean, Reducer, Step, Weigher
from fedmq.rules.dotted import function, part
from fedmq.rules.samples import by_root


def test_a_function_is_found_by_its_name() -> None:
    assert function("custom weigher", "fedmq.rules.samples:by_root") is by_root


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("by_root", "wants one like 'my_package.module:name'"),
        (":by_root", "wants one like"),
        ("fedmq.rules.samples:", "wants one like"),
        ("fedmq.rules.samples:by_rot", r"'fedmq\.rules\.samples' has no 'by_rot'"),
        ("fedmq.rules.simples:by_root", r"there is no module 'fedmq\.rules\.simples'"),
        ("nowhere.at.all:by_root", "there is no module 'nowhere'"),
        ("fedmq.rules.weighers:ByExamples", r"which is a class \(ByExamples\); a function was wanted"),
        ("fedmq.rules.weighers:WEIGHERS", "which is a dict; a function was wanted"),
    ],
)
def test_what_is_no_function_is_a_config_error(name: str, says: str) -> None:
    with pytest.raises(ConfigError, match=f"^custom weigher has name '{name}'.*{says}"):
        function("custom weigher", name)


def test_a_part_is_a_class_for_its_slot() -> None:
    assert part("fedmq.rules.weighers:ByExamples", Weigher) is ByExamples
    assert part("fedmq.rules:Mean", Reducer) is Mean


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (
            "fedmq.rules:ByExamples",
            r"a class \(ByExamples\); a class was wanted that inherits from fedmq\.rules\.Step",
        ),
        ("fedmq.rules.samples:half_way", "a function; a class was wanted"),
        ("fedmq.rules:Stepp", "has no 'Stepp'"),
    ],
)
def test_what_is_no_part_for_the_slot_is_a_config_error(name: str, says: str) -> None:
    with pytest.raises(ConfigError, match=f"^step has name '{name}'.*{says}"):
        part(name, Step)


def test_what_the_module_itself_raises_comes_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_part.py").write_text("import a_module_that_is_missing\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with pytest.raises(ModuleNotFoundError, match="a_module_that_is_missing"):
        function("custom guard", "broken_part:check")
