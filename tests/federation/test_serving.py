"""A rule that keeps a model apart for use: devices go on from the one, the other is evaluated and saved."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fedmq.aggregator.settings import Federation
from fedmq.protocol.policy import Policy, StopWhen
from fedmq.rules import ModelAverage, Rule
from fedmq.testing.federation import SMALL, ShiftTrainer, rig
from fedmq.transport.memory import MemoryBroker

if TYPE_CHECKING:
    from pathlib import Path


async def test_the_average_is_served_while_devices_train_the_last_model(tmp_path: Path) -> None:
    policy = Policy(min_devices=1, quorum=1, soft_deadline_s=60, hard_deadline_s=60)
    rule = Rule(step=ModelAverage(averaging="equal"))
    federation = Federation("test", rule=rule, policy=policy, stop=StopWhen(rounds=3))
    broker = MemoryBroker()
    async with rig(federation, lambda: broker, tmp_path) as running:
        running.start_aggregator()
        running.start_devices([ShiftTrainer(shift=1)])
        assert await running.ended() == "3 rounds are done"
        assert running.aggregator is not None
        modelling = running.aggregator.modelling
    np.testing.assert_array_equal(running.model, np.full(SMALL.size, 3, np.float32))  # after 1 and 2
    for vector in (modelling.served(), modelling.evaluated()):
        np.testing.assert_array_equal(vector, np.full(SMALL.size, 2, np.float32))
