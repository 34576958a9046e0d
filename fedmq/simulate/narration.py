"""What a person sees while a simulation runs: one line a round, and a summary that says how good it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fedmq.aggregator.steering import told
from fedmq.protocol.quantities import spell_bytes as size
from fedmq.simulate.crowd import DEVICES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fedmq.simulate.runfolder import RoundRow
    from fedmq.simulate.simulation import Outcome

HEADING = "  round   accuracy   devices        up       down     time"
FLEET_HEADING = f"{HEADING}   devices/s    memory"
"""Where rows say what all processes of a fleet hold."""

_MOST_NAMED: Final = 4
"""Processes of devices whose memory is told one by one."""


def line(row: RoundRow, rounds: int) -> str:
    """Return the line of one round; `rounds` is how many are wanted (0: not known)."""
    number = f"{row.round}/{rounds}" if rounds else str(row.round)
    accuracy = "-" if row.accuracy is None else f"{row.accuracy:.1%}"
    devices = f"{row.accepted}/{row.expected}"
    text = (
        f"{number:>7}   {accuracy:>8}   {devices:>7}   {size(row.bytes_up):>7}    {size(row.bytes_down):>7}   "
        f"{row.seconds:5.1f} s"
    )
    return text + _load(row) + _remarks(row)


def _load(row: RoundRow) -> str:
    """Return what the round asked of the machine; nothing where the row does not say."""
    return f"   {row.devices_s:9,.1f}   {size(row.memory_mb * 1e6):>7}" if row.memory_mb else ""


def _remarks(row: RoundRow) -> str:
    remarks = [row.outcome] if row.outcome != "stepped" else []
    if row.staleness is not None and row.staleness_max is not None:
        remarks.append(f"staleness {row.staleness:.1f}, at most {row.staleness_max:.0f}")
    remarks += told(row.budget)
    remarks += [f"devices by model: {chosen}"] if (chosen := _chosen(row.clusters)) else []
    remarks += [f"{count} refused: {reason}" for reason, count in row.reasons.items()]
    return f"   {'; '.join(remarks)}" if remarks else ""


def judged(outcome: Outcome) -> str:
    """Return what the accuracy is of; where there are several models, how many devices chose each."""
    chosen = _chosen(outcome.clusters)
    text = "accuracy on everyone's held-out data"
    return f"{text}, each device by the model it chose ({chosen})" if chosen else text


def _chosen(clusters: Mapping[str, float]) -> str:
    devices = {name: int(count) for name, count in clusters.items() if name.endswith(".devices")}
    return ", ".join(f"{name.removesuffix('.devices')}: {count}" for name, count in devices.items())


def summary(outcome: Outcome) -> list[str]:
    """Return the closing lines: federated, local-only and pooled side by side, and the traffic."""
    rows = [(curve.name, curve.last) for curve in outcome.curves]
    if outcome.accuracy is not None:
        rows.append(("federated", outcome.accuracy))
    lines = [
        f"  {name:<11} {value:6.1%}  {_bar(value)}" for name, value in sorted(rows, key=lambda row: row[1])
    ]
    up = sum(row.bytes_up for row in outcome.rows)
    down = sum(row.bytes_down for row in outcome.rows)
    closing = (
        f"  {len(outcome.rows)} rounds in {outcome.seconds:.0f} s, {size(up)} up, {size(down)} down in all"
    )
    return [*lines, "", closing, *_held(outcome)]


def _held(outcome: Outcome) -> list[str]:
    """Return the line of what each process held; processes of devices as one entry, as there may be many."""
    if not outcome.memory:
        return []
    devices = [held for name, held in outcome.memory.items() if name.startswith(DEVICES)]
    others = {name: held for name, held in outcome.memory.items() if not name.startswith(DEVICES)}
    told = [f"{name} {size(held * 1e6)}" for name, held in others.items()]
    if len(devices) > _MOST_NAMED:
        told.append(f"{len(devices)} times devices {size(min(devices) * 1e6)} to {size(max(devices) * 1e6)}")
    elif devices:
        told.append(f"devices {' + '.join(size(held * 1e6) for held in devices)}")
    return [f"  {outcome.devices_s:,.1f} device-rounds/s; memory: {', '.join(told)}"]


def _bar(value: float, width: int = 40) -> str:
    return "█" * round(max(0.0, min(1.0, value)) * width)


def as_json(row: RoundRow) -> dict[str, Any]:
    """Return the round as plain data, for ``--json``."""
    return {name: getattr(row, name) for name in row.__slots__}
