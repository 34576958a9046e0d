"""Loading a user's module."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fedmq.errors import ConfigError
from fedmq.trainers.module import Supply, load_user_module

GOOD = "def model():\n    return 'a model'\ndef data(device):\n    return device, 'y'\n"


def written(folder: Path, text: str, name: str = "mine.py") -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


def test_by_path(tmp_path: Path) -> None:
    module = load_user_module(written(tmp_path, GOOD))
    assert module.model() == "a model"
    assert module.data("pi-1") == Supply(("pi-1", "y"))


def test_a_path_is_executed_once(tmp_path: Path) -> None:
    name = written(
        tmp_path, "made = []\ndef model():\n    made.append(1)\n    return made\ndef data(d): ...\n"
    )
    load_user_module(name).model()
    assert load_user_module(name).model() == [1, 1]


def test_files_of_one_name_are_kept_apart(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    one, two = written(tmp_path, GOOD), written(tmp_path / "other", GOOD.replace("a model", "another"))
    assert [load_user_module(name).model() for name in (one, two)] == ["a model", "another"]


def test_by_dotted_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, GOOD, "a_module_of_mine.py")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert load_user_module("a_module_of_mine").data("d").train == ("d", "y")
    monkeypatch.delitem(sys.modules, "a_module_of_mine")


class Held:
    def __init__(self, **attributes: object) -> None:
        vars(self).update(attributes)


class Stream:
    element_spec = None


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ((1, 2), Supply((1, 2))),
        ((1, 2, 3), Supply((1, 2, 3))),
        (([[1], [2]], [0, 1]), Supply(([[1], [2]], [0, 1]))),
        (((1, 2), (3, 4)), Supply((1, 2), (3, 4))),
        (((1, 2), None), Supply((1, 2))),
        (Held(x=1, y=2), Supply((1, 2))),
        (Held(x=1, y=2, x_test=3, y_test=4), Supply((1, 2), (3, 4))),
        (Held(x=1, y=2, x_test=None, y_test=None), Supply((1, 2))),
        ((Stream, Stream), Supply(Stream, Stream)),
        (Stream, Supply(Stream)),
    ],
)
def test_forms_of_data(given: object, wanted: Supply, tmp_path: Path) -> None:
    module = load_user_module(
        written(tmp_path, "given = []\ndef model(): ...\ndef data(d):\n    return given[0]\n")
    )
    sys.modules[module.model.__module__].given.append(given)
    assert module.data("d") == wanted


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("import nothing_of_the_kind\n", r"does not import \(ModuleNotFoundError: No module named"),
        ("def model(:\n", r"does not import \(SyntaxError"),
        ("raise ValueError\n", r"does not import \(ValueError\)"),
        ("def data(device): ...\n", r"no function model\(\)"),
        ("def model(): ...\ndef date(device): ...\n", r"no function data\(\): did you mean 'date'"),
        ("model = 3\n", r"no function model\(\): known are none"),
    ],
)
def test_modules_that_cannot_be_used(text: str, says: str, tmp_path: Path) -> None:
    name = written(tmp_path, text)
    with pytest.raises(ConfigError, match=says) as caught:
        load_user_module(name)
    assert "\n" not in str(caught.value)


def test_a_module_that_failed_can_be_mended(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        load_user_module(written(tmp_path, "import nothing_of_the_kind\n"))
    assert load_user_module(written(tmp_path, GOOD)).model() == "a model"


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no file"):
        load_user_module(str(tmp_path / "absent.py"))


def test_missing_module() -> None:
    with pytest.raises(ConfigError, match=r"'no\.such\.module' does not import"):
        load_user_module("no.such.module")


def test_nothing_returned(tmp_path: Path) -> None:
    module = load_user_module(written(tmp_path, "def model(): ...\ndef data(device): ...\n"))
    with pytest.raises(ConfigError, match=r"data\('pi-1'\) .* returned nothing"):
        module.data("pi-1")
