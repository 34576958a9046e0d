"""One round of a run in virtual time, as its folder and its plots have it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from fedmq.simulate.memory import resident_mb
from fedmq.simulate.runfolder import RoundRow

if TYPE_CHECKING:
    from fedmq.protocol.messages import Report


@dataclass(frozen=True, slots=True)
class VirtualRow(RoundRow):
    """A round's figures.

    hours: simulated, from the beginning of the run to the end of the round. wall_s: what it took here. present: devices
    that were there at its end. late: updates that came too late, which `rejected` has too. trained: trainings that led
    to an update. dropped: updates that devices threw away when they heard that the round was over. cuts: links that
    broke with something on them. joules: what batteries gave, 0 in a world without. bytes_calls: the part of
    `bytes_down` that goes to everyone, invited or not: tasks and manifests.
    """

    hours: float = 0.0
    wall_s: float = 0.0
    present: int = 0
    late: int = 0
    trained: int = 0
    dropped: int = 0
    cuts: int = 0
    joules: float = 0.0
    bytes_calls: int = 0

    @classmethod
    def made(cls, report: Report, *, bytes_up: int, bytes_down: int, **figures: float) -> VirtualRow:
        """Make the row of a report, with the `figures` that it does not have."""
        row = RoundRow.of(report, bytes_up, bytes_down, resident_mb())
        wall_s = figures.get("wall_s", 0.0)  # of this machine, not of the world's clock
        rate = round(report.accepted / wall_s, 1) if wall_s else 0.0
        told = {**asdict(row), "devices_s": rate}
        return cls(**told, late=report.late, **figures)  # type: ignore[arg-type] # by their names
