"""The commands that run until their federation ends: `fedmq aggregate`, `device` and `broker`."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fedmq.cli.group import run
from fedmq.errors import ConfigError

if TYPE_CHECKING:
    from fedmq.config import AggregatorFile
    from fedmq.store.archive import Archive
    from fedmq.store.modelfile import StoredModel


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--check", is_flag=True, help="Only read the file, say what it means, and stop.")
@click.option(
    "--keep-updates/--no-keep-updates",
    default=None,
    help="Keep every round's accepted updates, for `fedmq replay`; by default as the file says under [store].",
)
def aggregate(file: Path, check: bool, keep_updates: bool | None) -> None:
    """Run the aggregator that FILE (TOML) describes, until its federation has ended.

    Its folder keeps the model and the open round: stop it (Ctrl-C, SIGTERM) and start it whenever you like, it goes on
    where it was.
    """
    from fedmq.config import AggregatorFile, load

    settings = load(file, AggregatorFile)
    if keep_updates is not None:
        settings = replace(settings, store=replace(settings.store, keep_updates=keep_updates))
    if check:
        click.echo(_explain(settings))
        return
    from fedmq.aggregator.aggregator import Aggregator
    from fedmq.aggregator.pairing import advice
    from fedmq.simulate.narration import HEADING, line
    from fedmq.simulate.runfolder import RoundRow
    from fedmq.store.checkpoint import CheckpointFolder

    federation, first = settings.settings(), _first_model(settings)
    transport = settings.broker.open()

    async def serve() -> None:
        aggregator = Aggregator(
            federation,
            transport,
            CheckpointFolder(settings.federation.folder),
            first,
            on_report=lambda report: click.echo(
                line(
                    RoundRow.of(report, report.bytes_up, report.bytes_down * report.expected),
                    federation.stop.rounds,
                )
            ),
            archive=_archive(settings),
        )
        click.echo(f"federation {federation.name} on {transport.address}, rule {federation.rule}")
        for sentence in advice(federation):
            click.echo(f"note: {sentence}")
        click.echo(HEADING)
        click.echo(f"ended: {await aggregator.run()}")

    run(serve())


def _explain(settings: AggregatorFile) -> str:
    from fedmq.aggregator.pairing import advice
    from fedmq.aggregator.steering import Budget
    from fedmq.config.encoding import name_of

    federation = settings.settings()
    rows = {
        "federation": federation.name,
        "broker": settings.broker.open().address,
        "rule": federation.rule,
        "encoding": name_of(federation.encoding),
        "up": federation.encoding.up,
        "models": federation.encoding.models,
        **({"budget": federation.encoding.budget} if federation.encoding.budget != Budget() else {}),
        "rounds": federation.policy,
        "stop": federation.stop,
        "training": federation.training,
        "updates": f"kept, {settings.store.keep_bytes:,} bytes at most"
        if settings.store.keep_updates
        else "not kept",
    }
    lines = [f"{name:<11} {value}" for name, value in rows.items()]
    return "\n".join([*lines, *(f"note: {sentence}" for sentence in advice(federation))])


def _archive(settings: AggregatorFile) -> Archive | None:
    from fedmq.config.kept import written
    from fedmq.store.archive import UPDATES, Archive

    store = settings.store
    if not store.keep_updates:
        return None
    return Archive(settings.federation.folder / UPDATES, written(settings.settings()), store.keep_bytes)


def _first_model(settings: AggregatorFile) -> StoredModel:
    """Load the model file, or have a process of its own make one: the aggregator itself never imports a framework."""
    from fedmq.store.files import make_folder
    from fedmq.store.modelfile import load_model

    if settings.model.file is not None:
        return load_model(settings.model.file)
    path = make_folder(settings.federation.folder) / "first.fedmq"
    if not path.exists():
        command = [sys.executable, "-m", "fedmq.cli", "init", str(settings.model.module), "-o", str(path)]
        command += ["--trainer", settings.model.trainer]
        command += [f"--personal={pattern}" for pattern in settings.model.personal]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own program
        if done.returncode:
            told = done.stderr.strip().splitlines() or ["no reason given"]
            raise ConfigError(f"the first model could not be made: {told[-1].removeprefix('fedmq: ')}")
    return load_model(path)


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--name", help="The device's name instead of the file's; its folder is then one of that name.")
def device(file: Path, name: str | None) -> None:
    """Run one real device as FILE (TOML) describes it, until its federation has ended.

    It waits for tasks, trains on its own data when it is its turn, and sends the update until it has a receipt. Stop it
    whenever you like: what was not yet received lies in its folder and is sent next time.
    """
    from fedmq.config import DeviceFile, load
    from fedmq.device.device import Device, Identity
    from fedmq.device.keepsakes import DiskKeepsakes
    from fedmq.device.outbox import DiskOutbox, next_session
    from fedmq.simulate.fleet import build_trainer

    settings = load(file, DeviceFile)
    table, known_as = settings.device, name or settings.device.device
    transport = settings.broker.open()
    folder = table.folder / name if name else table.folder  # several devices may share a file, not an outbox
    outbox, keepsakes = DiskOutbox(folder / "outbox"), DiskKeepsakes(folder / "keepsakes")
    trainer = build_trainer(settings.trainer.kind)(
        settings.trainer.module, known_as, settings.trainer.options
    )
    meter = settings.link.meter(folder)
    identity = Identity(table.federation, known_as, next_session(folder))
    click.echo(
        f"device {known_as} of {table.federation} on {transport.address}: {trainer.examples} examples, {trainer.name}"
    )

    async def live() -> None:
        running = Device(
            identity,
            transport,
            trainer,
            outbox=outbox,
            keepsakes=keepsakes,
            keep_alive=table.stay,
            meter=meter,
            on_verdict=_told,
        )
        await running.run()
        click.echo(f"ended: {running.counters.rounds} rounds trained")

    run(live())


def _told(round_: int, verdict: str, reason: str) -> None:
    click.echo(f"round {round_}: {verdict}{f' ({reason})' if reason else ''}")


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), default=1883, show_default=True)
def broker(port: int) -> None:
    """Run the embedded broker on this machine's loopback, for trying things out.

    It needs nothing installed but fedmq[embedded]. It has no passwords, no TLS and forgets everything when it stops:
    for anything real, run mosquitto with the configurations in broker_config/.
    """
    from fedmq.transport.embedded import Embedded

    async def serve() -> None:
        async with Embedded(port) as running:
            click.echo(f"{running.name} listens on {running.address}; stop it with Ctrl-C")
            await asyncio.Event().wait()

    run(serve())
