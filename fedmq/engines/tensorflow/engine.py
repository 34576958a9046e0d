"""From a user's module to an engine on TensorFlow, stacked or not: whichever is faster for this model, here."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from fedmq.engines.engine import Job
from fedmq.engines.front import Front, cores
from fedmq.engines.keras import first_model
from fedmq.engines.stacking.checks import check_stackable, shows_padding
from fedmq.engines.stacking.engine import Shape, StackingEngine
from fedmq.engines.tensorflow.calculus import TensorFlowCalculus
from fedmq.engines.tensorflow.lanes import LanesEngine
from fedmq.errors import ConfigError
from fedmq.trainers.keras.runtime import ENGINE, configure_threads
from fedmq.trainers.settings import refuse_unknown, whole

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fedmq.engines.engine import Engine
    from fedmq.trainers.module import Supply

STACK: Final = 32
_TRIED_S: Final = 0.5


def from_module(module: str, supplies: Mapping[str, Supply], options: Mapping[str, Any]) -> Engine:
    """Return the engine for a user's module with a compiled Keras model.

    `options`: ``seed``, set before `model()` is called; ``workers``, how many trainings run side by side (default: one
    for each core); ``way``: ``stacked``, ``single``, or ``auto``, which tries both for a moment. Raises ConfigError
    where model, data or an option cannot be used.
    """
    refuse_unknown("engine option", options, ("seed", "workers", "way"))
    workers = whole("workers", options.get("workers", cores()))
    way = options.get("way", "auto")
    if way not in {"auto", "single", "stacked"}:
        raise ConfigError(f"engine option way is {way!r}: give auto, single or stacked")
    _one_thread_each(workers)
    if way == "single":
        return _single(module, supplies, options, workers)
    if way == "stacked":
        return _stacked(module, supplies, options, workers)
    return _faster(module, supplies, options, workers)


def _single(
    module: str, supplies: Mapping[str, Supply], options: Mapping[str, Any], workers: int
) -> LanesEngine:
    return LanesEngine(lambda: first_model(module, options), supplies, workers)


def _stacked(
    module: str, supplies: Mapping[str, Supply], options: Mapping[str, Any], workers: int
) -> StackingEngine:
    model = first_model(module, options)
    check_stackable(model, "tensorflow")
    if shows_padding(model):
        raise ConfigError(
            f"model {model.name!r} has a layer, loss or metric that may look at all rows of a batch (batch "
            "normalisation does): with way = 'single', its devices train one at a time"
        )
    return StackingEngine(f"{ENGINE}, stacked", model, supplies, TensorFlowCalculus(), Shape(STACK, workers))


def _faster(module: str, supplies: Mapping[str, Supply], options: Mapping[str, Any], workers: int) -> Engine:
    single = _single(module, supplies, options, workers)
    try:
        stacked = _stacked(module, supplies, options, workers)
    except ConfigError:  # what cannot be stacked trains one at a time
        return single
    devices = list(supplies)[:STACK]
    both: tuple[Engine, Engine] = (single, stacked)
    return max(both, key=lambda engine: rate(engine, devices))


def rate(engine: Engine, devices: list[str]) -> float:
    """Return how many local rounds of one epoch, ten examples a step, `engine` trains in a second."""
    jobs = [Job(device, engine.initial(), {"epochs": 1, "batch_size": 10}, 1) for device in devices]
    with Front(engine) as front:
        front.train_all(jobs)
        done, began = 0, time.perf_counter()
        while time.perf_counter() - began < _TRIED_S:
            front.train_all(jobs)
            done += len(jobs)
        return done / (time.perf_counter() - began)


def _one_thread_each(workers: int) -> None:
    """Let TensorFlow compute each operation on one thread; in a process where it runs already it stays as it is."""
    try:
        configure_threads(1, workers)
    except ConfigError:
        return
