"""A fleet and its aggregator in one process, each device with an MQTT session of its own over a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

from fedmq.aggregator.aggregator import Aggregator
from fedmq.config.kept import written
from fedmq.device.device import Device, Identity
from fedmq.simulate.baselines import Curve, local_curve, pooled_curve
from fedmq.simulate.judging import Judge
from fedmq.simulate.runfolder import RoundRow, RunFolder, model_file
from fedmq.store.archive import UPDATES, Archive
from fedmq.store.checkpoint import CheckpointFolder
from fedmq.store.modelfile import StoredModel, save_model

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from fedmq.aggregator.modelling import Modelling
    from fedmq.protocol.messages import Report
    from fedmq.simulate.fleet import Fleet
    from fedmq.simulate.settings import SimulationSettings
    from fedmq.transport.interface import Transport
    from fedmq.vectors import Vector

CURVE_POINTS = 6


@dataclass(slots=True)
class Outcome:
    """What a run gave."""

    reason: str = ""
    rows: list[RoundRow] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def clusters(self) -> Mapping[str, float]:
        """How many devices chose each model in the end, and its accuracy for them; nothing where there is one model."""
        return self.rows[-1].clusters if self.rows else {}

    @property
    def accuracy(self) -> float | None:
        """Of the last model, on everyone's held-out data; of several, each on the data of those who chose it."""
        known = [row.accuracy for row in self.rows if row.accuracy is not None]
        return known[-1] if known else None

    def summary(self) -> dict[str, Any]:
        """Return the final figures as plain data."""
        return {
            "reason": self.reason,
            "rounds": len(self.rows),
            "accuracy": self.accuracy,
            **({"clusters": dict(self.clusters)} if self.clusters else {}),
            **{curve.name.replace(" ", "_"): curve.last for curve in self.curves},
            "bytes_up": sum(row.bytes_up for row in self.rows),
            "bytes_down": sum(row.bytes_down for row in self.rows),
            "seconds": round(self.seconds, 2),
        }


class Simulation:
    """One run. Devices train on one worker thread, one after the other, or together on the fleet's engine."""

    def __init__(
        self,
        settings: SimulationSettings,
        fleet: Fleet,
        folder: Path,
        *,
        on_round: Callable[[RoundRow], None] = lambda _: None,
    ) -> None:
        """Prepare to write into `folder`; `on_round` hears of each round as it ends. Raises StoreError."""
        self.settings, self.fleet = settings, fleet
        self.folder = RunFolder(folder)
        self.outcome = Outcome()
        self._on_round = on_round
        self._worker = ThreadPoolExecutor(fleet.callers, "fedmq-training")
        self._devices: list[Device] = []
        self._counted = (0, 0)
        self._judge = Judge(settings.algorithm, fleet.trainers, fleet.pooled)
        self.vector: Vector | None = None
        self.models: Mapping[str, Vector] = {}

    async def run(self, transport: Callable[[], Transport]) -> Outcome:
        """Run the federation to its end over connections that `transport` opens. Raises FedmqError."""
        self.folder.settings(self.settings)
        began = time.monotonic()
        first = next(iter(self.fleet.trainers.values()))
        model = StoredModel(first.layout, first.initial())
        aggregator = Aggregator(
            self.settings.federation,
            transport(),
            CheckpointFolder(self.folder.path / "aggregator"),
            model,
            evaluate=self._evaluate,
            on_report=self._report,
            entropy=Random(self.settings.fleet.seed).randbytes,
            archive=self._archive(),
        )
        self._devices = [
            Device(Identity(self.settings.name, name), transport(), trainer, executor=self._worker)
            for name, trainer in self.fleet.trainers.items()
        ]
        self.outcome.reason = await self._together(aggregator)
        self.outcome.seconds = time.monotonic() - began
        self._save(aggregator.modelling)
        return self.outcome

    def _save(self, modelling: Modelling) -> None:
        """Save the model, or every one where there are several, each in a file that bears its name."""
        layout = modelling.plain
        facts: dict[str, str | int] = {
            "federation": self.settings.name,
            "version": modelling.weights.version,
        }
        self.vector = modelling.served()
        self.models = self.settings.algorithm.apart(self.vector, layout)
        for name, model in self.models.items():
            path = self.folder.path / model_file(name, ".fedmq")
            save_model(path, StoredModel(layout, model, {**facts, "model": name} if name else facts))

    def _archive(self) -> Archive | None:
        store = self.settings.store
        if not store.keep_updates:
            return None
        settings = written(self.settings.federation)
        return Archive(self.folder.path / "aggregator" / UPDATES, settings, store.keep_bytes)

    async def _together(self, aggregator: Aggregator) -> str:
        """Run aggregator and devices until the aggregator ends; a device that fails ends the run."""
        serving = asyncio.create_task(aggregator.run())
        living = [asyncio.create_task(device.run()) for device in self._devices]
        try:
            done, _ = await asyncio.wait({serving, *living}, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
            return await serving
        finally:
            for task in [serving, *living]:
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(serving, *living, return_exceptions=True)

    async def _evaluate(self, vector: Vector) -> Mapping[str, float]:
        return await asyncio.get_running_loop().run_in_executor(self._worker, self._judge, vector)

    def _report(self, report: Report) -> None:
        up = sum(device.counters.bytes_up for device in self._devices)
        down = sum(device.counters.bytes_down for device in self._devices)
        row = RoundRow.of(report, up - self._counted[0], down - self._counted[1])
        self._counted = up, down
        self.outcome.rows.append(row)
        self.folder.round(row)
        self._on_round(row)

    def compare(self, progress: Callable[[str], None]) -> None:
        """Train without federation as well, for as many epochs as the federation's rounds took. Blocking."""
        if self.fleet.pooled is None or not self.settings.fleet.baselines:
            return
        rounds, training = len(self.outcome.rows), self.settings.training
        steps = min(CURVE_POINTS, rounds)
        progress("each device alone")
        alone = local_curve(self.fleet, rounds, training, steps, lambda _: None)
        progress("all data in one place")
        self.outcome.curves = [alone, pooled_curve(self.fleet, rounds, training, steps)]
