"""Examples in docstrings, made to run anywhere.

A doctest runs with the names of its module at hand, so an example in a docstring need not import them. Someone who
copies it has to: the imports are read off the example and its module.
"""

from __future__ import annotations

import ast
import builtins
import importlib
from itertools import takewhile
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def runnable(example: str, module: str) -> str:
    """Return a doctest of `module` with the imports that it takes elsewhere, at its top and in order."""
    lines = example.splitlines()
    own = list(takewhile(lambda line: line.startswith((">>> import ", ">>> from ")), lines))
    merged = _merged([*(line[4:] for line in own), *imports(_code(example), module)])
    return "\n".join([*(f">>> {line}" for line in merged), *lines[len(own) :]])


def imports(code: str, module: str) -> list[str]:
    """Return the imports for the names that `code` uses, does not make, and finds in `module`."""
    names = vars(importlib.import_module(module))
    return [_import(name, names[name], module) for name in sorted(_free(ast.parse(code))) if name in names]


def home(thing: object, module: str) -> str:
    """Return where one imports a class or function of ours from: the package that lists it, else its own module."""
    own = getattr(thing, "__module__", module)
    package = ".".join(own.split(".")[:2])
    listed = getattr(importlib.import_module(package), getattr(thing, "__name__", ""), None) is thing
    return package if listed else own


def _code(example: str) -> str:
    lines = (line for line in example.splitlines() if line.startswith((">>>", "...")))
    return "\n".join(line[4:] for line in lines)


def _free(tree: ast.AST) -> set[str]:
    """Return the names that are read and made nowhere; close enough for the few lines of an example."""
    return set(_used(tree)) - set(_made(tree)) - set(dir(builtins))


def _used(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            yield node.id


def _made(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.alias):
            yield (node.asname or node.name).partition(".")[0]
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name


def _import(name: str, thing: object, module: str) -> str:
    if isinstance(thing, ModuleType):
        return f"import {name}" if thing.__name__ == name else f"import {thing.__name__} as {name}"
    return f"from {home(thing, module)} import {name}"


def _merged(lines: list[str]) -> list[str]:
    """Return the imports, one line for each module, ours behind those of others."""
    plain = [line for line in dict.fromkeys(lines) if line.startswith("import ")]
    taken: dict[str, set[str]] = {}
    for line in lines:
        if line.startswith("from "):
            module, _, names = line.removeprefix("from ").partition(" import ")
            taken.setdefault(module, set()).update(name.strip() for name in names.split(","))
    found = [f"from {module} import {', '.join(sorted(names))}" for module, names in taken.items()]
    return sorted([*plain, *found], key=lambda line: ("fedmq" in line, line))
