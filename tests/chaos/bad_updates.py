"""Bad updates over real MQTT: each is refused with a reason, and the model stays as it is, bit for bit.

    python -m tests.chaos.bad_updates --flower PYTHON

prints the table, with what Flower's FedAvg makes of the same updates where a Python with ``flwr`` 1.42 is named (or
FLOWER_PYTHON is set).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import lzma
import os
import subprocess
import sys
import tempfile
import threading
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fedmq.aggregator.settings import Encoding, Federation
from fedmq.codecs import parse
from fedmq.config.kept import written
from fedmq.protocol.messages import DELTA, Facts, Receipt, Task, Update, Verdict
from fedmq.protocol.policy import Policy, StopWhen
from fedmq.replay.course import Replay
from fedmq.store.archive import UPDATES, Archive, read_archive
from fedmq.testing.federation import SMALL, Rig, ShiftTrainer, rig
from fedmq.transport.address import Credentials, open_transport
from fedmq.transport.interface import Outgoing, Profile
from fedmq.transport.mosquitto import private_mosquitto
from fedmq.wire.envelope import decode, encode
from fedmq.wire.topics import Topics
from tests.chaos import bad_updates_flower
from tests.chaos.row import Row

if TYPE_CHECKING:
    from fedmq.transport.interface import Connection, Transport

NAME: Final = "test"
TOPICS: Final = Topics(NAME)
ONES: Final = np.ones(SMALL.size, np.float32)
POLICY: Final = Policy(min_devices=1, quorum=1, soft_deadline_s=60, hard_deadline_s=60)
BOMBS: Final = {"lzma": (40_000_000, 200_000), "zlib": (7_000_000, 50_000)}
"""What a bomb of each form becomes, in bytes. All are within the length that a task allows; the second of each is also
as short as a good update's section, so that somebody has to begin to unpack it."""
REFUSED: Final = "refused"
LATE: Final = "late"
COUNTED: Final = "a refusal counted"
"""What is wanted of a message that is none: nobody can be told, it is counted as refused."""

Make = Callable[["Attacker", str], bytes]


@dataclass(frozen=True, slots=True)
class Bad:
    """A message to send as an update; to the topic of the round `shift` before the open one."""

    make: Make
    reason: str = ""
    wanted: str = REFUSED
    shift: int = 0


class Attacker:
    """A link over which one can speak for any number of devices, by hand."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.receipts: dict[bytes, Receipt] = {}
        self.task: Task | None = None
        self.before: Task | None = None
        self._reader: asyncio.Task[None] | None = None

    @classmethod
    async def join(cls, transport: Transport) -> Attacker:
        """Connect, and wait for the first task."""
        attacker = cls(await transport.connect(Profile("attacker")))
        await attacker.connection.subscribe(TOPICS.task, f"{TOPICS.prefix}/down/+/receipt")
        attacker._reader = asyncio.create_task(attacker._read())
        await attacker.until(lambda: attacker.task)
        return attacker

    async def _read(self) -> None:
        while True:
            for message in await self.connection.receive():
                if message.topic == TOPICS.task:
                    self.before, self.task = self.task, decode(message.payload, Task)
                else:
                    receipt = decode(message.payload, Receipt)
                    self.receipts[receipt.update] = receipt

    async def until(self, holds: Callable[[], object]) -> None:
        """Wait until it holds."""
        async with asyncio.timeout(20):
            while not holds():
                await asyncio.sleep(0.005)

    def hears_of(self, round_: int) -> bool:
        """Tell whether this round is open."""
        return self.task is not None and self.task.round == round_

    def update(self, name: str, delta: object = ONES, **changes: object) -> bytes:
        """Return an update that would be taken, but for the changes."""
        assert self.task is not None
        fields = {
            "run": self.task.run,
            "update": update_id(name),
            "model": self.task.model,
            "layout": self.task.layout,
            "facts": Facts(10, 1),
            "sections": {
                DELTA: delta if isinstance(delta, bytes) else np.asarray(delta, np.float32).tobytes()
            },
        }
        return encode(Update(**{**fields, **changes}))  # type: ignore[arg-type]  # of any kind, as in a table

    async def send(self, device: str, payload: bytes, shift: int = 0) -> None:
        """Publish it as this device."""
        assert self.task is not None
        await self.connection.publish(Outgoing(TOPICS.update(device, self.task.round - shift), payload))

    async def leave(self) -> None:
        """Disconnect."""
        if self._reader is not None:
            self._reader.cancel()
        await self.connection.close()


def update_id(name: str) -> bytes:
    """Return eight bytes."""
    return zlib.crc32(name.encode()).to_bytes(8, "big")


def spoilt(value: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return a good delta with one number replaced."""
    delta = ONES.copy()
    delta[3] = value
    return delta


