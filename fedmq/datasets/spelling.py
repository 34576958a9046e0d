"""Partitions as one writes them on a command line.

`iid`, `by_owner`, `dirichlet(0.5)`, `dirichlet(0.5, 10)`, `shards(2)` and `quantity(1.5)` are right spellings.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING

import numpy as np

from fedmq.datasets.partition import PARTITIONS
from fedmq.errors import ConfigError, MisuseError

if TYPE_CHECKING:
    from collections.abc import Callable
    from dataclasses import Field

    from fedmq.datasets.dataset import Dataset
    from fedmq.datasets.partition import Partition, Parts

EXAMPLES = {
    "iid": "iid",
    "by_owner": "by_owner",
    "dirichlet": "dirichlet(0.5)",
    "shards": "shards(2)",
    "quantity": "quantity(1.5)",
}
"""One right spelling of every partition, for help texts and error messages."""

_CALL = re.compile(r"\s*(\w+)\s*(?:\(([^()]*)\))?\s*")


def deal(way: Partition | str, data: Dataset, *, devices: int, seed: int = 0) -> Parts:
    """Deal the training examples of `data` out in one `way`, given as an object or as `parse` spells it.

    Returns the row numbers of each device. The same arguments give the same parts again, since all chance comes from
    NumPy's counter-based Philox generator under `seed`.

    Raises `MisuseError` as `Partition.split` does, and `ConfigError` for a spelling that `parse` refuses.
    """
    chosen = parse(way) if isinstance(way, str) else way
    return chosen.split(data.y, data.owner, devices, np.random.Generator(np.random.Philox(seed)))


def parse(text: str) -> Partition:
    """Return the partition that `text` spells: a name out of `PARTITIONS` and its settings in order.

    >>> parse("dirichlet(0.5)")
    Dirichlet(alpha=0.5, minimum=1)

    Raises `ConfigError`, which names the nearest right spelling.
    """
    call = _CALL.fullmatch(text)
    name = call[1] if call else text.partition("(")[0]
    if name not in PARTITIONS:
        raise ConfigError(f"there is no partition {text!r}: {_nearest(name)}")
    if call is None:
        raise ConfigError(f"{text!r} cannot be read: write {EXAMPLES[name]!r}")
    settings = [word.strip() for word in call[2].split(",")] if (call[2] or "").strip() else []
    return _built(name, settings)


def _built(name: str, settings: list[str]) -> Partition:
    wanted = fields(PARTITIONS[name])
    required = sum(field.default is MISSING for field in wanted)
    if not required <= len(settings) <= len(wanted):
        names = ", ".join(field.name for field in wanted) or "nothing"
        raise ConfigError(f"{name} takes {names} and got {len(settings)} settings: write {EXAMPLES[name]!r}")
    numbers = [_number(name, *pair) for pair in zip(wanted, settings, strict=False)]
    build: Callable[..., Partition] = PARTITIONS[name]
    try:
        return build(*numbers)
    except MisuseError as error:
        raise ConfigError(f"{name}: {error}, as in {EXAMPLES[name]!r}") from error


def _number(name: str, field: Field[object], word: str) -> float:
    kind = int if field.type == "int" else float
    try:
        return kind(word)
    except ValueError:
        noun = "a whole number" if kind is int else "a number"
        raise ConfigError(f"{field.name} is {word!r} and not {noun}: write {EXAMPLES[name]!r}") from None


def _nearest(name: str) -> str:
    near = difflib.get_close_matches(name.lower(), PARTITIONS, n=1, cutoff=0.5)
    return f"did you mean {EXAMPLES[near[0]]!r}?" if near else f"write one of {', '.join(EXAMPLES.values())}"
