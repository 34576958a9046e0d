"""Parts of one's own by dotted name: what a configuration file calls ``my_package.module:name``."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

from fedmq.errors import ConfigError
from fedmq.rules.settings import require


@functools.cache
def function(kind: str, name: str) -> Callable[..., Any]:
    """Import the function that `name` means; once, the answer is kept.

    Raises ConfigError, with `kind` as its subject, where there is none. What the module itself raises while it is
    imported is passed on: its traceback says more than we could.
    """
    found = _find(kind, name)
    if isinstance(found, type) or not callable(found):
        raise ConfigError(f"{kind} has name {name!r}, which is a {_noun(found)}; a function was wanted")
    return found


@functools.cache
def part(name: str, slot: type) -> type[Any]:
    """Import the class that `name` means, one for `slot`: the Protocol class of a rule's slot, which it must inherit.

    Raises ConfigError as `function` does.
    """
    found = _find(slot.__name__.lower(), name)
    if not isinstance(found, type) or slot not in found.__mro__:
        raise ConfigError(
            f"{slot.__name__.lower()} has name {name!r}, which is a {_noun(found)}; a class was wanted that inherits "
            f"from fedmq.rules.{slot.__name__}"
        )
    return found


def _find(kind: str, name: str) -> object:
    module, _, attribute = name.partition(":")
    require(bool(module and attribute), f"{kind} has name {name!r}, wants one like 'my_package.module:name'")
    found = _imported(kind, name, module)
    require(
        hasattr(found, attribute),
        f"{kind} has name {name!r}, but {module!r} has no {attribute!r}: is it spelt like that there?",
    )
    value: object = getattr(found, attribute)
    return value


def _imported(kind: str, name: str, module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if f"{module}.".startswith(f"{error.name}."):
            raise ConfigError(
                f"{kind} has name {name!r}, but there is no module {error.name!r}: is it installed, or its folder in "
                "PYTHONPATH?"
            ) from None
        raise


def _noun(found: object) -> str:
    return f"class ({found.__name__})" if isinstance(found, type) else type(found).__name__
