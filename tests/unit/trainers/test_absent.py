"""A package that must not be imported for a while is there again afterwards, whatever happened."""

from __future__ import annotations

import importlib
import sys

import pytest

from fedmq.trainers.absent import absent


def test_it_is_away_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    with pytest.raises(ModuleNotFoundError), absent("colorsys"):
        importlib.import_module("colorsys")
    assert importlib.import_module("colorsys").__name__ == "colorsys"


def test_what_has_been_imported_stays() -> None:
    with absent("sys"):
        assert importlib.import_module("sys") is sys
