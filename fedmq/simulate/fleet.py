"""The trainers of a simulated fleet, and one more that holds everyone's data for comparison."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fedmq import datasets
from fedmq.errors import ConfigError
from fedmq.trainers.module import Supply, load_user_module

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fedmq.datasets import Dataset
    from fedmq.device.interface import Trainer
    from fedmq.simulate.settings import FleetTable

TRAINERS: Final = {"keras": "fedmq.trainers.keras:from_module", "numpy": "fedmq.trainers.numpy:from_module"}
"""Short names of the trainers that come with fedmq."""


@dataclass(frozen=True)
class Fleet:
    """Trainers by device name; `pooled` trains and evaluates on all data, None where the data cannot be joined."""

    trainers: Mapping[str, Trainer]
    pooled: Trainer | None
    description: str


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


def build_fleet(table: FleetTable) -> Fleet:
    """Build every trainer of the fleet. Raises ConfigError."""
    supplies = _supplies(table)
    build, options = build_trainer(table.trainer), _options(table)
    trainers = {name: build(table.module, name, options, supply=supply) for name, supply in supplies.items()}
    return Fleet(trainers, _pooled(table, supplies), _describe(table, supplies))


def build_judge(table: FleetTable) -> Trainer | None:
    """Build only the trainer that holds everyone's data, None where the data cannot be joined. Raises ConfigError."""
    return _pooled(table, _supplies(table))


def _pooled(table: FleetTable, supplies: Mapping[str, Supply]) -> Trainer | None:
    everything = _joined(list(supplies.values()))
    if everything is None:
        return None
    return build_trainer(table.trainer)(table.module, "pooled", _options(table), supply=everything)


def _options(table: FleetTable) -> dict[str, Any]:
    return {"seed": table.seed, **table.options}


def _supplies(table: FleetTable) -> dict[str, Supply]:
    return _from_module(table) if table.data == "module" else _from_dataset(table)


def _describe(table: FleetTable, supplies: Mapping[str, Supply]) -> str:
    where = table.module if table.data == "module" else f"{table.data}, dealt out {table.partition}"
    return f"{len(supplies)} devices, data: {where}"


def _from_module(table: FleetTable) -> dict[str, Supply]:
    user = load_user_module(table.module)
    return {name: user.data(name) for name in _names(table.devices)}


def _from_dataset(table: FleetTable) -> dict[str, Supply]:
    data = datasets.smartwatch() if table.data == "smartwatch" else datasets.mnist()
    train = datasets.deal(table.partition, data, devices=table.devices, seed=table.seed)
    held_out = _held_out_parts(table, data)
    parts = zip(_names(table.devices), train, held_out, strict=True)
    return {
        name: Supply((data.x[rows], data.y[rows]), (data.x_test[held], data.y_test[held]))
        for name, rows, held in parts
    }


def _held_out_parts(table: FleetTable, data: Dataset) -> Sequence[Any]:
    """Deal out the held-out examples: a person's to that person's devices, others evenly."""
    mirrored = datasets.Dataset(
        data.x_test,
        data.y_test,
        data.owner_test,
        data.x_test,
        data.y_test,
        data.owner_test,
        data.classes,
        data.owners,
    )
    way = "by_owner" if table.partition == "by_owner" else "iid"
    return datasets.deal(way, mirrored, devices=table.devices, seed=table.seed)


def _names(count: int) -> list[str]:
    width = len(str(count))
    return [f"device-{number:0{width}d}" for number in range(1, count + 1)]


def _joined(supplies: Sequence[Supply]) -> Supply | None:
    """Join everyone's examples where they are plain (x, y) arrays with held-out ones; None otherwise."""
    if not all(_plain(supply.train) and _plain(supply.held_out) for supply in supplies):
        return None
    return Supply(_concatenated([s.train for s in supplies]), _concatenated([s.held_out for s in supplies]))


def _plain(part: object) -> bool:
    return isinstance(part, tuple) and len(part) == 2 and all(isinstance(array, np.ndarray) for array in part)  # noqa: PLR2004


def _concatenated(parts: Sequence[Any]) -> tuple[Any, Any]:
    return np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])
