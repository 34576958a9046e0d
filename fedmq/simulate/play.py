"""`fedmq simulate`: a world from a file, a broker, the run, and what a person is told of it."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import replace
from importlib import resources
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any, Final

from fedmq.aggregator.pairing import advice
from fedmq.algorithms import Clusters
from fedmq.codecs import parse
from fedmq.config import load
from fedmq.config.named import named_rule
from fedmq.errors import ConfigError, MisuseError
from fedmq.simulate import narration
from fedmq.simulate.fleet import build_fleet
from fedmq.simulate.runfolder import model_file
from fedmq.simulate.settings import AUTO, SimulationSettings
from fedmq.simulate.shares import WHOLE, Share
from fedmq.simulate.simulation import Simulation
from fedmq.simulate.spread import Place, gathered
from fedmq.simulate.virtual.play import play_virtual
from fedmq.transport.private import private_broker
from fedmq.worlds import world as world_named

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from fedmq.simulate.fleet import Fleet
    from fedmq.simulate.runfolder import RoundRow
    from fedmq.simulate.spread import Crew

WORLDS: Final = ("smartwatch", "mnist")
"""Worlds that come with fedmq."""


def world_settings(world: str, changes: Mapping[str, Any]) -> SimulationSettings:
    """Return the settings of a shipped world or a TOML file, with what the command line changes. Raises ConfigError."""
    settings = _checked(load(_world_path(world), SimulationSettings), changes)
    fleet = {
        key: changes[key]
        for key in ("devices", "partition", "seed", "engine", "baselines", "processes", "on", "ray_address")
        if changes.get(key) is not None
    }
    given = {"fleet": replace(settings.fleet, **fleet), **_time(settings, changes)}
    settings = replace(settings, **given)
    if "devices" in fleet:
        settings = _resized(settings, fleet["devices"])
    if rounds := changes.get("rounds"):
        settings = replace(settings, stop=replace(settings.stop, rounds=rounds))
    if rule := changes.get("rule"):
        settings = replace(settings, rule=named_rule(rule)[1])
    if epochs := changes.get("epochs"):
        settings = replace(settings, training={**settings.training, "epochs": epochs})
    if codec := changes.get("codec"):
        settings = replace(settings, encoding=replace(settings.encoding, up=parse(codec)))
    if changes.get("keep_updates") is not None:
        settings = replace(settings, store=replace(settings.store, keep_updates=changes["keep_updates"]))
    _ = settings.federation  # which says now what does not go together
    return settings


def _time(settings: SimulationSettings, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the command line says of virtual time."""
    given: dict[str, Any] = {}
    if name := changes.get("in_world"):
        given["world"] = world_named(name)
    elif changes.get("virtual") and settings.world is None:
        given["world"] = world_named("lab")
    if days := changes.get("days"):
        given["days"] = days
    return given


def _checked(settings: SimulationSettings, changes: Mapping[str, Any]) -> SimulationSettings:
    if changes.get("partition") and settings.fleet.data == "module":
        raise ConfigError(
            "--partition deals out a set that comes with fedmq; this world's module deals out its own data"
        )
    return settings


def _resized(settings: SimulationSettings, devices: int) -> SimulationSettings:
    """Keep the policy's proportions when the command line changes the size of the fleet."""
    policy = settings.rounds
    needed = min(policy.min_devices, devices)
    return replace(settings, rounds=replace(policy, min_devices=needed, quorum=min(policy.quorum, needed)))


def _world_path(world: str) -> Path:
    if world in WORLDS:
        return Path(str(resources.files("fedmq.demos"))) / f"{world}.toml"
    path = Path(world)
    if not path.exists():
        raise ConfigError(
            f"there is no world {world!r}: take {' or '.join(WORLDS)}, or name a TOML file that is there"
        )
    return path


def play(settings: SimulationSettings, folder: Path, *, broker: str | None, as_json: bool) -> None:
    """Run the simulation, tell of it, and leave the run folder. Raises FedmqError."""
    if settings.world is not None:
        if broker is not None:
            raise ConfigError(
                "a broker is named, and virtual time has no use for one: leave --broker or the world out"
            )
        play_virtual(settings, folder, as_json=as_json)
        return
    if broker is None:
        _require_enough(settings)
    say = _silent if as_json else print
    say(f"{settings.name}: building the fleet …")
    if settings.fleet.engine == AUTO:
        say("trying for a moment which engine is fastest here …")
    fleet = _fleet(settings)
    layout = next(iter(fleet.trainers.values())).layout
    say(f"{fleet.description}; model of {layout.size:,} parameters")
    for note in fleet.notes:
        say(note)
    say(f"rule: {settings.rule}; updates as {settings.encoding.up}, models as {settings.encoding.models}")
    for sentence in advice(settings.federation):
        say(f"note: {sentence}")
    rounds = settings.stop.rounds
    show = _show_json if as_json else lambda row: print(narration.line(row, rounds), flush=True)
    simulation = Simulation(settings, fleet, folder, on_round=show)
    asyncio.run(_federate(simulation, broker, say))
    simulation.compare(lambda what: say(f"for comparison, {what} …"))
    _close(simulation, folder, say)
    fleet.close()
    if as_json:
        print(json.dumps(simulation.outcome.summary()))


