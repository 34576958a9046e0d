"""What is said of a disk in trouble: enough, and not too much."""

from __future__ import annotations

import logging

import pytest

from fedmq.errors import StoreError
from fedmq.store.trouble import REPEAT_S, SLOW_S, Trouble

FULL = StoreError("the disk is full")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def said(caplog: pytest.LogCaptureFixture) -> list[int]:
    levels = [record.levelno for record in caplog.records]
    caplog.clear()
    return levels


def test_a_refusal_is_told_at_once_then_each_minute_and_when_it_is_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()
    trouble = Trouble("no receipts are given", clock)
    trouble.refused(FULL)
    assert "no receipts are given, for 0 s now: the disk is full" in caplog.text
    assert said(caplog) == [logging.CRITICAL]
    for _ in range(int(2 * REPEAT_S)):
        clock.now += 1.0
        trouble.refused(FULL)
    assert said(caplog) == [logging.CRITICAL] * 2
    trouble.wrote(0.1)
    assert "takes writes again, after 120 s" in caplog.text
    assert said(caplog) == [logging.WARNING]
    trouble.wrote(0.1)
    assert said(caplog) == []
    trouble.refused(FULL)
    assert said(caplog) == [logging.CRITICAL]


def test_a_slow_disk_is_told_of_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    trouble = Trouble("", clock)
    trouble.wrote(SLOW_S - 0.1)
    assert said(caplog) == []
    for _ in range(12):
        clock.now += 10.0
        trouble.wrote(SLOW_S)
    assert said(caplog) == [logging.WARNING] * 2