def _delta(delta: object) -> Make:
    return lambda attacker, name: attacker.update(name, delta)


def _with(**changes: object) -> Make:
    return lambda attacker, name: attacker.update(name, **changes)


def _bytes(content: bytes) -> Make:
    return lambda *_: content


def _of_before(attacker: Attacker, name: str) -> bytes:
    assert attacker.before is not None
    return attacker.update(name, model=attacker.before.model)


def _cut_short(attacker: Attacker, name: str) -> bytes:
    return attacker.update(name)[:-1]


def bomb(form: str, length: int) -> bytes:
    """Return few bytes that decompress to so many zeros."""
    if form == "lzma":
        filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 16, "lc": 0, "lp": 0, "pb": 0}]
        return lzma.compress(bytes(length), format=lzma.FORMAT_RAW, filters=filters)
    packer = zlib.compressobj(9, wbits=-15)
    return packer.compress(bytes(length)) + packer.flush()


TABLE: Final = {
    "NaN": Bad(_delta(spoilt(np.nan)), "not finite"),
    "infinity": Bad(_delta(spoilt(np.inf)), "not finite"),
    "minus infinity": Bad(_delta(spoilt(-np.inf)), "not finite"),
    "all NaN": Bad(_delta(ONES * np.nan), "not finite"),
    "1e30": Bad(_delta(spoilt(1e30)), ""),
    "float32's largest": Bad(_delta(ONES * np.finfo(np.float32).max), ""),
    "no examples": Bad(_with(facts=Facts(0)), "examples"),
    "negative examples": Bad(_with(facts=Facts(-5)), "examples"),
    "1e12 examples": Bad(_with(facts=Facts(10**12)), "examples"),
    "one number too few": Bad(_delta(ONES[1:]), "bytes"),
    "one number too many": Bad(_delta(np.append(ONES, 1)), "bytes"),
    "a shape that broadcasts": Bad(_delta(ONES[:1]), "bytes"),
    "float64": Bad(_delta(ONES.astype(np.float64).tobytes()), "bytes"),
    "float16": Bad(_delta(ONES.astype(np.float16).tobytes()), "bytes"),
    "empty": Bad(_delta(b""), "bytes"),
    "no delta": Bad(_with(sections={"gift": b"x"}), "no section"),
    "another layout": Bad(_with(layout=b"layout-9"), "another model layout"),
    "another model": Bad(_with(model=77), "starts from model 77"),
    "another run": Bad(_with(run=b"last-run"), "another run"),
    "a round to come": Bad(_delta(ONES), "", shift=-50),
    "nothing": Bad(_bytes(b""), wanted=COUNTED),
    "text": Bad(_bytes(b"hello"), wanted=COUNTED),
    "cut short": Bad(_cut_short, wanted=COUNTED),
    "100 kB where 200 bytes are": Bad(_delta(bytes(100_000)), wanted=COUNTED),
    "a length of 4 GB": Bad(_bytes(b"\xdd\xff\xff\xff\xff"), wanted=COUNTED),
    "deep nesting": Bad(_bytes(b"\x91" * 50_000), wanted=COUNTED),
    "a pickle": Bad(_bytes(b"\x80\x04cos\nsystem\n(S'true'\ntR."), wanted=COUNTED),
}
LATER: Final = {
    "an update of the last round": Bad(_of_before, "starts from model"),
    "the last round's, to its topic": Bad(_of_before, "", LATE, shift=1),
}
"""Sent in the second round."""


@dataclass
class Found:
    """What became of each bad update, and whether the model stayed what the honest device made it."""

    said: dict[str, str] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def judge(self, name: str, bad: Bad, receipt: Receipt | None) -> None:
        """Note what the aggregator said of one."""
        verdict = {None: COUNTED, Verdict.REJECTED: REFUSED, Verdict.LATE: LATE}.get(
            None if receipt is None else receipt.verdict, "taken"
        )
        reason = receipt.reason if receipt else ""
        self.said[name] = f"{verdict}: {reason}" if reason else verdict
        if verdict != bad.wanted or bad.reason not in reason or (verdict == REFUSED and not reason):
            self.wrong.append(f"{name}: {self.said[name]}")


async def throw() -> Found:
    """Throw both tables, then every bomb, at aggregators behind brokers of their own."""
    found = Found()
    await _throw("float32", [TABLE, LATER], found)
    for form, lengths in BOMBS.items():
        bombs = {length: bomb(form, length) for length in lengths}
        table = {
            f"{length // 1000:,} kB in {len(packed):,} bytes of {form}": Bad(_delta(packed))
            for length, packed in bombs.items()
        }
        await _throw(f"int8 | {form}", [table], found)
    return found


