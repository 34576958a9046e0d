"""`fedmq simulate`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click


@click.command()
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
    "--rule", help="Averaging rule: a preset's name (see `fedmq rules`), or a TOML file with a [rule] table."
)
@click.option("--epochs", type=click.IntRange(1), help="Local epochs a round.")
@click.option("--codec", help="How updates travel, such as float32, float16 or 'int8 | lzma'.")
@click.option(
    "--engine",
    type=click.Choice(["trainer", "auto", "numpy", "tensorflow", "jax", "litert"]),
    help="Who trains: each device's own trainer, an engine that trains many at once, or the fastest that is installed.",
)
@click.option(
    "--processes",
    type=click.IntRange(1),
    help="Over how many processes to spread the devices (otherwise as many as it has use for).",
)
@click.option(
    "--on",
    type=click.Choice(["here", "ray"]),
    help="Where the devices run: here, or on the machines of a Ray cluster.",
)
@click.option(
    "--ray-address", metavar="HOST:PORT", help="The Ray cluster (otherwise where Ray itself looks for one)."
)
@click.option("--seed", type=int, help="Repeats the deal of the data and the training.")
@click.option(
    "--baselines/--no-baselines", default=None, help="Also train without federation, for comparison."
)
@click.option(
    "--keep-updates/--no-keep-updates",
    default=None,
    help="Keep every round's updates in the run folder, for `fedmq replay`.",
)
@click.option(
    "--virtual",
    is_flag=True,
    help="Without a broker, in virtual time: large fleets, and days in minutes.",
)
@click.option(
    "--world",
    "in_world",
    help="How devices behave, in virtual time: lab, city-lte, farm-duty-cycled, phones-by-night or hostile.",
)
@click.option("--days", type=click.FloatRange(min=0), help="End after so many days of virtual time.")
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
    fedmq simulate my-world.toml --world city-lte --devices 10000 --days 7
    """
    from fedmq.simulate.play import play, world_settings

    settings = world_settings(world, changes)
    folder = out or Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-{settings.name}"
    play(settings, folder, broker=broker, as_json=as_json)
