"""The trainers of a simulated fleet, and one more that holds everyone's data for comparison."""

from __future__ import annotations

import importlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fedmq.device.computing import Together
from fedmq.engines.choice import load
from fedmq.engines.front import Front
from fedmq.errors import ConfigError
from fedmq.simulate.classroom import Classroom
from fedmq.simulate.dealing import engine_options, joined, supplies_of
from fedmq.simulate.measuring import fastest
from fedmq.simulate.settings import AUTO, OWN_TRAINERS
from fedmq.simulate.shares import WHOLE
from fedmq.trainers.module import Supply

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fedmq.device.computing import Computing
    from fedmq.device.interface import Setting, Trainer
    from fedmq.simulate.measuring import Measured
    from fedmq.simulate.settings import FleetTable
    from fedmq.simulate.shares import Share

TRAINERS: Final = {
    "keras": "fedmq.trainers.keras:from_module",
    "litert": "fedmq.trainers.litert:from_module",
    "numpy": "fedmq.trainers.numpy:from_module",
}
"""Short names of the trainers that come with fedmq."""

POOLED: Final = "pooled"


@dataclass(frozen=True)
class Fleet:
    """Trainers by device name; `pooled` trains and evaluates on all data, None where the data cannot be joined.

    `front` is what the trainers share where an engine trains them, `engine` is which, and `notes` say why that.
    """

    trainers: Mapping[str, Trainer]
    pooled: Trainer | None
    description: str
    front: Front | None = None
    notes: tuple[str, ...] = ()
    engine: str = OWN_TRAINERS

    @property
    def callers(self) -> int:
        """How many threads should ask for trainings at once: one, or as many as keep the engine busy."""
        return 1 if self.front is None else min(self.front.callers, len(self.trainers))

    def computing(self) -> Computing:
        """Return what devices in this process compute with: the engine, else one thread for all of their trainers."""
        if self.front is None:
            return Together(ThreadPoolExecutor(1, "fedmq-training"))
        return Classroom(self.front.engine)

    def close(self) -> None:
        """End the engine's threads."""
        if self.front is not None:
            self.front.close()


def build_trainer(kind: str) -> Callable[..., Trainer]:
    """Return the function ``(module, device, options, supply=None) -> Trainer`` that `kind` names.

    Raises ConfigError when there is none, or what it needs is not installed.
    """
    module, _, function = TRAINERS.get(kind, kind).partition(":")
    try:
        found: Callable[..., Trainer] = getattr(importlib.import_module(module), function or "from_module")
    except ImportError as error:
        raise ConfigError(
            f"trainer {kind!r} cannot be loaded ({error}): install it, for Keras with pip install 'fedmq[tensorflow]'"
        ) from None
    except AttributeError:
        raise ConfigError(f"{module} has no function {function!r} to build a trainer with") from None
    return found


def build_fleet(
    table: FleetTable,
    training: Mapping[str, Setting] | None = None,
    share: Share = WHOLE,
    *,
    pooled: bool = True,
) -> Fleet:
    """Build every trainer of a share of the fleet; an engine is chosen by what it does at `training`.

    Without `pooled` there is none that holds everyone's data. Raises ConfigError.
    """
    if table.engine != OWN_TRAINERS:
        return _on_engine(table, training or {}, share, pooled=pooled)
    supplies, everyone = _dealt(table, share, pooled=pooled)
    build, options = build_trainer(table.trainer), {"seed": table.seed, **table.options}
    trainers = {name: build(table.module, name, options, supply=supply) for name, supply in supplies.items()}
    return Fleet(trainers, _pooled(table, everyone), _describe(table))


def build_judge(table: FleetTable) -> Trainer | None:
    """Build only the trainer that holds everyone's data, None where the data cannot be joined. Raises ConfigError."""
    return _pooled(table, joined(list(supplies_of(table).values())))


def _on_engine(table: FleetTable, training: Mapping[str, Setting], share: Share, *, pooled: bool) -> Fleet:
    """Build a fleet whose devices share an engine, and everyone's data as one more device of it."""
    kind, tried = _chosen(table, training)
    make = load(kind)  # before the user's module is: an engine may decide what Keras runs on
    supplies, everyone = _dealt(table, share, pooled=pooled)
    held = {} if everyone is None else {POOLED: everyone}
    front = Front(make(table.module, {**supplies, **held}, engine_options(table, kind, training)))
    notes = (f"engine: {front.engine.name}", *(f"  measured {each}" for each in tried))
    trainers = {name: front.trainer(name) for name in supplies}
    judge = front.trainer(POOLED) if held else None
    return Fleet(trainers, judge, _describe(table), front, notes, kind)


def _dealt(table: FleetTable, share: Share, *, pooled: bool) -> tuple[Mapping[str, Supply], Supply | None]:
    """Return the examples of the share's devices, and everyone's as one where they are wanted and can be joined."""
    if not pooled:
        return supplies_of(table, share), None
    everyone = supplies_of(table)
    together = joined(list(everyone.values()), whole=table.baselines)
    return {name: everyone[name] for name in share.of(list(everyone))}, together


def _chosen(table: FleetTable, training: Mapping[str, Setting]) -> tuple[str, Sequence[Measured]]:
    if table.engine != AUTO:
        return table.engine, ()
    best, tried = fastest(table, training)
    return best.engine, tried


def _pooled(table: FleetTable, everyone: Supply | None) -> Trainer | None:
    if everyone is None:
        return None
    options = {"seed": table.seed, **table.options}
    return build_trainer(table.trainer)(table.module, POOLED, options, supply=everyone)


def _describe(table: FleetTable) -> str:
    where = table.module if table.data == "module" else f"{table.data}, dealt out {table.partition}"
    return f"{table.devices} devices, data: {where}"
