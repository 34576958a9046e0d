"""An aggregator and its fleet, whose devices live in this process or, as a `Crowd`, in others."""

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
from fedmq.simulate.baselines import Curve, local_curve, pooled_curve
from fedmq.simulate.crowd import Count
from fedmq.simulate.judging import Judge
from fedmq.simulate.memory import resident_mb, seldom_collected
from fedmq.simulate.party import Party
from fedmq.simulate.runfolder import RoundRow, RunFolder, model_file
from fedmq.store.archive import UPDATES, Archive
from fedmq.store.checkpoint import CheckpointFolder
from fedmq.store.modelfile import StoredModel, save_model

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from fedmq.aggregator.modelling import Modelling
    from fedmq.protocol.messages import Report
    from fedmq.simulate.crowd import Crowd
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
    memory: dict[str, float] = field(default_factory=dict)
    """The most that each process held when a round ended, in megabytes."""

    def add(self, row: RoundRow, memory: Mapping[str, float]) -> None:
        """Add a round, and take note of what each process held."""
        self.rows.append(row)
        self.memory |= {name: max(held, self.memory.get(name, 0.0)) for name, held in memory.items()}

    @property
    def clusters(self) -> Mapping[str, float]:
        """How many devices chose each model in the end, and its accuracy for them; nothing where there is one model."""
        return self.rows[-1].clusters if self.rows else {}

    @property
    def accuracy(self) -> float | None:
        """Of the last model, on everyone's held-out data; of several, each on the data of those who chose it."""
        known = [row.accuracy for row in self.rows if row.accuracy is not None]
        return known[-1] if known else None

    @property
    def devices_s(self) -> float:
        """Accepted updates in a second, from the first device's connection to the end."""
        return round(sum(row.accepted for row in self.rows) / self.seconds, 1) if self.seconds else 0.0

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
            "devices_s": self.devices_s,
            "memory_mb": {name: round(held, 1) for name, held in self.memory.items()},
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
        self._evaluating = ThreadPoolExecutor(1, "fedmq-evaluating")
        self._reports: asyncio.Queue[Report | None] = asyncio.Queue()
        self._counted = Count()
        self._beside: Mapping[str, int] = {}
        self._judge = Judge(settings.algorithm, fleet.trainers, fleet.pooled)
        self.vector: Vector | None = None
        self.models: Mapping[str, Vector] = {}

    @property
    def disk(self) -> Path | None:
        """The folder in which devices keep what they have to; None where that is in memory."""
        return self.folder.path / "devices" if self.settings.fleet.outbox == "disk" else None

    async def run(
        self,
        transport: Callable[[], Transport],
        crowd: Crowd | None = None,
        beside: Mapping[str, int] | None = None,
    ) -> Outcome:
        """Run the federation to its end over connections that `transport` opens. Raises FedmqError.

        The devices are `crowd`, or where there is none, the fleet's in this process. The memory of the processes
        `beside` us, their numbers by name, is told with ours.
        """
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
            on_report=self._reports.put_nowait,
            entropy=Random(self.settings.fleet.seed).randbytes,
            archive=self._archive(),
        )
        crowd = crowd or Party(
            self.settings.name,
            self.fleet,
            transport,
            process="aggregator and devices",
            folder=self.disk,
        )
        self._beside = dict(beside or {})
        with seldom_collected():
            self.outcome.reason = await self._together(aggregator, crowd)
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

    async def _together(self, aggregator: Aggregator, crowd: Crowd) -> str:
        """Run aggregator and devices until the federation has ended; a device that fails ends the run."""
        serving = asyncio.create_task(self._serve(aggregator))
        tasks: set[asyncio.Task[Any]] = {
            serving,
            *map(asyncio.create_task, (crowd.live(), self._tell(crowd))),
        }
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
            return serving.result()
        finally:
            for task in tasks:
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, aggregator: Aggregator) -> str:
        reason = await aggregator.run()
        self._reports.put_nowait(None)
        return reason

    async def _evaluate(self, vector: Vector) -> Mapping[str, float]:
        return await asyncio.get_running_loop().run_in_executor(self._evaluating, self._judge, vector)

    async def _tell(self, crowd: Crowd) -> None:
        """Tell of each round as soon as all processes have said what it took; the last report is None."""
        while report := await self._reports.get():
            count = await crowd.count()
            memory = {**count.memory, **{name: resident_mb(pid) for name, pid in self._beside.items()}}
            up, down = count.bytes_up - self._counted.bytes_up, count.bytes_down - self._counted.bytes_down
            row = RoundRow.of(report, up, down, sum(memory.values()))
            self._counted = count
            self.outcome.add(row, memory)
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
