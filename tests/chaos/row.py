"""What a row of the promise table is, and which there are.

A row is a module of this folder with one function, sync or async::

    def run(*, quick: bool, seed: int) -> Row: ...

`quick` is for every change: at most some twenty seconds. Without it a row takes minutes, all of them together within
an hour. A promise that does not hold is a `Row` whose `met` is false, or any exception: what breaks must not stop the
rows after it. A row cleans up after itself, and measures nothing from another row.
"""

from __future__ import annotations

import asyncio
import inspect
import time
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any, Final

ROWS: Final = (
    "simulation",
    "powercut",
    "stragglers",
    "clocks",
    "bad_updates",
    "any_order",
    "replay",
    "poison",
    "kills",
    "broker_kills",
    "silent_drops",
    "bad_links",
    "herd",
    "full_disk",
    "soak",
)
"""Modules of this folder, in the order in which they run."""

MUTANTS: Final[tuple[str, ...]] = ("mutants", "mutants_weather")
"""Modules of this folder with a tuple MUTANTS."""


@dataclass(frozen=True, slots=True)
class Row:
    """One promise, and what came of it.

    figure: what was measured, in words. goal: what it had to be, in words. figures: the same and more in numbers.
    seconds: how long it took; whoever runs the row fills it in.
    """

    promise: str
    figure: str
    goal: str
    met: bool
    figures: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Mutant:
    """A fault planted on purpose, and the row that has to notice.

    plants: what is wrong, in words. hunt: plants it, runs the row's checks from a seed, takes it away again, and
    returns what they said; an empty text where they noticed nothing. Sync or async.
    """

    name: str
    plants: str
    row: str
    hunt: Callable[[int], str | Awaitable[str]]


def run_row(name: str, *, quick: bool, seed: int) -> Row:
    """Run one row. An exception is a broken promise, and its last line the figure."""
    began, promise = time.monotonic(), name
    try:
        module = import_module(f"tests.chaos.{name}")
        promise = _first_line(module.__doc__)
        row: Row = _result(module.run(quick=quick, seed=seed))
    except Exception as broken:  # noqa: BLE001 -- whatever it is, the rows after it have to run
        traceback.print_exc()
        row = Row(promise, _said(broken), "no exception", met=False)
    return replace(row, seconds=time.monotonic() - began)


def mutants() -> list[Mutant]:
    """Return every mutant there is."""
    return [mutant for name in MUTANTS for mutant in import_module(f"tests.chaos.{name}").MUTANTS]


def hunt(mutant: Mutant, seed: int) -> str:
    """Return how a mutant was noticed, an empty text where it was not."""
    said: str = _result(mutant.hunt(seed))
    return said


def _result(made: Any) -> Any:  # noqa: ANN401 -- what a row or a hunt returned, or will
    async def awaited() -> Any:  # noqa: ANN401
        return await made

    return asyncio.run(awaited()) if inspect.isawaitable(made) else made


def _first_line(text: str | None) -> str:
    return (text or "").partition("\n")[0]


def _said(broken: Exception) -> str:
    return _first_line(f"{type(broken).__name__}: {broken}")
