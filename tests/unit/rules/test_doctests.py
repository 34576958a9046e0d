from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import fedmq.rules

MODULES = [f"fedmq.rules.{module.name}" for module in pkgutil.iter_modules(fedmq.rules.__path__)]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_hold(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0
