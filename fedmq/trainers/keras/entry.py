"""From a user's module to a trainer, as the configuration names it: ``fedmq.trainers.keras:from_module``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from fedmq.errors import ConfigError
from fedmq.trainers.keras.runtime import configure_threads, keras
from fedmq.trainers.keras.trainer import KerasEngine, KerasTrainer, engine_for
from fedmq.trainers.module import Supply, UserModule, load_user_module
from fedmq.trainers.personal import file_for
from fedmq.trainers.settings import refuse_unknown, whole

if TYPE_CHECKING:
    from fedmq.trainers.keras.sources import Data


@dataclass(frozen=True, slots=True)
class _Options:
    """What the configuration may say about a Keras trainer."""

    threads: int | None = None
    seed: int | None = None
    personal: tuple[str, ...] = ()
    keep: Path | None = None

    @classmethod
    def parse(cls, given: Mapping[str, object]) -> _Options:
        refuse_unknown("trainer option", given, cls.__slots__)
        threads, seed, keep = given.get("threads"), given.get("seed"), given.get("keep")
        return cls(
            threads=None if threads is None else whole("threads", threads),
            seed=None if seed is None else whole("seed", seed, least=0),
            personal=_patterns(given.get("personal", ())),
            keep=None if keep is None else Path(str(keep)),
        )


def from_module(
    module: str, device: str, options: Mapping[str, object] | None = None, *, supply: Supply | None = None
) -> KerasTrainer:
    """Return a trainer for a user's module (see `fedmq.trainers.module`) whose `model()` returns a compiled model.

    Devices of one process that name the same module and options share one engine; `model()` is called once for all.

    `options`: ``threads`` (`configure_threads`), ``seed`` (set for Python, NumPy and Keras before `model()` is called,
    so that the first weights are the same every time), ``personal`` (patterns of layer names, `KerasEngine`) and
    ``keep`` (a folder for personal weights, one file per device). A `supply` takes the place of what the module's
    `data` gives. Raises ConfigError when the module, what its
    functions return, or an option cannot be used.
    """
    chosen = _Options.parse(options or {})
    if chosen.threads is not None:
        configure_threads(chosen.threads)
    user = load_user_module(module)
    engine = engine_for((module, chosen.personal, chosen.seed), lambda: _engine(user, chosen))
    supply = supply or user.data(device)
    return KerasTrainer(
        engine,
        cast("Data", supply.train),
        held_out=cast("Data | None", supply.held_out),
        keep=None if chosen.keep is None else file_for(chosen.keep, device),
    )


def _engine(user: UserModule, options: _Options) -> KerasEngine:
    if options.seed is not None:
        keras.utils.set_random_seed(options.seed)
    return KerasEngine(user.model, personal=options.personal)


def _patterns(given: object) -> tuple[str, ...]:
    if (
        isinstance(given, Sequence)
        and not isinstance(given, str)
        and all(isinstance(name, str) for name in given)
    ):
        return tuple(given)
    raise ConfigError(f"trainer option personal is {given!r}: give a list of layer names or patterns")
