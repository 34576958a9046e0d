"""The aggregator's intake: encoded updates in over MQTT, absorbed, and the new model out.

For each size of update and number of devices, three programs take the same bytes from the same senders through a
private mosquitto of their own: fedmq's aggregator with everything on (journal, receipts, guards, exact mean,
checkpoint), a bare aiomqtt loop that adds float32 to a running sum and publishes it, and a bare subscriber that only
counts: the broker's own ceiling. A round lasts from the task that the senders wait for to the next one. Where updates
are float32, fedmq runs once more with the same update as users would send it, in the `safe` codec: a figure of its own,
held to no goal.

Beside them, where `--flower` or FLOWER_PYTHON names a Python that has Flower: its gRPC server with its clients, see
`benchmarks._flower`.

The programs take turns, each twice in every case, so that a busy moment of the machine meets all of them. Memory is the
most that was resident. BENCHMARK_FOLDER is where fedmq keeps its journal and checkpoints.

    python -m benchmarks.intake --json
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiomqtt
import numpy as np

from benchmarks.report import Goal, report
from fedmq.aggregator.aggregator import Aggregator
from fedmq.aggregator.settings import Encoding, Federation
from fedmq.codecs import parse
from fedmq.errors import MessageError
from fedmq.protocol.messages import DELTA, Birth, Facts, Task, TaskKind, Update
from fedmq.protocol.policy import Policy, StopWhen
from fedmq.store.checkpoint import CheckpointFolder
from fedmq.store.modelfile import StoredModel
from fedmq.transport.address import Credentials, open_transport
from fedmq.transport.mosquitto import private_mosquitto
from fedmq.vectors import Layout, Variable
from fedmq.wire.chunks import chunk_room, cut
from fedmq.wire.envelope import decode, encode
from fedmq.wire.limits import PACKET_BYTES
from fedmq.wire.topics import Topics

FEDERATION: Final = "bench"
TOPICS: Final = Topics(FEDERATION)
TURNS: Final = 2
SAFE: Final = "safe"
ROUND_BYTES: Final = 200e6
"""Bytes of one round above which few rounds are enough."""
UNBOUNDED: Final = "max_queued_bytes 0"
"""The broker drops nothing: these senders, unlike fedmq's devices, would not send it again."""
PATIENCE_S: Final = 60.0
NO_DELAY: Final = (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
"""Else a program that only sends small packets waits 40 ms a round for TCP's delayed acknowledgement."""


@dataclass(frozen=True, slots=True)
class Case:
    """One setting: `values` float32 numbers in the model, how they are encoded, how many devices, how many rounds."""

    name: str
    values: int
    codec: str
    devices: int
    rounds: int

    @property
    def layout(self) -> Layout:
        """The model's layout: one variable."""
        return Layout((Variable("w", (self.values,)),))

    def delta(self) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        """Return an update's delta: heavy-tailed, as real ones are, so that entropy coders meet real work."""
        return (0.01 * np.random.default_rng(7).standard_t(3, self.values)).astype(np.float32)


def cases(*, quick: bool) -> list[Case]:
    """Return what is measured; a compressed case names the size that its updates come to."""
    if quick:
        return [Case("1MB", 250_000, "float32", 5, 6), Case("20kB", 30_000, "int8 | lzma", 20, 6)]
    sizes = [("0.1MB", 25_000, "float32"), ("1MB", 250_000, "float32"), ("10MB", 2_500_000, "float32")]
    sizes += [("1kB", 1_300, "int8 | lzma"), ("20kB", 30_000, "int8 | lzma")]
    return [
        Case(name, values, codec, devices, 12 if 4 * values * devices < ROUND_BYTES else 4)
        for name, values, codec in sizes
        for devices in (5, 20, 100)
    ]


def programs(case: Case) -> list[str]:
    """Return what runs in this case."""
    return ["fedmq", "bare", "ceiling", *([f"fedmq-{SAFE}"] if case.codec == "float32" else [])]


# --- programs under test ----------------------------------------------------------------------------------------------


async def run_fedmq(case: Case, address: str) -> None:
    """Run fedmq's aggregator as it ships."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCHMARK_FOLDER")) as folder:
        federation = Federation(
            FEDERATION,
            policy=Policy(
                min_devices=case.devices, quorum=case.devices, soft_deadline_s=300, hard_deadline_s=300
            ),
            stop=StopWhen(rounds=case.rounds),
            encoding=Encoding(up=parse(case.codec), chunk_bytes=PACKET_BYTES),
        )
        model = StoredModel(case.layout, np.zeros(case.values, np.float32))
        await Aggregator(
            federation, open_transport(address, Credentials()), CheckpointFolder(Path(folder)), model
        ).run()


async def run_bare(case: Case, address: str) -> None:
    """Run what a tutorial's aggregator would be, on aiomqtt as documented: no checks, no journal, no receipts."""
    codec, sizes = parse(case.codec), (case.values,)
    async with _client(address, "bare") as client:
        await client.subscribe(f"{TOPICS.prefix}/up/+/update/+", qos=1)
        model = np.zeros(case.values, np.float32)
        messages = aiter(client.messages)
        for number in range(1, case.rounds + 1):
            await client.publish(TOPICS.task, str(number), qos=1, retain=True)
            total = np.zeros(case.values, np.float32)
            for _ in range(case.devices):
                message = await anext(messages)
                assert isinstance(message.payload, bytes)
                total += codec.decode(message.payload, sizes)
            model += total / case.devices
            await client.publish(TOPICS.manifest, model.tobytes(), qos=1, retain=True)
        await client.publish(TOPICS.task, "0", qos=1, retain=True)


async def run_ceiling(case: Case, address: str) -> None:
    """Run a subscriber that only counts."""
    async with _client(address, "ceiling") as client:
        await client.subscribe(f"{TOPICS.prefix}/up/+/update/+", qos=1)
        messages = aiter(client.messages)
        for number in range(1, case.rounds + 1):
            await client.publish(TOPICS.task, str(number), qos=1, retain=True)
            for _ in range(case.devices):
                await anext(messages)
        await client.publish(TOPICS.task, "0", qos=1, retain=True)


# --- senders ----------------------------------------------------------------------------------------------------------


async def run_senders(case: Case, address: str, program: str) -> None:
    """Be the devices: wait for each task, publish the prepared update; print the rounds' durations as JSON."""
    letters = Letters(case, parse(case.codec).encode(case.delta(), case.layout.sizes))
    starts: list[float] = []
    async with asyncio.TaskGroup() as group:
        for number in range(case.devices):
            name = f"device-{number}"
            group.create_task(_send(address, program, name, letters, [] if number else starts))
    print(json.dumps([after - before for before, after in itertools.pairwise(starts)]))


class Letters:
    """The same update from every device, encoded once a round: what devices do at home is not what is measured."""

    def __init__(self, case: Case, body: bytes) -> None:
        """Send `body`, the encoded delta."""
        self.case, self.body = case, body
        self._round, self._mark, self._data = 0, b"", b""

    def of(self, task: Task) -> tuple[bytes, bytes]:
        """Return a new update's id and bytes."""
        if task.round != self._round:
            self._round, self._mark = task.round, os.urandom(8)
            facts = Facts(100, 10)
            self._data = encode(
                Update(task.run, self._mark, task.model, task.layout, facts, {DELTA: self.body})
            )
        update = os.urandom(8)
        return update, self._data.replace(self._mark, update, 1)


async def _send(address: str, program: str, name: str, letters: Letters, starts: list[float]) -> None:
    async with _client(address, name) as client:
        await client.subscribe(TOPICS.task, qos=1)
        birth = Birth(alive=True, session=1, layout=letters.case.layout.digest)
        await client.publish(TOPICS.status(name), encode(birth), qos=1, retain=True)
        async for message in client.messages:
            assert isinstance(message.payload, bytes)
            task = _task(message.payload)
            starts.append(time.perf_counter())
            if task is None or task.kind is TaskKind.STOP:
                return
            if program.startswith("fedmq"):
                await _publish_update(client, name, task, letters)
            else:
                await client.publish(TOPICS.update(name, task.round), letters.body, qos=1, timeout=300)


def _task(payload: bytes) -> Task | None:
    """Read a task of fedmq's, or a bare program's round number; None at the end."""
    try:
        return decode(payload, Task)
    except MessageError:
        number = int(payload)
        return Task(b"", number, number, TaskKind.TRAIN, 0, b"", b"", 1, 0, "", 0) if number else None


async def _publish_update(client: aiomqtt.Client, name: str, task: Task, letters: Letters) -> None:
    update, data = letters.of(task)
    room = chunk_room(PACKET_BYTES, PACKET_BYTES)
    if len(data) <= room:
        await client.publish(TOPICS.update(name, task.round), data, qos=1, timeout=300)
        return
    for chunk in cut(data, task.run, update, room):
        await client.publish(TOPICS.update(name, task.round, chunk.index), encode(chunk), qos=1, timeout=300)


def _client(address: str, name: str) -> aiomqtt.Client:
    host, _, port = address.removeprefix("mqtt://").partition(":")
    return aiomqtt.Client(
        host,
        int(port),
        identifier=name,
        protocol=aiomqtt.ProtocolVersion.V5,
        timeout=300,
        socket_options=[NO_DELAY],
    )


# --- measuring --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Measured:
    """What one program did in one turn of a case: durations of its rounds (the first one left out), and its cost."""

    rounds: list[float]
    cpu_s: float
    rss_mb: float
    broker_mb: float = 0.0


async def measure(case: Case, program: str) -> Measured:
    """Run one program and the senders against a broker of their own."""
    codec = SAFE if program == f"fedmq-{SAFE}" else case.codec
    async with private_mosquitto([UNBOUNDED]) as broker:
        setting = json.dumps([case.name, case.values, codec, case.devices, case.rounds])
        command = [sys.executable, "-m", "benchmarks.intake", "--role"]
        tested, senders = [
            await _start([*command, role, setting, broker.address, program]) for role in (program, "senders")
        ]
        times, _ = await senders.communicate()
        broker_mb = _peak_mb(broker.pid)
        usage, _ = await tested.communicate()
    used = json.loads(usage.splitlines()[-1])
    return Measured(json.loads(times)[1:], used["cpu_s"] / case.rounds, used["rss_mb"], broker_mb)


async def measure_flower(case: Case, python: str) -> Measured:
    """Run Flower's server and clients under their own Python."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    address = f"127.0.0.1:{port}"
    command = [python, str(Path(__file__).with_name("_flower.py"))]
    setting = [str(case.values), str(case.devices), str(case.rounds + 1), address]
    server = await _start([*command, "server", *setting])
    async with asyncio.timeout(PATIENCE_S):
        while not await _listens(port):  # noqa: ASYNC110 - another process sets no event of ours
            await asyncio.sleep(0.1)
    clients = await _start([*command, "clients", *setting])
    usage, _ = await server.communicate()
    await clients.communicate()
    used = json.loads(usage.splitlines()[-1])
    return Measured(used["rounds"][1:], used["cpu_s"] / case.rounds, used["rss_mb"])


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def _start(command: list[str]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)


def _peak_mb(pid: int | str) -> float:
    """Return the most memory that a process has had resident (Linux)."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) / 1000


def run_case(case: Case, flower: str | None) -> dict[str, float]:
    """Let the programs take turns in this case, and name what was measured."""
    turns: dict[str, list[Measured]] = {}
    for _ in range(TURNS):
        for program in programs(case):
            turns.setdefault(program, []).append(asyncio.run(measure(case, program)))
        if flower and case.codec == "float32":
            turns.setdefault("flower", []).append(asyncio.run(measure_flower(case, flower)))
    figures: dict[str, float] = {}
    for program, measured in turns.items():
        figures |= figures_of(case, program, measured)
    return figures


def figures_of(case: Case, program: str, turns: list[Measured]) -> dict[str, float]:
    """Name what was measured."""
    key = f"{case.name}x{case.devices}_{program}"
    codec = SAFE if program == f"fedmq-{SAFE}" else case.codec
    body = len(parse(codec).encode(case.delta(), case.layout.sizes))
    rounds = [duration for turn in turns for duration in turn.rounds]
    round_s = statistics.median(rounds)
    figures = {
        f"{key}_round_ms": 1000 * round_s,
        f"{key}_best_round_ms": 1000 * min(rounds),
        f"{key}_updates_per_s": case.devices / round_s,
        f"{key}_MB_per_s": case.devices * body / round_s / 1e6,
        f"{key}_cpu_ms_per_round": 1000 * min(turn.cpu_s for turn in turns),
        f"{key}_rss_MB": max(turn.rss_mb for turn in turns),
    }
    broker_mb = max(turn.broker_mb for turn in turns)
    line = f"{key}: {1000 * round_s:.1f} ms a round, {figures[f'{key}_rss_MB']:.0f} MB"
    print(line, file=sys.stderr, flush=True)
    return {**figures, f"{key}_broker_rss_MB": broker_mb} if broker_mb else figures


def goals_of(figures: dict[str, float], measured: list[Case]) -> list[Goal]:
    """Hold fedmq to the bare aggregator's time, and its memory to that of five devices."""
    goals = []
    for case in measured:
        key = f"{case.name}x{case.devices}"
        ratio = figures[f"{key}_fedmq_round_ms"] / figures[f"{key}_bare_round_ms"]
        goals.append(Goal(f"{key}: round time over the bare aggregator's", ratio, "<=", 1.0))
    for name in dict.fromkeys(case.name for case in measured):
        many, few = figures.get(f"{name}x100_fedmq_rss_MB"), figures.get(f"{name}x5_fedmq_rss_MB")
        if many and few:
            goals.append(Goal(f"{name}: memory with 100 devices over that with 5", many / few, "<=", 1.2))
    return goals


def main() -> None:
    """Measure, or be one of the processes that are measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="two small cases only")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    parser.add_argument("--only", help="cases whose name begins so, such as 1MBx20")
    parser.add_argument(
        "--flower", default=os.environ.get("FLOWER_PYTHON"), help="a Python that has Flower (FLOWER_PYTHON)"
    )
    parser.add_argument("--role", help=argparse.SUPPRESS)
    parser.add_argument("rest", nargs="*", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.role:
        asyncio.run(_play(arguments.role, *arguments.rest))
        return
    if not arguments.flower:
        print("Flower is left out: name a Python that has it with --flower or FLOWER_PYTHON", file=sys.stderr)
    chosen = [
        c for c in cases(quick=arguments.quick) if f"{c.name}x{c.devices}".startswith(arguments.only or "")
    ]
    figures: dict[str, float] = {}
    for case in chosen:
        figures |= run_case(case, arguments.flower)
    report(figures, goals_of(figures, chosen), arguments.json)


async def _play(role: str, case: str, address: str, program: str) -> None:
    setting = Case(*json.loads(case))
    if role == "senders":
        await run_senders(setting, address, program)
    else:
        began = time.process_time()
        run = {"bare": run_bare, "ceiling": run_ceiling}.get(role, run_fedmq)
        await run(setting, address)
        print(json.dumps({"cpu_s": time.process_time() - began, "rss_mb": _peak_mb("self")}))


if __name__ == "__main__":
    main()
