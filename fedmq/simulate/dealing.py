"""Whose examples are whose in a simulated fleet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fedmq import datasets
from fedmq.simulate.shares import WHOLE
from fedmq.trainers.module import Supply, load_user_module

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fedmq.datasets import Dataset
    from fedmq.device.interface import Setting
    from fedmq.simulate.settings import FleetTable
    from fedmq.simulate.shares import Share


def supplies_of(table: FleetTable, share: Share = WHOLE) -> dict[str, Supply]:
    """Return the examples of every device of a share of the fleet, by the device's name. Raises ConfigError."""
    return _from_module(table, share) if table.data == "module" else _from_dataset(table, share)


def device_names(count: int) -> list[str]:
    """Return the names of a fleet's devices."""
    width = len(str(count))
    return [f"device-{number:0{width}d}" for number in range(1, count + 1)]


def engine_options(
    table: FleetTable, engine: str, training: Mapping[str, Setting] | None = None
) -> dict[str, Any]:
    """Return what an engine is told: the fleet's options but ``threads``, which are a trainer's."""
    options = {name: value for name, value in table.options.items() if name != "threads"}
    if engine == "litert" and training and "batch_size" in training:
        options = {"batch_size": training["batch_size"], **options}
    return {"seed": table.seed, **options}


def joined(supplies: Sequence[Supply], *, whole: bool = True) -> Supply | None:
    """Join everyone's examples where they are plain (x, y) arrays with held-out ones; None otherwise.

    Not the `whole` of it is wanted by one who judges only: of what there is to train on, a first example is left then.
    """
    if not all(_plain(supply.train) and _plain(supply.held_out) for supply in supplies):
        return None
    trains = [supply.train for supply in supplies] if whole else [_first(supplies[0].train)]
    return Supply(_concatenated(trains), _concatenated([supply.held_out for supply in supplies]))


def _from_module(table: FleetTable, share: Share) -> dict[str, Supply]:
    user = load_user_module(table.module)
    return {name: user.data(name) for name in share.of(device_names(table.devices))}


def _from_dataset(table: FleetTable, share: Share) -> dict[str, Supply]:
    data = datasets.smartwatch() if table.data == "smartwatch" else datasets.mnist()
    train = datasets.deal(table.partition, data, devices=table.devices, seed=table.seed)
    held_out = _held_out_parts(table, data)
    parts = zip(*(share.of(each) for each in (device_names(table.devices), train, held_out)), strict=True)
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


def _plain(part: object) -> bool:
    return isinstance(part, tuple) and len(part) == 2 and all(isinstance(array, np.ndarray) for array in part)  # noqa: PLR2004


def _first(part: Any) -> tuple[Any, Any]:  # noqa: ANN401 - two arrays
    x, y = part
    return x[:1], y[:1]


def _concatenated(parts: Sequence[Any]) -> tuple[Any, Any]:
    return np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])
