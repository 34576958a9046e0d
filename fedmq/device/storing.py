"""An update whose disk refuses it waits, made as it is, until the disk takes it: nothing is trained in vain."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from fedmq.errors import StoreError
from fedmq.store.trouble import DISK_PAUSE_S, Trouble

if TYPE_CHECKING:
    from fedmq.device.computing import Computing
    from fedmq.device.outbox import Stored
    from fedmq.device.training import Training
    from fedmq.protocol.messages import Task
    from fedmq.vectors import Vector


class Storing:
    """One device's way from a task to an update that is durable."""

    def __init__(self, computing: Computing, training: Training) -> None:
        """Train by `training` on `computing`."""
        self._computing, self._training = computing, training
        self._trouble = Trouble(
            "an update cannot be stored, the device waits", waits="the round's update waits for it"
        )

    async def answer(self, task: Task, model: Vector) -> Stored:
        """Train, and store the update however long that takes. Raises as `Training.answer` does, before that."""
        try:
            return await self._computing.answer(self._training, task, model)
        except StoreError as error:
            if not self._training.is_unstored:
                raise  # it could not be made
            self._trouble.refused(error)
        while True:
            await asyncio.sleep(DISK_PAUSE_S)
            try:
                stored = await asyncio.to_thread(self._training.store)
            except StoreError as error:
                self._trouble.refused(error)
            else:
                self._trouble.wrote(0.0)
                return stored
