"""An update whose disk refuses it waits, made as it is, until the disk takes it: nothing is trained in vain."""

from __future__ import annotations

import asyncio
from functools import partial
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
        await asyncio.sleep(DISK_PAUSE_S)
        return await self._trouble.insist(partial(asyncio.to_thread, self._training.store))
