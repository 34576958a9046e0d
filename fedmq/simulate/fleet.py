"""The trainers of a simulated fleet, and one more that holds everyone's data for comparison."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from fedmq.engines.choice import load
from fedmq.engines.front import Front
from fedmq.errors import ConfigError
from fedmq.simulate.dealing import engine_options, joined, supplies_of
from fedmq.simulate.measuring import fastest
from fedmq.simulate.settings import AUTO, OWN_TRAINERS
from fedmq.trainers.module import Supply

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fedmq.device.interface import Setting, Trainer
    from fedmq.simulate.measuring import Measured
    from fedmq.simulate.settings import FleetTable

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

    `front` is what the trainers share where an engine trains them, and `notes` say which engine and why.
    """

    trainers: Mapping[str, Trainer]
    pooled: Trainer | None
    description: str
    front: Front | None = None
    notes: tuple[str, ...] = ()

    @property
    def callers(self) -> int:
        """How many threads should ask for trainings at once: one, or as many as keep the engine busy."""
        return 1 if self.front is None else min(self.front.callers, len(self.trainers))

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


def build_fleet(table: FleetTable, training: Mapping[str, Setting] | None = None) -> Fleet:
    """Build every trainer of the fleet; an engine is chosen by what it does at `training`. Raises ConfigError."""
    if table.engine != OWN_TRAINERS:
        return _on_engine(table, training or {})
    supplies = supplies_of(table)
    build, options = build_trainer(table.trainer), {"seed": table.seed, **table.options}
    trainers = {name: build(table.module, name, options, supply=supply) for name, supply in supplies.items()}
    return Fleet(trainers, _pooled(table, supplies), _describe(table, supplies))


def build_judge(table: FleetTable) -> Trainer | None:
    """Build only the trainer that holds everyone's data, None where the data cannot be joined. Raises ConfigError."""
    return _pooled(table, supplies_of(table))


def _on_engine(table: FleetTable, training: Mapping[str, Setting]) -> Fleet:
    """Build a fleet whose devices share an engine, and everyone's data as one more device of it."""
    kind, tried = _chosen(table, training)
    make = load(kind)  # before the user's module is: an engine may decide what Keras runs on
    supplies = supplies_of(table)
    everyone = joined(list(supplies.values()))
    held = {} if everyone is None else {POOLED: _compared(table, everyone)}
    front = Front(make(table.module, {**supplies, **held}, engine_options(table, kind, training)))
    notes = (f"engine: {front.engine.name}", *(f"  measured {each}" for each in tried))
    trainers = {name: front.trainer(name) for name in supplies}
    pooled = front.trainer(POOLED) if held else None
    return Fleet(trainers, pooled, _describe(table, supplies), front, notes)


def _chosen(table: FleetTable, training: Mapping[str, Setting]) -> tuple[str, Sequence[Measured]]:
    if table.engine != AUTO:
        return table.engine, ()
    best, tried = fastest(table, training)
    return best.engine, tried


def _compared(table: FleetTable, everyone: Supply) -> Supply:
    """Return what the one with all data holds: to train on, only where the fleet is compared with that."""
    if table.baselines:
        return everyone
    x, y = cast("tuple[Any, Any]", everyone.train)
    return Supply((x[:1], y[:1]), everyone.held_out)


def _pooled(table: FleetTable, supplies: Mapping[str, Supply]) -> Trainer | None:
    everything = joined(list(supplies.values()))
    if everything is None:
        return None
    options = {"seed": table.seed, **table.options}
    return build_trainer(table.trainer)(table.module, POOLED, options, supply=everything)


def _describe(table: FleetTable, supplies: Mapping[str, Supply]) -> str:
    where = table.module if table.data == "module" else f"{table.data}, dealt out {table.partition}"
    return f"{len(supplies)} devices, data: {where}"
