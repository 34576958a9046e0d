"""Which line of a TOML file a key stands on, so that an error can point at it."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

Path = tuple[str | int, ...]


def line_of(text: str, path: Sequence[str | int]) -> int | None:
    """Return the line (from 1) on which the value at `path` begins; that of its closest parent where it has none.

    The file is parsed line by line from the top until the path is there: the parser itself says where a key begins, so
    inline tables, quoted keys and many-line strings need no second grammar. None where nothing of the path is there.
    """
    for depth in range(len(path), 0, -1):
        line = _first_line_with(text.splitlines(), tuple(path[:depth]))
        if line is not None:
            return line
    return None


def _first_line_with(lines: Sequence[str], path: Path) -> int | None:
    begins = 0
    for end in range(1, len(lines) + 1):
        tree = _parsed(lines[:end])
        if tree is None:
            continue  # in the middle of a value that spans lines
        if _has(tree, path):
            return begins + 1
        begins = end
    return None


def _parsed(lines: Sequence[str]) -> dict[str, Any] | None:
    try:
        return tomllib.loads("\n".join(lines))
    except tomllib.TOMLDecodeError:
        return None


def _has(tree: object, path: Path) -> bool:
    for step in path:
        in_table = isinstance(tree, dict) and step in tree
        in_array = isinstance(tree, list) and isinstance(step, int) and step < len(tree)
        if not in_table and not in_array:
            return False
        tree = tree[step]  # type: ignore[index]
    return True
