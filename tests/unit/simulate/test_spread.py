"""Fleets in several processes: the same run as in one, and nobody left behind."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmq.device.interface import ModuleName
from fedmq.errors import ConfigError, FedmqError
from fedmq.simulate import FleetTable, SimulationSettings, memory
from fedmq.simulate.crowd import Count, ShareLost
from fedmq.simulate.narration import line, summary
from fedmq.simulate.party import make_room
from fedmq.simulate.play import play, world_settings
from fedmq.simulate.runfolder import RoundRow
from fedmq.simulate.shares import WHOLE, Share, enough, shares
from fedmq.simulate.simulation import Outcome
from fedmq.simulate.spread import Place, crew, gathered, process
from fedmq.simulate.spread.order import Order, orders
from fedmq.simulate.spread.process import ShareProcess
from fedmq.store.modelfile import load_model
from fedmq.transport.private import private_broker
from fedmq.worlds import World
from tests.unit.simulate.toy import MODULE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PRINTED = "what the user's code prints is no message of ours\n"
TALKATIVE = MODULE.replace("    generator", f"    print({PRINTED.strip()!r})\n    generator")
TOML = """
name = "several"
training = { epochs = 2, batch_size = 8, learning_rate = 0.1 }
[fleet]
module = "mine.py"
devices = 10
trainer = "numpy"
baselines = false
[rounds]
min_devices = 10
quorum = 1
fraction = 0.8
soft_deadline_s = 60
hard_deadline_s = 60
[stop]
rounds = 3
"""
NOWHERE = Place("mqtt://127.0.0.1:9", private=True)


@pytest.fixture
def world(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(TALKATIVE)
    (tmp_path / "world.toml").write_text(TOML)
    return tmp_path / "world.toml"


@pytest.fixture
def settings(world: Path) -> SimulationSettings:
    return world_settings(str(world), {})


# --- who has whom -----------------------------------------------------------------------------------------------------


@given(fleet=st.lists(st.integers(), max_size=60), count=st.integers(1, 9))
def test_shares_are_of_one_size_and_have_everyone_once(fleet: list[int], count: int) -> None:
    parts = [share.of(fleet) for share in shares(count)]
    assert sorted(each for part in parts for each in part) == sorted(fleet)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_share_that_does_not_exist() -> None:
    with pytest.raises(ConfigError, match="no part 3 of 2"):
        Share(3, 2)
    assert WHOLE.of("abc") == "abc"


@pytest.mark.parametrize(
    ("devices", "wanted", "least", "found"),
    [
        (5_000, 0, 1, 1),
        (5_001, 0, 1, 2),
        (10_000, 0, 1, 2),
        (100, 4, 1, 4),
        (3, 4, 1, 3),
        (100, 0, 3, 3),
        (2, 0, 3, 2),
    ],
)
def test_as_many_processes_as_the_fleet_needs(devices: int, wanted: int, least: int, found: int) -> None:
    assert enough(devices, wanted, least) == found


@pytest.mark.parametrize(
    ("fleet", "found"),
    [
        ({"engine": "numpy", "devices": 499}, 1),
        ({"engine": "numpy", "devices": 500}, 2),
        ({"engine": "litert", "devices": 5_000}, 4),
        ({"engine": "numpy", "devices": 5_000, "processes": 1}, 1),
        ({"engine": "jax", "devices": 5_000}, 1),
        ({"engine": "trainer", "devices": 5_001}, 2),
    ],
)
def test_a_fleet_on_a_light_engine_uses_all_cores(
    fleet: dict[str, Any], found: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedmq.simulate.settings.cores", lambda: 4)
    table = FleetTable(ModuleName("x"), **fleet)
    assert (table.shares, table.spread) == (found, found > 1)


def test_processes_come_from_the_file_or_the_command_line(settings: SimulationSettings, world: Path) -> None:
    assert not settings.fleet.spread
    assert world_settings(str(world), {"processes": 2}).fleet.spread
    assert world_settings(str(world), {"on": "ray", "ray_address": "auto"}).fleet.spread
    assert world_settings(str(world), {"devices": 6_000}).fleet.spread


@pytest.mark.parametrize(
    ("fleet", "sentence"),
    [
        ({"processes": -1}, "processes is -1"),
        ({"ray_address": "10.0.0.1:6379"}, "nothing runs on Ray"),
    ],
)
def test_what_a_fleet_cannot_be(fleet: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        FleetTable(ModuleName("x"), **fleet)


def test_disks_are_those_of_this_machine_and_of_real_time(settings: SimulationSettings) -> None:
    on_disk = replace(settings.fleet, outbox="disk")
    with pytest.raises(ConfigError, match="devices on Ray may be on others"):
        replace(on_disk, on="ray")
    with pytest.raises(ConfigError, match="virtual time has no disks"):
        replace(settings, fleet=on_disk, world=World())


@pytest.mark.parametrize("fleet", [{"processes": 2}, {"on": "ray"}])
def test_virtual_time_is_in_one_process(settings: SimulationSettings, fleet: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="virtual time runs in one process"):
        replace(settings, fleet=replace(settings.fleet, **fleet), world=World())


def test_an_order_is_one_line_and_says_all(settings: SimulationSettings) -> None:
    first, second = orders(settings, "litert", 2, NOWHERE)
    assert "\n" not in first.line()
    assert Order.read(first.line()) == first
    assert (first.share, second.share) == (Share(1, 2), Share(2, 2))
    assert (first.settings.fleet.engine, first.settings.fleet.options["workers"]) == (
        "litert",
        max(1, _cores() // 2),
    )
    assert replace(first.settings, fleet=settings.fleet) == settings
    own, _ = orders(settings, "trainer", 2, NOWHERE)
    assert "workers" not in own.settings.fleet.options


def test_an_order_moves_to_where_the_user_s_file_is(settings: SimulationSettings) -> None:
    order, *_ = orders(settings, "trainer", 1, NOWHERE)
    assert order.moved(Path("/elsewhere")).settings.fleet.module == "/elsewhere/mine.py"
    dotted = replace(settings, fleet=replace(settings.fleet, module=ModuleName("my.package")))
    order, *_ = orders(dotted, "trainer", 1, NOWHERE)
    assert order.moved(Path("/elsewhere")) == order


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def test_a_fleet_that_would_wait_for_ever(settings: SimulationSettings, tmp_path: Path) -> None:
    small = replace(settings, fleet=replace(settings.fleet, devices=9))
    with pytest.raises(
        ConfigError, match="opens when 10 devices are there, and the fleet has 9: lower min_devices"
    ):
        play(small, tmp_path / "run", broker=None, as_json=True)


# --- the run ----------------------------------------------------------------------------------------------------------


@pytest.mark.broker
@pytest.mark.parametrize("engine", ["trainer", pytest.param("numpy", marks=pytest.mark.slow)])
def test_a_run_is_the_same_however_it_is_spread(
    settings: SimulationSettings,
    engine: Literal["trainer", "numpy"],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fedmq.simulate.play._draw", lambda *_: [])
    (tmp_path / "json.py").write_text("raise AssertionError('what lies about here is none of our business')")
    monkeypatch.chdir(tmp_path)
    told: list[list[dict[str, Any]]] = []
    outboxes: list[Literal["memory", "disk"]] = ["memory", "disk"]
    for count, outbox in enumerate(outboxes, start=1):
        fleet = replace(settings.fleet, processes=count, engine=engine, outbox=outbox)
        play(replace(settings, fleet=fleet), tmp_path / str(count), broker=None, as_json=True)
        out = [text for text in capfd.readouterr().out.splitlines() if text.startswith("{")]
        told.append([json.loads(text) for text in out])
    one, two = (load_model(tmp_path / str(count) / "model.fedmq") for count in (1, 2))
    assert one.vector.tobytes() == two.vector.tobytes()
    same = ("accuracy", "loss", "expected", "accepted", "round")
    assert [[row[key] for key in same] for row in told[0][:-1]] == [
        [row[key] for key in same] for row in told[1][:-1]
    ]
    assert told[0][-1]["bytes_up"] == told[1][-1]["bytes_up"]
    processes = told[1][-1]["memory_mb"]
    assert {"aggregator", "devices 1 of 2", "devices 2 of 2"} <= set(processes)
    assert all(held > 5 for held in processes.values())
    assert set(told[0][-1]["memory_mb"]) >= {"aggregator and devices"}
    kept = [folder.name for folder in (tmp_path / "2" / "devices").iterdir() if (folder / "outbox").is_dir()]
    assert len(kept) == settings.fleet.devices
    assert not (tmp_path / "1" / "devices").exists()


@pytest.mark.broker
async def test_a_process_that_is_killed_is_noticed(settings: SimulationSettings) -> None:
    async with private_broker() as broker:
        order, *_ = orders(settings, "trainer", 2, Place(broker.address, private=True))
        share = ShareProcess(order)
        await share.open()
        living = asyncio.create_task(share.live())
        assert (await share.count()).memory["devices 1 of 2"] > 5  # it lives
        os.kill(share.pid, signal.SIGKILL)
        with pytest.raises(
            ShareLost, match=r"share 1 of 2 of the devices was ended by SIGKILL: .* short of memory"
        ):
            await living
        with pytest.raises(ShareLost, match="SIGKILL"):
            await share.count()
        await share.close()


@pytest.mark.skipif(not hasattr(os, "getpriority"), reason="this system has no niceness")
async def test_the_aggregator_goes_first(settings: SimulationSettings) -> None:
    """Else the updates that it has no time for wait for its one thread when all devices are done."""
    share = ShareProcess(orders(settings, "trainer", 1, NOWHERE)[0])
    await share.open()
    ours, theirs = (os.getpriority(os.PRIO_PROCESS, pid) for pid in (os.getpid(), share.pid))
    await share.close()
    assert theirs == min(ours + 3, 19)


async def test_what_a_process_cannot_do_is_told_in_a_sentence(
    settings: SimulationSettings, tmp_path: Path
) -> None:
    (tmp_path / "other.py").write_text(TALKATIVE.replace("print(", "raise KeyError("))
    fleet = replace(settings.fleet, module=ModuleName(str(tmp_path / "other.py")), processes=1)
    with pytest.raises(
        ShareLost, match=r"share 1 of 1 of the devices cannot go on: KeyError: .* no message of ours"
    ):
        async with gathered(replace(settings, fleet=fleet), "trainer", NOWHERE):
            pytest.fail("it cannot have begun")


@pytest.mark.parametrize(
    ("program", "sentence"),
    [("this", "said what cannot be read"), ("fedmq.version", "ended before its time, with exit code 0")],
)
async def test_a_program_that_is_not_ours(
    settings: SimulationSettings, program: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "PROGRAM", program)
    share = ShareProcess(orders(settings, "trainer", 1, NOWHERE)[0])
    with pytest.raises(ShareLost, match=sentence):
        await share.open()
    await share.close()


async def test_a_process_that_does_not_listen_is_ended(
    settings: SimulationSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "PROGRAM", "http.server")  # which reads no input
    monkeypatch.setattr(process, "PATIENCE_S", 0.05)
    share = ShareProcess(orders(settings, "trainer", 1, NOWHERE)[0])
    opening = asyncio.create_task(share.open())
    while not share.pid:
        await asyncio.sleep(0.01)
    await share.close()
    with pytest.raises(ProcessLookupError):
        os.kill(share.pid, 0)
    opening.cancel()
    await asyncio.gather(opening, return_exceptions=True)


async def test_one_that_fails_ends_all(settings: SimulationSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []

    class Stand:
        pid = 0

        def __init__(self, order: Order) -> None:
            self.name = str(order.share)

        async def open(self) -> None:
            if self.name == "2 of 3":
                raise ShareLost("the second one failed")
            await asyncio.Event().wait()

        async def close(self) -> None:
            closed.append(self.name)

    monkeypatch.setattr(crew, "ShareProcess", Stand)
    three = replace(settings, fleet=replace(settings.fleet, processes=3))
    with pytest.raises(FedmqError, match="the second one failed"):
        async with gathered(three, "trainer", NOWHERE):
            pytest.fail("it cannot have begun")
    assert closed == ["1 of 3", "2 of 3", "3 of 3"]


# --- from outside -----------------------------------------------------------------------------------------------------


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Processes begun now hear of Ctrl-C. A script's shell has what it runs with ``&`` ignore it, tests among it, and
    who is begun by such a process ignores it too.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def running(
    world: Path,
    tmp_path: Path,
    interruptible: None,
) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A run of many rounds, under way in three processes; with their numbers and the broker's."""
    command = [
        sys.executable,
        "-m",
        "fedmq.cli",
        "simulate",
        str(world),
        "--processes",
        "3",
        "--rounds",
        "100000",
    ]
    parent = subprocess.Popen(
        [*command, "--json", "--out", str(tmp_path / "run")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    assert any(text.startswith("{") for text in parent.stdout)  # a round is over
    children = _children(parent.pid)
    yield parent, children
    parent.kill()
    parent.communicate()
    for child in filter(_is_there, children):
        os.kill(child, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.broker
@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="looks for processes as Linux tells of them"
)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_process_outlives_the_one_that_began_it(
    running: tuple[subprocess.Popen[str], list[int]], number: signal.Signals
) -> None:
    parent, children = running
    assert len(children) >= 4
    parent.send_signal(number)
    _, told = parent.communicate(timeout=30)
    assert parent.returncode == (130 if number == signal.SIGINT else -number)
    if number == signal.SIGINT:
        assert told.replace(PRINTED, "") == "fedmq: interrupted\n"
    _wait(lambda: not any(map(_is_there, children)))


@pytest.mark.slow
@pytest.mark.broker
@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="looks for processes as Linux tells of them"
)
def test_a_run_ends_with_a_sentence_when_one_process_is_killed(
    running: tuple[subprocess.Popen[str], list[int]],
) -> None:
    parent, children = running
    second = next(child for child in children if _is_share(child))
    os.kill(second, signal.SIGKILL)
    _, told = parent.communicate(timeout=30)
    assert parent.returncode == 1
    assert "\nfedmq: the process with share " in told
    assert told.endswith("was ended by SIGKILL: the machine may be short of memory\n")
    _wait(lambda: not any(map(_is_there, children)))


def _children(pid: int) -> list[int]:
    status = {path: path.read_text() for path in Path("/proc").glob("[0-9]*/status") if path.exists()}
    return [int(path.parent.name) for path, text in status.items() if f"\nPPid:\t{pid}\n" in text]


def _is_share(pid: int) -> bool:
    return process.PROGRAM in Path(f"/proc/{pid}/cmdline").read_text()


def _is_there(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# --- figures ----------------------------------------------------------------------------------------------------------


def test_counts_add_up() -> None:
    found = Count.sum([Count(1, 10, {"a": 5.0}), Count(2, 20, {"b": 6.0})])
    assert found == Count(3, 30, {"a": 5.0, "b": 6.0})


def test_a_line_has_rate_and_memory_where_they_are_known() -> None:
    row = RoundRow(3, 4, "stepped", 0.5, None, 100, 100, 0, 10, 20, 0.5, devices_s=200.0, memory_mb=1_234.5)
    assert line(row, 0).endswith("0.5 s       200.0    1.2 GB")
    assert line(replace(row, memory_mb=0.0), 0).endswith("0.5 s")


def test_the_end_says_what_every_process_held() -> None:
    many = Outcome(seconds=1.0, memory={f"devices {number} of 5": 50.0 + number for number in range(5)})
    assert summary(many)[-1].endswith("memory: 5 times devices 50.0 MB to 54.0 MB")
    outcome, row = Outcome(seconds=4.0), RoundRow(1, 2, "stepped", 0.5, None, 8, 8, 0, 1, 1, 1.0)
    for held in (50.0, 40.0):
        outcome.add(row, {"aggregator": held, "devices 1 of 2": 60.0, "devices 2 of 2": 70.0})
    assert (
        summary(outcome)[-1] == "  4.0 device-rounds/s; memory: aggregator 50.0 MB, devices 60.0 MB + 70.0 MB"
    )


def test_memory_is_that_of_the_process_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    own, parent = memory.resident_mb(), memory.resident_mb(os.getppid())
    assert own > 20
    assert own <= memory.peak_mb() * 1.1
    assert parent > 0
    monkeypatch.setattr(memory, "Path", lambda _: Path("/nowhere/at/all"))  # a system without /proc
    assert memory.resident_mb() == memory.resident_mb(os.getpid()) == memory.peak_mb()
    assert memory.resident_mb(1) == 0


def test_garbage_is_looked_for_seldom_meanwhile_and_as_before_afterwards() -> None:
    before = gc.get_threshold()
    found: list[int] = []

    def end_early() -> None:
        with memory.seldom_collected():
            found.append(gc.get_threshold()[0])
            raise ConfigError("the run ended early")

    with pytest.raises(ConfigError, match="ended early"):
        end_early()
    assert found[0] > 10 * before[0]
    assert gc.get_threshold() == before


def test_a_fleet_has_room_for_its_sockets_or_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    raised: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 1_000))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: raised.append(limits))
    make_room(100)
    make_room(800)
    assert raised == [(900, 1_000)]
    with pytest.raises(
        ConfigError, match="5,000 devices need 5,100 open files, and a process may have 1,000"
    ):
        make_room(5_000)
