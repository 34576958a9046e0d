"""Tests of `fedmq.device.naming`: names that never come twice, and names that always do."""

from dataclasses import replace

from fedmq.device.naming import NAME_BYTES, drawn, reckoned
from tests.unit.protocol.stage import task

TASK = task()


def test_real_devices_draw_their_names() -> None:
    assert len({drawn(TASK) for _ in range(100)}) == 100
    assert len(drawn(TASK)) == NAME_BYTES


def test_simulated_ones_reckon_them_by_device_run_and_round() -> None:
    tasks = [TASK, replace(TASK, round=TASK.round + 1), replace(TASK, run=b"another!")]
    names = [reckoned(device)(task) for device in ("anna", "bert") for task in tasks]
    assert len(set(names)) == len(names)
    assert names == [reckoned(device)(task) for device in ("anna", "bert") for task in tasks]
    assert {len(name) for name in names} == {NAME_BYTES}
