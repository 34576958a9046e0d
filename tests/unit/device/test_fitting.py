"""Which published vectors a device takes for its model."""

from __future__ import annotations

import pytest

from fedmq.device.device import Device, Identity
from fedmq.errors import MessageError
from fedmq.protocol.messages import Manifest
from fedmq.testing.federation import SMALL, ShiftTrainer
from fedmq.transport.memory import MemoryBroker


def manifest(sizes: tuple[int, ...], layout: bytes = SMALL.digest) -> Manifest:
    return Manifest(b"run-0001", 1, layout, sizes, ())


@pytest.mark.parametrize("sizes", [SMALL.sizes, (*SMALL.sizes, 15, 4), (*SMALL.sizes, 15 * SMALL.size)])
def test_an_algorithms_numbers_may_stand_behind_the_models(sizes: tuple[int, ...]) -> None:
    device = Device(Identity("test", "device"), MemoryBroker(), ShiftTrainer())
    assert device._fitting(manifest(sizes)) == manifest(sizes)


@pytest.mark.parametrize(
    ("sizes", "says"),
    [
        (SMALL.sizes[:-1], "not those of the layout"),
        ((15, *SMALL.sizes), "not those of the layout"),
        ((*SMALL.sizes, 15 * SMALL.size + 1), "far more than the model's 21"),
        ((*SMALL.sizes, 2**29), "far more"),
    ],
)
def test_other_sizes_are_refused(sizes: tuple[int, ...], says: str) -> None:
    device = Device(Identity("test", "device"), MemoryBroker(), ShiftTrainer())
    with pytest.raises(MessageError, match=says):
        device._fitting(manifest(sizes))
    assert device._fitting(manifest(sizes, b"layout-9")).sizes == sizes  # another model's: of no concern
