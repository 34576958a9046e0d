"""The topic tree of one federation: names to topics and back.

Everything lives under ``fedmq/v1/<federation>/``. What the aggregator says to all stands under ``all``, what a device
says under ``up/<device>``, what is meant for one device under ``down/<device>``: so a broker's access list needs three
lines for any number of devices.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from fedmq.errors import ConfigError, MessageError, MisuseError
from fedmq.protocol.frames import Step
from fedmq.wire import limits

ROOT: Final = "fedmq/v1"
_NAME = re.compile(rf"[A-Za-z0-9](?:[A-Za-z0-9._-]{{0,{limits.NAME - 1}}})")
_DIGITS = re.compile(r"0|[1-9][0-9]{0,14}")
_NUMBERS: Final = range(limits.NUMBER + 1)
_CHUNKS: Final = range(limits.CHUNKS)


def check_name(name: str, what: str) -> str:
    """Return `name` if it can be a level of a topic (case counts), and a file name.

    Raises ConfigError naming `what` (``federation``, ``device``) otherwise.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{what} name {name[: limits.NAME]!a} will not do: take 1 to {limits.NAME} ASCII letters, digits, dots, "
            "dashes or underscores, beginning with a letter or a digit"
        )
    return name


@dataclass(frozen=True, slots=True)
class UpdateTopic:
    """An update, or one chunk of it (`chunk` is None for a whole one)."""

    device: str
    round: int
    chunk: int | None


@dataclass(frozen=True, slots=True)
class QueryTopic:
    """A question about the update that answered this round."""

    device: str
    round: int


@dataclass(frozen=True, slots=True)
class StatusTopic:
    """A device's birth certificate."""

    device: str


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics of one federation. Raises ConfigError for a name that cannot stand in a topic."""

    federation: str

    def __post_init__(self) -> None:
        """Check the federation's name."""
        check_name(self.federation, "federation")

    @property
    def prefix(self) -> str:
        """What every topic of the federation begins with, without the last slash."""
        return f"{ROOT}/{self.federation}"

    @property
    def task(self) -> str:
        """The open round, retained."""
        return f"{self.prefix}/all/task"

    @property
    def manifest(self) -> str:
        """The newest model's manifest, retained."""
        return f"{self.prefix}/all/model"

    @property
    def beacon(self) -> str:
        """The aggregator's certificate, retained, also as its last will."""
        return f"{self.prefix}/all/status"

    @property
    def report(self) -> str:
        """The last round's figures, retained."""
        return f"{self.prefix}/all/report"

    def frame(self, step: Step, chunk: int) -> str:
        """One chunk of a step's frame, retained. Raises MisuseError for a number that no peer would take."""
        return f"{self._frame(step)}/{_level(chunk, _CHUNKS)}"

    def frame_filter(self, step: Step) -> str:
        """All chunks of a step's frame; subscribed to only while a device fetches it. Raises like `frame`."""
        return f"{self._frame(step)}/+"

    def update(self, device: str, round_: int, chunk: int | None = None) -> str:
        """An update, whole or one chunk of it. Raises ConfigError for a bad name, else like `frame`."""
        tail = "" if chunk is None else f"/{_level(chunk, _CHUNKS)}"
        return f"{self._up(device)}/update/{_level(round_, _NUMBERS)}{tail}"

    def query(self, device: str, round_: int) -> str:
        """Question about an update. Raises ConfigError for a bad name, else like `frame`."""
        return f"{self._up(device)}/query/{_level(round_, _NUMBERS)}"

    def status(self, device: str) -> str:
        """A device's birth certificate, retained, also as its last will. Raises ConfigError for a bad name."""
        return f"{self._up(device)}/status"

    def receipt(self, device: str) -> str:
        """Verdicts for one device. Raises ConfigError for a bad name."""
        return f"{self.prefix}/down/{check_name(device, 'device')}/receipt"

    @property
    def aggregator_filters(self) -> tuple[str, ...]:
        """What the aggregator subscribes to."""
        up = f"{self.prefix}/up/+"
        return (f"{up}/status", f"{up}/update/+", f"{up}/update/+/+", f"{up}/query/+")

    def device_filters(self, device: str) -> tuple[str, ...]:
        """What a device subscribes to for good; model frames come on demand."""
        return (self.receipt(device), self.beacon, self.manifest, self.task)

    def parse_up(self, topic: str) -> UpdateTopic | QueryTopic | StatusTopic:
        """Say what a topic under ``up/`` means. Raises MessageError where it means nothing."""
        levels = topic.split("/") if topic.startswith(f"{self.prefix}/up/") else []
        match levels[4:]:
            case [device, "status"] if _NAME.fullmatch(device):
                return StatusTopic(device)
            case [device, "update", round_] if _NAME.fullmatch(device):
                return UpdateTopic(device, _number(round_, _NUMBERS), None)
            case [device, "update", round_, chunk] if _NAME.fullmatch(device):
                return UpdateTopic(device, _number(round_, _NUMBERS), _number(chunk, _CHUNKS))
            case [device, "query", round_] if _NAME.fullmatch(device):
                return QueryTopic(device, _number(round_, _NUMBERS))
            case _:
                raise MessageError(f"topic {topic[:200]!a} is none of this federation's upward topics")

    def parse_frame(self, topic: str) -> tuple[Step, int] | None:
        """Return step and chunk of a frame's topic, None for any other topic."""
        start = f"{self.prefix}/all/"
        levels = topic[len(start) :].split("/") if topic.startswith(start) else []
        match levels:
            case [("model" | "delta") as kind, version, chunk] if _fits(version, _NUMBERS) and _fits(
                chunk, _CHUNKS
            ):
                return Step(int(version), key=kind == "model"), int(chunk)
            case _:
                return None

    def _frame(self, step: Step) -> str:
        return f"{self.prefix}/all/{'model' if step.key else 'delta'}/{_level(step.version, _NUMBERS)}"

    def _up(self, device: str) -> str:
        return f"{self.prefix}/up/{check_name(device, 'device')}"


def _level(number: int, allowed: range) -> str:
    if number not in allowed:
        raise MisuseError(f"{number} cannot stand in a topic; 0 to {allowed[-1]} can")
    return str(number)


def _number(level: str, allowed: range) -> int:
    if not _fits(level, allowed):
        raise MessageError(f"topic level {level[:40]!a} instead of a number up to {allowed[-1]}")
    return int(level)


def _fits(level: str, allowed: range) -> bool:
    """Say whether `level` is one of these numbers, in the one way in which it is written."""
    return _DIGITS.fullmatch(level) is not None and int(level) in allowed
