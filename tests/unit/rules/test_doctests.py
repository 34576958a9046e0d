from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import fedmq.rules

MODULES = [module.name for module in pkgutil.walk_packages(fedmq.rules.__path__, "fedmq.rules.")]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_hold(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0
