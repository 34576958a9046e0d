"""`fedmq simulate` in virtual time: the run, and what a person is told of it."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from fedmq.aggregator.pairing import advice
from fedmq.protocol.quantities import spell_bytes as size
from fedmq.simulate.runfolder import RunFolder, model_file
from fedmq.simulate.virtual.simulation import VirtualSimulation
from fedmq.store.modelfile import StoredModel, save_model
from fedmq.worlds import WORLDS
from fedmq.worlds.availability import DAY_S, HOUR_S

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fedmq.simulate.settings import SimulationSettings
    from fedmq.simulate.virtual.rows import VirtualRow
    from fedmq.worlds import World

MINUTE_S = 60.0

HEADING = "  round       when   accuracy    devices   in vain        up       down    this took   devices/s    memory"


def play_virtual(settings: SimulationSettings, folder: Path, *, as_json: bool) -> None:
    """Run, tell of it, and leave the run folder. Raises FedmqError."""
    say: Callable[[str], None] = _silent if as_json else print
    say(f"{settings.name}: building the fleet …")
    files = RunFolder(folder)
    files.settings(settings)

    def show(row: VirtualRow) -> None:
        files.round(row)
        print(json.dumps(asdict(row)) if as_json else line(row, settings.stop.rounds), flush=True)

    simulation = VirtualSimulation(settings, on_round=show)
    layout = simulation.roster.first().layout
    say(f"{simulation.roster.description}; model of {layout.size:,} parameters")
    say(f"world: {name_of(simulation.population.world)}, in virtual time")
    say(f"rule: {settings.rule}; updates as {settings.encoding.up}, models as {settings.encoding.models}")
    for sentence in advice(settings.federation):
        say(f"note: {sentence}")
    say(HEADING)
    simulation.run()
    files.summary(simulation.summary())
    _save(simulation, folder)
    for text in _closing(simulation):
        say(text)
    say(
        f"  {folder}/: {', '.join(['rounds.jsonl', 'summary.json', 'model.fedmq', *_draw(simulation, folder)])}"
    )
    if as_json:
        print(json.dumps(simulation.summary()))


def line(row: VirtualRow, rounds: int) -> str:
    """Return the line of one round; `rounds` is how many are wanted (0: not known)."""
    number = f"{row.round}/{rounds}" if rounds else str(row.round)
    accuracy = "-" if row.accuracy is None else f"{row.accuracy:.1%}"
    devices = f"{row.accepted:,}/{row.expected:,}"
    text = (
        f"{number:>7}   {spell_time(row.hours * HOUR_S):>8}   {accuracy:>8}  {devices:>9}   "
        f"{row.late + row.dropped:>7,}   {size(row.bytes_up):>7}    {size(row.bytes_down):>7}   {row.wall_s:8.2f} s   "
        f"{row.devices_s:9,.1f}   {size(row.memory_mb * 1e6):>7}"
    )
    remarks = [row.outcome] if row.outcome != "stepped" else []
    remarks += [f"{count} refused: {reason}" for reason, count in row.reasons.items()]
    return text + (f"   {'; '.join(remarks)}" if remarks else "")


def spell_time(seconds: float) -> str:
    """Return a time as people say it: ``12.5 s``, ``34 min``, ``5.6 h``, ``7.8 d``."""
    for unit, length in (("d", DAY_S), ("h", HOUR_S), ("min", MINUTE_S)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s"


def name_of(world: World) -> str:
    """Return the preset that a world is, or what its parts are that differ from the nearest one."""
    differing = {name: _differing(world, known) for name, known in WORLDS.items()}
    nearest = min(differing, key=lambda name: len(differing[name]))
    return nearest + (f" but for {', '.join(differing[nearest])}" if differing[nearest] else "")


def _differing(left: World, right: World) -> list[str]:
    names = [field.name for field in fields(left)]
    return [name for name in names if getattr(left, name) != getattr(right, name)]


def _save(simulation: VirtualSimulation, folder: Path) -> None:
    """Save the model, or every one where there are several, each in a file that bears its name."""
    settings, modelling = simulation.settings, simulation.aggregator.modelling
    layout, version = modelling.plain, modelling.weights.version
    for name, model in settings.algorithm.apart(modelling.served(), layout).items():
        facts: dict[str, str | int] = {"federation": settings.name, "version": version}
        facts |= {"model": name} if name else {}
        save_model(folder / model_file(name, ".fedmq"), StoredModel(layout, model, facts))


def _closing(simulation: VirtualSimulation) -> list[str]:
    summary: dict[str, Any] = simulation.summary()
    accepted = sum(row.accepted for row in simulation.rows)
    rate = accepted / summary["seconds"] if summary["seconds"] else 0.0
    took = (
        f"{summary['rounds']} rounds in {spell_time(summary['hours'] * HOUR_S)} of simulated time, "
        f"{summary['seconds']:.0f} s here: {rate:,.0f} device-rounds/s"
    )
    air = (
        f"{size(summary['bytes_up'])} up, {size(summary['bytes_down'])} down, {size(summary['bytes_calls'])} of that "
        f"tasks and manifests, which all get; {summary['trainings']:,} trainings, {summary['cuts']:,} links cut"
    )
    return [f"ended: {summary['reason']}", f"  {took}", f"  {air}"]


def _draw(simulation: VirtualSimulation, folder: Path) -> list[str]:
    try:
        from fedmq.simulate.virtual.plot import draw  # noqa: PLC0415 - matplotlib is an extra
    except ImportError:
        return []
    settings = simulation.settings
    title = f"{settings.name}: {simulation.roster.description}, {name_of(simulation.population.world)}"
    draw(folder / "plot.png", shorten(title, 110), {shorten(str(settings.rule), 60): simulation.rows})
    return ["plot.png"]


def _silent(_: str) -> None:
    """Say nothing."""
