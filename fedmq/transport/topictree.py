"""Topics and filters as trees, so that a broker with thousands of subscriptions looks at few of them per message."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

V = TypeVar("V")


@dataclass(slots=True)
class _Branch:
    """One level of the filters below it, and who subscribed exactly here."""

    below: dict[str, _Branch] = field(default_factory=dict)
    names: dict[str, None] = field(
        default_factory=dict
    )  # a set that keeps its order: runs must repeat exactly


class FilterTree:
    """Who subscribed to what: ``add(filter, name)``, then `match` a topic."""

    def __init__(self) -> None:
        self._root = _Branch()

    def add(self, text: str, name: str) -> None:
        """Add one subscription; adding it again changes nothing."""
        branch = self._root
        for level in text.split("/"):
            branch = branch.below.setdefault(level, _Branch())
        branch.names[name] = None

    def discard(self, text: str, name: str) -> None:
        """Take one subscription away, and the branches that nobody needs any more."""
        path = [self._root]
        levels = text.split("/")
        for level in levels:
            if level not in path[-1].below:
                return
            path.append(path[-1].below[level])
        path[-1].names.pop(name, None)
        for level, parent, branch in zip(reversed(levels), path[-2::-1], path[:0:-1], strict=True):
            if branch.names or branch.below:
                return
            del parent.below[level]

    def match(self, topic: str) -> list[str]:
        """Return who gets a message on `topic`, each name once, in a fixed order."""
        found: dict[str, None] = {}
        branches = [self._root]
        for depth, level in enumerate(topic.split("/")):
            wild = depth > 0 or not topic.startswith("$")
            for branch in branches:
                if wild and "#" in branch.below:
                    found.update(branch.below["#"].names)
            keys = (level, "+") if wild else (level,)
            branches = [branch.below[key] for branch in branches for key in keys if key in branch.below]
        for branch in branches:
            found.update(branch.names)
            if "#" in branch.below:  # "a/#" matches "a" too
                found.update(branch.below["#"].names)
        return list(found)


@dataclass(slots=True)
class _Topic(Generic[V]):
    below: dict[str, _Topic[V]] = field(default_factory=dict)
    value: V | None = None


class TopicTree(Generic[V]):
    """One value per topic, found by filter: a broker's retained messages."""

    def __init__(self) -> None:
        self._root: _Topic[V] = _Topic()

    def put(self, topic: str, value: V | None) -> None:
        """Keep `value` under `topic`; None takes away what was there."""
        path = [self._root]
        levels = topic.split("/")
        for level in levels:
            path.append(path[-1].below.setdefault(level, _Topic()))
        path[-1].value = value
        for level, parent, node in zip(reversed(levels), path[-2::-1], path[:0:-1], strict=True):
            if node.value is not None or node.below:
                return
            del parent.below[level]

    def find(self, text: str) -> Iterator[tuple[str, V]]:
        """Yield each topic that the filter matches, with its value."""
        yield from self._walk(self._root, (), text.split("/"))

    def _walk(self, node: _Topic[V], path: tuple[str, ...], left: list[str]) -> Iterator[tuple[str, V]]:
        if not left or left[0] == "#":
            if node.value is not None:
                yield "/".join(path), node.value
            if not left:
                return
        for level in self._next(node, path, left[0]):
            yield from self._walk(node.below[level], (*path, level), left if left[0] == "#" else left[1:])

    @staticmethod
    def _next(node: _Topic[V], path: tuple[str, ...], want: str) -> list[str]:
        if want not in {"+", "#"}:
            return [want] if want in node.below else []
        return [level for level in node.below if path or not level.startswith("$")]
