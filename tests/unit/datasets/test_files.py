"""The shipped files are the pinned ones, and anything else is refused with one sentence."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import fedmq
from fedmq.datasets import files
from fedmq.errors import StoreError

PACKAGE = Path(fedmq.__file__).parent
DATA = PACKAGE / "datasets"


@pytest.mark.parametrize("name", files.PINS)
def test_reads_every_pinned_file(name: str) -> None:
    assert all(array.size for array in files.read(name).values())


def test_pins_every_shipped_file() -> None:
    shipped = {path.relative_to(DATA).as_posix() for path in DATA.rglob("*.npz")}
    assert shipped == set(files.PINS)


def test_files_are_small_and_say_where_they_come_from() -> None:
    sizes = {path: path.stat().st_size for path in DATA.rglob("*.npz")}
    assert max(sizes.values()) < 1_000_000
    assert sum(sizes.values()) < 3_200_000
    for path in sizes:
        assert (path.parent / "PROVENANCE.md").is_file()
        assert list(path.parent.glob("LICENSE.*"))


def test_refuses_a_file_with_one_wrong_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "smartwatch/person-01.npz"
    raw = bytearray((DATA / name).read_bytes())
    raw[len(raw) // 2] ^= 1
    monkeypatch.setattr(files, "_bytes", lambda _: bytes(raw))
    with pytest.raises(StoreError, match=re.escape(f"{name} differs from the file fedmq was released with")):
        files.read(name)


def test_says_which_file_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(files.PINS, "smartwatch/person-11.npz", "0" * 64)
    with pytest.raises(StoreError, match=r"person-11\.npz cannot be read \(No such file"):
        files.read("smartwatch/person-11.npz")


def test_nothing_that_ships_knows_pickle() -> None:
    sources = [*PACKAGE.rglob("*.py"), *(PACKAGE.parent / "devices").rglob("*.py")]
    assert {path.name for path in sources} >= {"files.py", "watch.py"}
    assert not [str(path) for path in sources if _unpickles(ast.parse(path.read_text()))]


@pytest.mark.parametrize(
    "source",
    ["import pickle", "from pickle import loads", "import dill as d", "numpy.load(f, allow_pickle=True)"],
)
def test_the_search_for_pickle_finds_it(source: str) -> None:
    assert _unpickles(ast.parse(source))


def _unpickles(tree: ast.AST) -> bool:
    banned = {"pickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) and banned & {alias.name for alias in node.names}:
            return True
        if isinstance(node, ast.ImportFrom) and node.module in banned:
            return True
        if (
            isinstance(node, ast.keyword)
            and node.arg == "allow_pickle"
            and ast.unparse(node.value) != "False"
        ):
            return True
    return False
