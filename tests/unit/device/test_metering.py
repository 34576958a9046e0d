"""The count of a link's bytes: through restarts, crashes and midnights, with few writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fedmq.device import metering
from fedmq.device.metering import DAY_S, FRAMING_BYTES, WRITES, LinkTable, Meter
from fedmq.errors import ConfigError, StoreError
from fedmq.protocol.quantities import ByteCount

if TYPE_CHECKING:
    from pathlib import Path

DAY = 20_000
NOON = DAY * DAY_S + DAY_S / 2
MESSAGE = 100
PAYLOAD = bytes(MESSAGE - FRAMING_BYTES - 1)


class Clock:
    """A calendar that stands still until it is told otherwise."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


def carry(meter: Meter, messages: int) -> None:
    for _ in range(messages):
        meter.count("t", PAYLOAD)


def test_what_is_left_shrinks_to_nothing(tmp_path: Path) -> None:
    meter = Meter(10 * MESSAGE, tmp_path / "traffic", clock=Clock())
    carry(meter, 9)
    assert (meter.used, meter.left) == (900, 100)
    carry(meter, 3)
    assert (meter.used, meter.left) == (1200, 0)


def test_a_link_without_a_limit_is_counted(tmp_path: Path) -> None:
    meter = Meter(None, tmp_path / "traffic", clock=Clock())
    carry(meter, 3)
    assert (meter.used, meter.left) == (300, None)
    assert Meter(None).left is None


def test_the_next_day_begins_with_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    meter = Meter(1000, tmp_path / "traffic", clock=clock)
    carry(meter, 10)
    clock.now += DAY_S / 2
    with caplog.at_level("INFO"):
        assert meter.left == 1000
    assert "the link carried 1.0 kB on 2024-10-04 (UTC)" in caplog.text
    carry(meter, 1)
    clock.now -= DAY_S
    assert meter.left == 900, "a clock that is put back begins no day"


async def test_tomorrow_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr("fedmq.device.metering.asyncio.sleep", sleep)
    await Meter(1000, clock=Clock()).tomorrow()
    assert waits == [DAY_S / 2]


def test_it_goes_on_after_a_restart(tmp_path: Path) -> None:
    clock = Clock()
    meter = Meter(100 * MESSAGE, tmp_path / "traffic", clock=clock)
    carry(meter, 7)
    meter.close()
    assert Meter(100 * MESSAGE, tmp_path / "traffic", clock=clock).used == 700
    clock.now += DAY_S
    assert Meter(100 * MESSAGE, tmp_path / "traffic", clock=clock).used == 0
    meter = Meter(100 * MESSAGE, tmp_path / "traffic", clock=clock)
    meter.close()


def test_a_crash_counts_too_much_and_never_too_little(tmp_path: Path) -> None:
    limit = 1000 * MESSAGE
    for messages in (1, 19, 20, 21, 777):
        path = tmp_path / f"traffic-{messages}"
        carry(Meter(limit, path, clock=Clock()), messages)
        after = Meter(limit, path, clock=Clock()).used
        assert messages * MESSAGE <= after <= messages * MESSAGE + limit // WRITES


def test_a_day_costs_few_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[bytes] = []
    monkeypatch.setattr("fedmq.device.metering.write_whole", lambda _, data: writes.append(data))
    carry(Meter(2000 * MESSAGE, tmp_path / "traffic", clock=Clock()), 2000)
    assert 1 < len(writes) <= WRITES


@pytest.mark.parametrize("content", [b"", b"20000", b"x y", b"20000 -5"])
def test_a_count_that_cannot_be_read_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "traffic").write_bytes(content)
    assert Meter(1000, tmp_path / "traffic", clock=Clock()).used == 0


def test_a_link_is_metered_where_the_file_says_so(tmp_path: Path) -> None:
    assert LinkTable().meter(tmp_path) is None
    meter = LinkTable(metered=True, bytes_per_day=ByteCount(1000)).meter(tmp_path)
    assert meter is not None
    assert meter.limit == 1000
    counting = LinkTable(metered=True).meter(tmp_path)
    assert counting is not None
    assert counting.left is None


def test_settings_that_say_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match="say metered = true too"):
        LinkTable(bytes_per_day=ByteCount(1000))
    with pytest.raises(ConfigError, match="bytes_per_day is 0"):
        LinkTable(metered=True, bytes_per_day=ByteCount(0))


def test_a_count_that_cannot_be_written_holds_the_limited_link_up_until_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A device that is switched off meanwhile would not know what it has used."""
    monkeypatch.setattr(metering, "DISK_PAUSE_S", 0.0)
    meter = Meter(1_000_000, tmp_path / "traffic", clock=lambda: 0.0)
    with monkeypatch.context() as broken:
        broken.setattr(metering, "write_whole", _full)
        meter.count("topic", bytes(1000))
        meter.count("topic", bytes(1000))
        assert meter.left == 0
        assert caplog.text.count("CRITICAL") == 1
        meter.close()
    used = meter.used
    assert used > 2000
    assert meter.left == 1_000_000 - used
    assert int((tmp_path / "traffic").read_bytes().split()[1]) >= used


def test_between_two_tries_a_disk_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries = []

    def full(*_: object) -> None:
        tries.append(1)
        _full()

    monkeypatch.setattr(metering, "write_whole", full)
    meter = Meter(1_000_000, tmp_path / "traffic", clock=lambda: 0.0)
    for _ in range(50):
        meter.count("topic", bytes(1000))
    assert len(tries) <= 2


def test_a_link_without_a_limit_is_not_held_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metering, "write_whole", _full)
    meter = Meter(None, tmp_path / "traffic", clock=lambda: 0.0)
    meter.count("topic", bytes(1000))
    assert meter.left is None


def _full(*_: object) -> None:
    raise StoreError("the disk is full")
