"""From a user's module and a model file to a trainer, as the configuration names it: ``fedmq.trainers.litert``."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakValueDictionary

from fedmq.errors import ConfigError
from fedmq.trainers.litert.file import SUFFIX
from fedmq.trainers.litert.model import LitertModel
from fedmq.trainers.litert.trainer import LitertTrainer
from fedmq.trainers.module import Supply, load_user_module
from fedmq.trainers.personal import file_for
from fedmq.trainers.settings import refuse_unknown


@dataclass(frozen=True, slots=True)
class _Options:
    """What the configuration may say about a LiteRT trainer."""

    model: Path | None = None
    keep: Path | None = None

    @classmethod
    def parse(cls, given: Mapping[str, object]) -> _Options:
        refuse_unknown("trainer option", given, (*cls.__slots__, "seed"))
        return cls(**{name: Path(str(given[name])) for name in cls.__slots__ if name in given})


def from_module(
    module: str, device: str, options: Mapping[str, object] | None = None, *, supply: Supply | None = None
) -> LitertTrainer:
    """Return a trainer for a module with `data(device)` and the file that `fedmq export` made of its `model()`.

    The module's `model()` is not called here, so its file may lack one, and need no framework. Devices of one process
    that name the same file share one `LitertModel`.

    `options`: ``model``, the file; by default it lies beside the module, ``my_model.tflite`` by ``my_model.py``; and
    ``keep``, a folder for personal weights, one file per device. ``seed`` may be there, as for the other trainers, and
    has no say: the first weights are the file's. A `supply` takes the place of what the module's `data`
    gives. Raises ConfigError when the module, its data, the file or an option cannot be used.
    """
    chosen = _Options.parse(options or {})
    model = shared_model(_file(module, chosen.model))
    supply = supply or load_user_module(module, needs=("data",)).data(device)
    return LitertTrainer(
        model,
        supply.train,
        held_out=supply.held_out,
        keep=None if chosen.keep is None else file_for(chosen.keep, device),
    )


def shared_model(path: Path) -> LitertModel:
    """Return the process's `LitertModel` of this file, opened now where no trainer holds one of it as it is."""
    key = (path.resolve(), path.stat().st_mtime_ns) if path.exists() else (path, 0)
    with _models_lock:
        model = _models.get(key)
        if model is None:
            model = _models[key] = LitertModel(path)
        return model


_models: WeakValueDictionary[tuple[Path, int], LitertModel] = WeakValueDictionary()
_models_lock = threading.Lock()


def _file(module: str, named: Path | None) -> Path:
    """Return the model file: the one named, where that is no absolute path beside the module; else of its name."""
    if not module.endswith(".py"):
        if named is None:
            raise ConfigError(
                f"module {module!r} is not a path, so its model file must be named: set option model to the "
                f"file that `fedmq export {module}` wrote"
            )
        return named
    path = Path(module)
    return path.with_suffix(SUFFIX) if named is None else path.parent / named
