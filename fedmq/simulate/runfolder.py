"""The folder that a run leaves behind: what was asked, what happened round by round, the model, the plot."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from fedmq.aggregator.steering import PREFIX
from fedmq.config.tables import tables
from fedmq.store.files import make_folder, write_whole

CLUSTER: Final = "cluster-"
"""What the names of figures of one of several models begin with."""

if TYPE_CHECKING:
    from pathlib import Path

    from fedmq.protocol.messages import Report


@dataclass(frozen=True, slots=True)
class RoundRow:
    """One round, as the run folder and the plot have it. Bytes are MQTT payloads of the whole fleet.

    `staleness` and `staleness_max` are of the accepted updates, in model versions; None where rounds are synchronous.
    `budget` has the figures of `fedmq.aggregator.steering`: what a device may take, what it took, how the codec stood.
    `clusters` has of each of several models how many devices chose it, and its accuracy for these; accuracy and loss
    are over all devices then, each by the model that it chose. `devices_s` is accepted updates in a second, and
    `memory_mb` what all processes held when the round ended; both are the machine's, and rows are equal without them.
    """

    round: int
    version: int
    outcome: str
    accuracy: float | None
    loss: float | None
    expected: int
    accepted: int
    rejected: int
    bytes_up: int
    bytes_down: int
    seconds: float
    reasons: dict[str, int] = field(default_factory=dict)
    staleness: float | None = None
    staleness_max: float | None = None
    budget: dict[str, float] = field(default_factory=dict)
    clusters: dict[str, float] = field(default_factory=dict)
    devices_s: float = field(default=0.0, compare=False)
    memory_mb: float = field(default=0.0, compare=False)

    @classmethod
    def of(cls, report: Report, bytes_up: int, bytes_down: int, memory_mb: float = 0.0) -> RoundRow:
        """Make the row of a report; the evaluation of the new model counts before what devices said of the old one."""
        figures = {**report.metrics, **report.evaluation}
        return cls(
            round=report.round,
            version=report.version,
            outcome=report.outcome,
            accuracy=figures.get("accuracy"),
            loss=figures.get("loss"),
            expected=report.expected,
            accepted=report.accepted,
            rejected=report.rejected + report.late,
            bytes_up=bytes_up,
            bytes_down=bytes_down,
            seconds=report.seconds,
            reasons=dict(report.reasons),
            staleness=report.metrics.get("staleness"),
            staleness_max=report.metrics.get("staleness_max"),
            budget={name: value for name, value in report.metrics.items() if name.startswith(PREFIX)},
            clusters={name: value for name, value in report.evaluation.items() if name.startswith(CLUSTER)},
            devices_s=round(report.accepted / report.seconds, 1) if report.seconds else 0.0,
            memory_mb=round(memory_mb, 1),
        )


def model_file(name: str, ending: str) -> str:
    """Return the name of a model's file; `name` is empty where there is one model."""
    return f"model{'-' * bool(name)}{name}{ending}"


class RunFolder:
    """Writes the folder; each file is whole as soon as it is there, except the round log, which grows by lines."""

    def __init__(self, path: Path) -> None:
        """Use `path`, which is made if it is not there. Raises StoreError."""
        self.path = make_folder(path)
        (self.path / "rounds.jsonl").write_text("", encoding="utf-8")

    def settings(self, settings: Any) -> None:  # noqa: ANN401 - any dataclass
        """Write what was asked for, in the tables of a world's file."""
        self._json("settings.json", tables(settings))

    def round(self, row: RoundRow) -> None:
        """Add one round to the log."""
        with (self.path / "rounds.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(row)) + "\n")

    def summary(self, summary: dict[str, Any]) -> None:
        """Write the final figures."""
        self._json("summary.json", summary)

    def _json(self, name: str, content: Any) -> None:  # noqa: ANN401 - anything that JSON takes
        write_whole(self.path / name, (json.dumps(content, indent=2) + "\n").encode())
