"""The folder that a run leaves behind: what was asked, what happened round by round, the model, the plot."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from fedmq.store.files import make_folder, write_whole

if TYPE_CHECKING:
    from pathlib import Path

    from fedmq.protocol.messages import Report


@dataclass(frozen=True, slots=True)
class RoundRow:
    """One round, as the run folder and the plot have it. Bytes are MQTT payloads of the whole fleet."""

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

    @classmethod
    def of(cls, report: Report, bytes_up: int, bytes_down: int) -> RoundRow:
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
        )


class RunFolder:
    """Writes the folder; each file is whole as soon as it is there, except the round log, which grows by lines."""

    def __init__(self, path: Path) -> None:
        """Use `path`, which is made if it is not there. Raises StoreError."""
        self.path = make_folder(path)
        (self.path / "rounds.jsonl").write_text("", encoding="utf-8")

    def settings(self, settings: Any) -> None:  # noqa: ANN401 - any dataclass
        """Write what was asked for."""
        self._json("settings.json", _readable(settings))

    def round(self, row: RoundRow) -> None:
        """Add one round to the log."""
        with (self.path / "rounds.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(row)) + "\n")

    def summary(self, summary: dict[str, Any]) -> None:
        """Write the final figures."""
        self._json("summary.json", summary)

    def _json(self, name: str, content: Any) -> None:  # noqa: ANN401 - anything that JSON takes
        write_whole(self.path / name, (json.dumps(content, indent=2) + "\n").encode())


def _readable(settings: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return a dataclass's fields; those that are no plain values by their one-line spelling."""
    plain = (bool, int, float, str, type(None))
    return {
        name: value if isinstance(value, plain) else _nested(value)
        for name, value in ((name, getattr(settings, name)) for name in settings.__dataclass_fields__)
    }


def _nested(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, dict):
        return dict(value)
    spelt = "__str__" in vars(type(value)) or not hasattr(value, "__dataclass_fields__")
    return str(value) if spelt else _readable(value)
