"""The command line: `fedmq simulate`, `aggregate`, `device`, `broker`, `inspect`, `init`."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from fedmq.errors import ConfigError, FedmqError
from fedmq.version import __version__

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from fedmq.config import AggregatorFile
    from fedmq.store.modelfile import StoredModel


class Commands(click.Group):
    """Turns every FedmqError into one line on standard error and exit code 1: no traceback is ever shown for one."""

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's own signature
        """Run the command."""
        try:
            return super().invoke(ctx)
        except FedmqError as error:
            _fail(str(error))
        except KeyboardInterrupt:
            _fail("interrupted", code=130)
        except BaseExceptionGroup as group:
            ours = group.subgroup(FedmqError)
            if ours is None:
                raise
            _fail(str(_first(ours)))


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner


def _fail(sentence: str, code: int = 1) -> NoReturn:
    click.echo(f"fedmq: {sentence}", err=True)
    sys.exit(code)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="fedmq")
@click.option("-v", "--verbose", count=True, help="Say more: once for what happens, twice for everything.")
def main(verbose: int) -> None:
    """Federated learning for fleets of IoT devices, over MQTT.

    Devices keep their data, train a shared model on it and publish compressed weight deltas; the aggregator averages
    them and publishes the new model.

    \b
    See it work:       fedmq simulate
    Run it for real:   fedmq aggregate federation.toml     on one machine
                       fedmq device device.toml            on every device
    """
    level = {0: logging.WARNING, 1: logging.INFO}.get(verbose, logging.DEBUG)
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s")


# --- simulate ---------------------------------------------------------------------------------------------------------


@main.command()
@click.argument("world", default="smartwatch")
@click.option(
    "--broker", metavar="URL", help="Use this broker (mqtt://… or mqtts://…) instead of a private one."
)
@click.option("--devices", type=click.IntRange(1), help="How many devices.")
@click.option("--rounds", type=click.IntRange(1), help="How many rounds.")
@click.option(
    "--partition", help="How data is dealt out: by_owner, iid, dirichlet(0.5), shards(2), quantity(1.5)."
)
@click.option(
    "--rule", help="Averaging rule by its preset's name: average, weighted, quality, fedavg, fedavgm, …"
)
@click.option("--epochs", type=click.IntRange(1), help="Local epochs a round.")
@click.option("--codec", help="How updates travel, such as float32, float16 or 'int8 | lzma'.")
@click.option("--seed", type=int, help="Repeats the deal of the data and the training.")
@click.option(
    "--baselines/--no-baselines", default=None, help="Also train without federation, for comparison."
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder for the run (default: runs/<time>-<name>)."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line instead of text.")
def simulate(world: str, out: Path | None, as_json: bool, broker: str | None, **changes: Any) -> None:  # noqa: ANN401 - options as click gives them
    """Run a fleet of simulated devices and its aggregator on this machine.

    WORLD is a world that comes with fedmq (smartwatch: ten people's smart watches; mnist: 20 devices with handwritten
    digits) or a TOML file of your own. Every device trains a real model on its own share of real data and has its own
    MQTT session. Without --broker a private mosquitto is started when one is installed, else the embedded broker.

    \b
    fedmq simulate
    fedmq simulate mnist --partition "dirichlet(0.1)" --rule fedadam
    fedmq simulate my-world.toml --broker mqtt://localhost:1883
    """
    from fedmq.simulate.play import play, world_settings

    settings = world_settings(world, changes)
    folder = out or Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-{settings.name}"
    play(settings, folder, broker=broker, as_json=as_json)


# --- aggregate --------------------------------------------------------------------------------------------------------


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--check", is_flag=True, help="Only read the file, say what it means, and stop.")
def aggregate(file: Path, check: bool) -> None:
    """Run the aggregator that FILE (TOML) describes, until its federation has ended.

    Its folder keeps the model and the open round: stop it (Ctrl-C, SIGTERM) and start it whenever you like, it goes on
    where it was.
    """
    from fedmq.config import AggregatorFile, load

    settings = load(file, AggregatorFile)
    if check:
        click.echo(_explain(settings))
        return
    from fedmq.aggregator.aggregator import Aggregator
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
        )
        click.echo(f"federation {federation.name} on {transport.address}, rule {federation.rule}")
        click.echo(HEADING)
        click.echo(f"ended: {await aggregator.run()}")

    _run(serve())


def _explain(settings: AggregatorFile) -> str:
    federation = settings.settings()
    rows = {
        "federation": federation.name,
        "broker": settings.broker.open().address,
        "rule": federation.rule,
        "up": federation.encoding.up,
        "down": federation.encoding.down,
        "rounds": federation.policy,
        "stop": federation.stop,
        "training": federation.training,
    }
    return "\n".join(f"{name:<11} {value}" for name, value in rows.items())


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
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own program
        if done.returncode:
            told = done.stderr.strip().splitlines() or ["no reason given"]
            raise ConfigError(f"the first model could not be made: {told[-1].removeprefix('fedmq: ')}")
    return load_model(path)


# --- device -----------------------------------------------------------------------------------------------------------


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--name", help="The device's name instead of the file's; its folder is then one of that name.")
def device(file: Path, name: str | None) -> None:
    """Run one real device as FILE (TOML) describes it, until its federation has ended.

    It waits for tasks, trains on its own data when it is its turn, and sends the update until it has a receipt. Stop it
    whenever you like: what was not yet received lies in its folder and is sent next time.
    """
    from fedmq.config import DeviceFile, load
    from fedmq.device.device import Device, Identity
    from fedmq.device.outbox import DiskOutbox, next_session
    from fedmq.simulate.fleet import build_trainer

    settings = load(file, DeviceFile)
    table, known_as = settings.device, name or settings.device.device
    transport = settings.broker.open()
    folder = table.folder / name if name else table.folder  # several devices may share a file, not an outbox
    outbox = DiskOutbox(folder / "outbox")
    trainer = build_trainer(settings.trainer.kind)(
        settings.trainer.module, known_as, settings.trainer.options
    )
    identity = Identity(table.federation, known_as, next_session(folder))
    click.echo(
        f"device {known_as} of {table.federation} on {transport.address}: {trainer.examples} examples, {trainer.name}"
    )

    async def live() -> None:
        running = Device(identity, transport, trainer, outbox=outbox, keep_alive=table.stay, on_verdict=_told)
        await running.run()
        click.echo(f"ended: {running.counters.rounds} rounds trained")

    _run(live())


def _told(round_: int, verdict: str, reason: str) -> None:
    click.echo(f"round {round_}: {verdict}{f' ({reason})' if reason else ''}")


# --- broker -----------------------------------------------------------------------------------------------------------


@main.command()
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

    _run(serve())


# --- init and inspect -------------------------------------------------------------------------------------------------


@main.command()
@click.argument("module")
@click.option("-o", "--out", type=click.Path(path_type=Path), default=Path("model.fedmq"), show_default=True)
@click.option(
    "--trainer", default="keras", show_default=True, help="keras, numpy, or package.module:function."
)
@click.option("--device", "name", default="init", help="Device name given to the module's data().")
def init(module: str, out: Path, trainer: str, name: str) -> None:
    """Write the first model that MODULE's model() makes, for an aggregator without the training framework."""
    from fedmq.simulate.fleet import build_trainer
    from fedmq.store.modelfile import StoredModel, save_model

    built = build_trainer(trainer)(module, name, {})
    save_model(out, StoredModel(built.layout, built.initial(), {"module": module, "trainer": built.name}))
    click.echo(f"{out}: {built.layout.size} parameters, layout {built.layout.digest.hex()}")


@main.command()
@click.argument("thing", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def inspect(thing: Path, as_json: bool) -> None:
    """Say what THING is: a run folder, an aggregator's folder, a model file, a journal, or a captured message.

    \b
    mosquitto_sub -t 'fedmq/v1/+/all/task' -C 1 -N > task.bin
    fedmq inspect task.bin
    """
    from fedmq.inspection import as_text, inspect_path

    found = inspect_path(thing)
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        click.echo("\n".join(as_text(found)))


# --- running ----------------------------------------------------------------------------------------------------------


def _run(work: Coroutine[Any, Any, None]) -> None:
    """Run until done; SIGTERM and SIGINT cancel it, so that everything is closed in good order."""

    async def guarded() -> None:
        task = asyncio.ensure_future(work)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, task.cancel)
        try:
            await task
        except asyncio.CancelledError:
            click.echo("stopped")

    asyncio.run(guarded())


if __name__ == "__main__":
    main()
