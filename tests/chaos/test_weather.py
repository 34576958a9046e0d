"""The tools of the chaos rows: the proxy does what its forecast says, and an audit finds what was tampered with."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import time
from random import Random
from typing import TYPE_CHECKING

import pytest

from fedmq.aggregator.settings import Federation
from fedmq.protocol.policy import Policy, StopWhen
from fedmq.transport.memory import MemoryBroker
from tests.chaos import herd, kills, ledger, weather
from tests.chaos.fleet import NAME, fleet, names
from tests.chaos.ledger import ACCEPTED, TRAINED, Ledger, Line, audit
from tests.chaos.weather import Forecast, Link, Seen, Weather

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


# --- the proxy --------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def echo(
    forecast: Forecast,
) -> AsyncIterator[tuple[Weather, asyncio.StreamReader, asyncio.StreamWriter]]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(65_536):
                writer.write(piece)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server, Weather(server.sockets[0].getsockname()[1], forecast) as there:
        reader, writer = await asyncio.open_connection("127.0.0.1", there.port)
        yield there, reader, writer
        writer.transport.abort()


async def test_good_weather_passes_everything_on() -> None:
    async with echo(Forecast()) as (there, reader, writer):
        data = Random(1).randbytes(300_000)
        writer.write(data)
        assert await reader.readexactly(len(data)) == data
        assert (there.open, there.seen.connections, len(there.seen.connects)) == (1, 1, 1)
    assert there.seen.bytes_up == len(data)


@pytest.mark.parametrize(
    "forecast", [Forecast(latency_s=0.05), Forecast(bandwidth=20_000)], ids=["latency", "bandwidth"]
)
async def test_a_slow_link_takes_its_time(forecast: Forecast) -> None:
    async with echo(forecast) as (_, reader, writer):
        began = time.monotonic()
        writer.write(b"x" * 1_000)
        await reader.readexactly(1_000)
        assert time.monotonic() - began >= 0.1


async def test_a_link_is_cut_after_so_many_bytes_and_the_next_one_too() -> None:
    async with echo(Forecast(cut_after=1_000)) as (there, reader, writer):
        writer.write(b"x" * 5_000)
        with contextlib.suppress(ConnectionError):
            await reader.read()
        again, other = await asyncio.open_connection("127.0.0.1", there.port)
        other.write(b"x" * 900)
        assert await again.readexactly(900)
        assert there.seen.cuts == 1
        other.transport.abort()


async def test_a_silent_link_stays_open() -> None:
    async with echo(Forecast()) as (there, reader, writer):
        writer.write(b"x")
        await reader.readexactly(1)
        (link,) = there._links
        link._stall()
        writer.write(b"y")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.05)
        assert (there.open, there.seen.stalls) == (1, 1)
        writer.transport.abort()
        async with asyncio.timeout(5):
            while there.open:
                await asyncio.sleep(0.005)


async def test_a_client_hears_when_there_is_no_broker() -> None:
    async with Weather(1) as there:
        reader, writer = await asyncio.open_connection("127.0.0.1", there.port)
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        assert (there.seen.refused, there.seen.connects) == (1, [])
        writer.transport.abort()


def test_a_fifth_of_the_links_is_cut_in_a_minute_whoever_asks() -> None:
    def fates(seed: int) -> list[float]:
        ends: tuple[asyncio.StreamWriter, asyncio.StreamWriter] = (None, None)  # type: ignore[assignment]
        return [
            Link(Forecast(), Seen(), Random(f"{seed}:{number}"), ends)._draw(0.2) for number in range(5_000)
        ]

    assert sum(fate < 60 for fate in fates(0)) / 5_000 == pytest.approx(0.2, abs=0.02)
    assert fates(1) == fates(1)
    assert fates(1) != fates(2)


def test_the_tool_reads_units() -> None:
    line = "--port 1884 --to 1885 --cut 0.2/min --latency 100ms --jitter 1s --bandwidth 50kB"
    given = weather.parse(shlex.split(line))
    assert (given.port, given.to) == (1884, 1885)
    assert weather.forecast(given) == Forecast(0.1, 1.0, 50_000, 0.2)
    with pytest.raises(SystemExit):
        weather.parse(["--cut", "1/min"])


def test_the_busiest_second_may_begin_at_any_time() -> None:
    assert herd.busiest([0.0, 0.9, 0.95, 1.0, 1.8, 1.85, 5.0]) == 5
    assert herd.busiest([]) == 0


# --- the audit --------------------------------------------------------------------------------------------------------


async def lived(folder: Path, rounds: int = 3, devices: int = 4) -> list[Line]:
    policy = Policy(min_devices=devices, quorum=devices, soft_deadline_s=60, hard_deadline_s=60)
    federation, broker = Federation(NAME, policy=policy, stop=StopWhen(rounds=rounds)), MemoryBroker()
    async with fleet(federation, folder, lambda _: broker) as running:
        running.start_aggregator()
        for name in names(devices):
            running.start_device(name)
        await running.until(lambda: len(running.reports) == rounds, 30, "every round")
        await running.until(lambda: len(accepted(running.ledger)) == rounds * devices, 30, "every receipt")
        found, lines = running.audit(), running.ledger.read()
    assert not found.violations
    assert (found.rounds, found.updates, found.receipts) == (rounds, rounds * devices, rounds * devices)
    assert found.models == kills.undisturbed(devices, rounds)
    return lines


def accepted(book: Ledger) -> list[Line]:
    return [line for line in book.read() if line.what == ACCEPTED]


async def test_an_audit_finds_what_was_tampered_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines, folder = await lived(tmp_path), tmp_path / "aggregator"
    device, what, round_, update, model = lines[0]
    assert what == TRAINED
    tampered = {
        "was receipted, and is nowhere": [Line(device, ACCEPTED, 2, "00" * 8)],
        "was told accepted and late": [Line(device, "late", round_, update)],
        "went back from": [Line(device, TRAINED, round_, "11" * 8, model)],
    }
    for sentence, more in tampered.items():
        assert sentence in audit([*lines, *more], folder).said
    assert "never made" in audit(lines[1:], folder).said
    assert not audit([*lines, *tampered["was receipted, and is nowhere"]], folder, abandoned={2}).violations
    monkeypatch.setattr(ledger, "mean_of", lambda deltas, _: sum(deltas) / len(deltas))
    assert "is not the mean of the updates kept of it" in audit(lines, folder).said
