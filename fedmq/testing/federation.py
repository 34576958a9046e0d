"""Small parts for tests of a whole federation: a trainer whose results one can predict, and a fleet of them."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from fedmq.aggregator.aggregator import Aggregator
from fedmq.device.device import Device, Identity
from fedmq.device.interface import Trained
from fedmq.store.checkpoint import CheckpointFolder
from fedmq.store.modelfile import StoredModel
from fedmq.vectors import Layout, Variable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from pathlib import Path

    from fedmq.aggregator.settings import Federation
    from fedmq.descent import Pull
    from fedmq.device.interface import Setting, Trainer
    from fedmq.protocol.messages import Report
    from fedmq.store.archive import Archive
    from fedmq.transport.interface import Transport
    from fedmq.vectors import Vector

SMALL = Layout((Variable("w", (5, 3)), Variable("b", (4,)), Variable("mean", (2,), "statistic")))


@dataclass
class ShiftTrainer:
    """Adds `shift` to every number of the model, or does what `become` says with it.

    `gate`, where given, is waited for in the training thread: so a test decides when a training ends.
    """

    layout: Layout = SMALL
    shift: float = 1.0
    examples: int = 10
    metrics: Mapping[str, float] = field(default_factory=dict)
    become: Callable[[Vector], Vector] | None = None
    gate: Callable[[], object] | None = None
    name: str = "shift"
    trainings: int = 0

    def initial(self) -> Vector:
        """Return zeros."""
        return np.zeros(self.layout.size, np.float32)

    def train(
        self,
        model: Vector,
        settings: Mapping[str, Setting],  # noqa: ARG002
        *,
        seed: int,  # noqa: ARG002
        pull: Pull | None = None,  # noqa: ARG002
    ) -> Trained:
        """Return the shifted model."""
        if self.gate is not None:
            self.gate()
        self.trainings += 1
        trained = self.become(model) if self.become else model + np.float32(self.shift)
        return Trained(trained.astype(np.float32), self.examples, 1, self.metrics)

    def evaluate(self, model: Vector) -> Mapping[str, float]:  # noqa: ARG002
        """Hold nothing out."""
        return {}


class Rig:
    """An aggregator and devices around one broker; each can be started, stopped and started again."""

    def __init__(
        self, federation: Federation, transport: Callable[[], Transport], folder: Path, layout: Layout = SMALL
    ) -> None:
        """Keep the aggregator's state in `folder`; open links through `transport`."""
        self.federation, self.transport, self.folder, self.layout = federation, transport, folder, layout
        self.reports: list[Report] = []
        self.aggregator: Aggregator | None = None
        self.devices: dict[str, Device] = {}
        self._tasks: dict[str, asyncio.Task[object]] = {}

    def start_aggregator(self, first: Vector | None = None, archive: Archive | None = None) -> Aggregator:
        """Start the aggregator, from its folder where that holds a checkpoint; with an `archive`, updates are kept."""
        vector = np.zeros(self.layout.size, np.float32) if first is None else first
        self.aggregator = Aggregator(
            self.federation,
            self.transport(),
            CheckpointFolder(self.folder),
            StoredModel(self.layout, vector),
            on_report=self.reports.append,
            archive=archive,
        )
        self._tasks["aggregator"] = asyncio.create_task(self.aggregator.run())
        return self.aggregator

    def start_device(self, name: str, trainer: Trainer, **options: object) -> Device:
        """Start one device."""
        identity = Identity(self.federation.name, name)
        device = Device(identity, self.transport(), trainer, **options)  # type: ignore[arg-type]
        self.devices[name] = device
        self._tasks[name] = asyncio.create_task(device.run())
        return device

    def start_devices(self, trainers: Sequence[Trainer]) -> None:
        """Start ``device-0``, ``device-1`` and so on."""
        for number, trainer in enumerate(trainers):
            self.start_device(f"device-{number}", trainer)

    async def stop(self, name: str) -> None:
        """Stop ``aggregator`` or a device as SIGTERM would."""
        task = self._tasks.pop(name)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def ended(self, seconds: float = 30) -> str:
        """Wait until the federation has ended, and every device with it; return why."""
        assert self.aggregator is not None
        async with asyncio.timeout(seconds):
            reason = await self._tasks["aggregator"]
            await asyncio.gather(*self._tasks.values())
        return str(reason)

    @property
    def model(self) -> Vector:
        """The aggregator's model."""
        assert self.aggregator is not None
        return self.aggregator.modelling.weights.vector

    async def until(self, holds: Callable[[], object], seconds: float = 20) -> None:
        """Wait until `holds()` is true."""
        async with asyncio.timeout(seconds):
            while not holds():  # noqa: ASYNC110 - what is waited for has no event of its own
                await asyncio.sleep(0.005)

    async def close(self) -> None:
        """Stop everything that still runs."""
        for name in list(self._tasks):
            task = self._tasks.pop(name)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@contextlib.asynccontextmanager
async def rig(
    federation: Federation, transport: Callable[[], Transport], folder: Path, layout: Layout = SMALL
) -> AsyncIterator[Rig]:
    """Give a `Rig` and stop whatever of it still runs at the end."""
    running = Rig(federation, transport, folder, layout)
    try:
        yield running
    finally:
        await running.close()
