"""Which published vectors a device takes for its model."""

from __future__ import annotations

import pytest

from fedmq.device.device import Device, Identity
from fedmq.errors import MessageError
from fedmq.protocol.messages import Manifest
from fedmq.testing.federation import SMALL, ShiftTrainer
from fedmq.transport.memory import MemoryBroker


def manifest(behind: tuple[int, ...]) -> Manifest:
    return Manifest(b"run-0001", 1, b"replica_", 1, 1, (), behind)


@pytest.mark.parametrize("behind", [(), (15, 4), (15 * SMALL.size,)])
def test_an_algorithms_numbers_may_stand_behind_the_models(behind: tuple[int, ...]) -> None:
    device = Device(Identity("test", "device"), MemoryBroker(), ShiftTrainer())
    assert device._fitting(manifest(behind)) == manifest(behind)


@pytest.mark.parametrize("behind", [(15 * SMALL.size + 1,), (2**29,)])
def test_more_than_any_algorithm_has_is_refused(behind: tuple[int, ...]) -> None:
    device = Device(Identity("test", "device"), MemoryBroker(), ShiftTrainer())
    with pytest.raises(MessageError, match="far more than the model's 21"):
        device._fitting(manifest(behind))
