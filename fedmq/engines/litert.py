"""The very file that a Raspberry Pi trains with, on LiteRT, one device at a time on every core: no TensorFlow here.

The file is the one beside the user's module, or named by option ``model``, as `fedmq export` makes it. Where there is
none, it is exported for this run, in a process of its own, so that this one stays as small as it is.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fedmq.engines.apart import run_apart
from fedmq.engines.front import cores
from fedmq.engines.single import SingleEngine
from fedmq.errors import ConfigError
from fedmq.trainers.litert.entry import shared_model
from fedmq.trainers.litert.file import SUFFIX
from fedmq.trainers.litert.trainer import LitertTrainer
from fedmq.trainers.settings import refuse_unknown, whole

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fedmq.trainers.litert.model import LitertModel
    from fedmq.trainers.module import Supply

_BATCH: Final = 32


def from_module(module: str, supplies: Mapping[str, Supply], options: Mapping[str, Any]) -> SingleEngine:
    """Return the engine for a user's module and its model file.

    `options`: ``model``, the file; ``workers``, how many devices train side by side (default: one for each core); where
    the file is made for this run, ``seed``, set before `model()` is called, and ``batch_size``, which trains fastest
    where tasks ask for the same. Raises ConfigError where file, model, data or an option cannot be used.
    """
    refuse_unknown("engine option", options, ("model", "seed", "workers", "batch_size"))
    workers = whole("workers", options.get("workers", cores()))
    model = _model(module, supplies, options)
    trainers = {device: _trainer(model, device, supply) for device, supply in supplies.items()}
    return SingleEngine(trainers, workers)


def _trainer(model: LitertModel, device: str, supply: Supply) -> LitertTrainer:
    try:
        return LitertTrainer(model, supply.train, held_out=supply.held_out)
    except ConfigError as error:
        raise ConfigError(f"{device}: {error}") from error


def _model(module: str, supplies: Mapping[str, Supply], options: Mapping[str, Any]) -> LitertModel:
    if "model" in options:
        return shared_model(Path(str(options["model"])))
    beside = Path(module).with_suffix(SUFFIX)
    if module.endswith(".py") and beside.is_file():
        return shared_model(beside)
    with tempfile.TemporaryDirectory(prefix="fedmq-litert-") as folder:
        return _exported(module, next(iter(supplies.values())), options, Path(folder))


def _exported(module: str, supply: Supply, options: Mapping[str, Any], folder: Path) -> LitertModel:
    """Export in another process. Raises ConfigError with that one's sentence where it cannot be done."""
    if not isinstance(supply.train, tuple) or len(supply.train) != 2:  # noqa: PLR2004  # inputs and labels
        raise ConfigError(
            f"the litert engine can export {module} by itself only for data that are (x, y): run `fedmq export`"
        )
    rows = slice(0, 2 * whole("batch_size", options.get("batch_size", _BATCH)))
    np.savez(folder / "data.npz", x=np.asarray(supply.train[0])[rows], y=np.asarray(supply.train[1])[rows])
    asked = {
        **options,
        "module": module,
        "data": str(folder / "data.npz"),
        "file": str(folder / f"model{SUFFIX}"),
    }
    try:
        run_apart("fedmq.engines.exporting", asked)
    except ConfigError as error:
        raise ConfigError(f"the litert engine cannot train this model: {error}") from error
    return shared_model(folder / f"model{SUFFIX}")