async def _throw(codec: str, tables: list[dict[str, Bad]], found: Found) -> None:
    federation = Federation(
        NAME, policy=POLICY, stop=StopWhen(rounds=len(tables)), encoding=Encoding(up=parse(codec))
    )
    gate = threading.Semaphore(0)
    with tempfile.TemporaryDirectory() as path:
        folder = Path(path)
        async with (
            private_mosquitto() as broker,
            rig(federation, lambda: open_transport(broker.address, Credentials()), folder) as running,
        ):
            running.start_aggregator(ONES, Archive(folder / UPDATES, written(federation), 2**30))
            running.start_device("honest", ShiftTrainer(shift=2, gate=lambda: gate.acquire(timeout=60)))
            attacker = await Attacker.join(open_transport(broker.address, Credentials()))
            for number, table in enumerate(tables, start=1):
                await attacker.until(partial(attacker.hears_of, number))
                await _throw_one_by_one(attacker, running, table, found)
                gate.release()
            await running.ended()
            await attacker.leave()
        _check_model(running, codec, found)


async def _throw_one_by_one(attacker: Attacker, running: Rig, table: dict[str, Bad], found: Found) -> None:
    for number, (name, bad) in enumerate(table.items()):
        assert running.aggregator is not None
        garbled, sender = running.aggregator.garbled, f"{attacker.task and attacker.task.round}-{number}"
        await attacker.send(sender, bad.make(attacker, name), bad.shift)
        if bad.wanted == COUNTED:
            aggregator = running.aggregator
            await attacker.until(lambda: aggregator.garbled == garbled + 1)  # noqa: B023 - awaited at once
            found.judge(name, bad, None)
        else:
            await attacker.until(lambda: update_id(name) in attacker.receipts)  # noqa: B023 - (same)
            found.judge(name, bad, attacker.receipts.pop(update_id(name)))


def _check_model(running: Rig, codec: str, found: Found) -> None:
    """Check that the model is what the honest device's updates make, by sums and by a replay of what was counted."""
    rounds = len(running.reports)
    if codec == "float32" and running.model.tobytes() != (ONES + 2 * rounds).tobytes():
        found.wrong.append("the model is not what the honest device made it")
    recording = read_archive(running.folder / UPDATES)
    senders = {piece.device for kept in recording.rounds for piece in recording.pieces(kept)}
    if senders != {"honest"} or any(report.accepted != 1 for report in running.reports):
        found.wrong.append(f"counted were updates of {', '.join(sorted(senders))}")
    if not all(points[0].same for points in Replay(recording, []).run()):
        found.wrong.append("the model is not what a replay makes of the honest updates")


async def run(*, quick: bool, seed: int) -> Row:
    """Throw everything, once; both forms are the same."""
    found = await throw()
    figures = {"kinds": float(len(found.said)), "wrong": float(len(found.wrong))}
    figure = (
        f"{len(found.said)} kinds refused, {len(found.wrong)} of them wrongly or not; the model unchanged"
    )
    if python := os.environ.get("FLOWER_PYTHON"):
        theirs = flower(python)
        figures["flower_refused"] = sum(said == bad_updates_flower.REFUSED for said in theirs.values())
        figure += f"; Flower refused {figures['flower_refused']:.0f} of the {len(theirs)} that it can be sent"
    for sentence in found.wrong:
        sys.stdout.write(f"{sentence}\n")
    return Row(
        promise="a bad update is refused with a reason, and the model is unchanged, bit for bit",
        figure=figure,
        goal="all refused, 0 bits changed",
        met=not found.wrong,
        figures=figures,
    )


def flower(python: str) -> dict[str, str]:
    """Return what Flower's FedAvg makes of the same updates."""
    script = str(Path(bad_updates_flower.__file__))
    done = subprocess.run([python, script], check=True, capture_output=True, text=True)
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--flower", metavar="PYTHON", default=os.environ.get("FLOWER_PYTHON"))
    given = parser.parse_args()
    found, theirs = asyncio.run(throw()), flower(given.flower) if given.flower else {}
    sys.stdout.write("| an update with | fedmq | Flower 1.42 |\n|---|---|---|\n")
    for name, said in found.said.items():
        sys.stdout.write(f"| {name} | {said} | {theirs.get(name, '')} |\n")
    for sentence in found.wrong:
        sys.stdout.write(f"WRONG {sentence}\n")
    return bool(found.wrong)


if __name__ == "__main__":
    sys.exit(main())