def _require_enough(settings: SimulationSettings) -> None:
    """Raise ConfigError where no round would open; with a broker of the user's, others may come along."""
    wanted, devices = settings.rounds.min_devices, settings.fleet.devices
    if wanted > devices:
        raise ConfigError(
            f"a round opens when {wanted:,} devices are there, and the fleet has {devices:,}: lower min_devices"
        )


def _fleet(settings: SimulationSettings) -> Fleet:
    """Build the fleet, or where it lives in other processes, what is wanted of it here.

    That is one device, for the first model, and the one with all data, as judge; all devices where they train here
    too, to be compared with training alone, or judge, as they do of several models.
    """
    table = settings.fleet
    alone = not table.baselines and not isinstance(settings.algorithm, Clusters)
    share = Share(1, table.devices) if table.spread and alone else WHOLE
    return build_fleet(table, settings.training, share)


async def _federate(simulation: Simulation, broker: str | None, say: Callable[[str], None]) -> None:
    async with _broker(broker, say) as place, _crowd(simulation, place, say) as crowd:
        say(narration.FLEET_HEADING)
        beside = {} if place.pid is None else {"broker": place.pid}
        await simulation.run(place.open, crowd, beside)
    say(f"ended: {simulation.outcome.reason}")


@asynccontextmanager
async def _crowd(
    simulation: Simulation, place: Place, say: Callable[[str], None]
) -> AsyncIterator[Crew | None]:
    """Give the devices in other processes, None where they live in this one."""
    if not simulation.settings.fleet.spread:
        yield None
        return
    async with gathered(simulation.settings, simulation.fleet.engine, place, simulation.disk) as crew:
        say(crew.note)
        yield crew


@asynccontextmanager
async def _broker(address: str | None, say: Callable[[str], None]) -> AsyncIterator[Place]:
    """Give the place of the named broker, or of a private one that lives for this run."""
    if address is not None:
        place = Place(address)
        say(f"broker: {place.open().address}")
        yield place
        return
    async with private_broker() as running:
        say(f"broker: a private {running.name} on {running.address}")
        yield Place(running.address, private=True, pid=getattr(running, "pid", None))


def _close(simulation: Simulation, folder: Path, say: Callable[[str], None]) -> None:
    """Write summary, plot and Keras model; say where they are."""
    simulation.folder.summary(simulation.outcome.summary())
    say(f"\n{narration.judged(simulation.outcome)}")
    for text in narration.summary(simulation.outcome):
        say(text)
    files = [
        "rounds.jsonl",
        "summary.json",
        *(model_file(name, ".fedmq") for name in simulation.models),
        *_save_keras(simulation, folder),
        *_draw(simulation, folder),
    ]
    say(f"  {folder}/: {', '.join(files)}")


def _save_keras(simulation: Simulation, folder: Path) -> list[str]:
    trainer = next(iter(simulation.fleet.trainers.values()))
    save = getattr(trainer, "save", None)
    if save is None:
        return []
    try:
        for name, model in simulation.models.items():
            save(model, folder / model_file(name, ".keras"))
    except MisuseError:  # an engine without a file of its own: the .fedmq file has all
        return []
    return [model_file(name, ".keras") for name in simulation.models]


def _draw(simulation: Simulation, folder: Path) -> list[str]:
    try:
        from fedmq.simulate.plot import draw  # noqa: PLC0415 - matplotlib is an extra
    except ImportError:
        return []
    settings = simulation.settings
    title = f"{settings.name}: {settings.fleet.devices} devices, {shorten(str(settings.rule), 90)}"
    outcome = simulation.outcome
    draw(folder / "plot.png", title, outcome.rows, outcome.curves, narration.judged(outcome))
    return ["plot.png"]


def _show_json(row: RoundRow) -> None:
    print(json.dumps(narration.as_json(row)), flush=True)


def _silent(_: str) -> None:
    """Say nothing."""
