"""Budgets: what updates and models may take, and the codecs that are turned from round to round to keep to it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from fedmq.codecs import Codec, parse
from fedmq.codecs.rate import Search, require_dial
from fedmq.errors import ConfigError
from fedmq.protocol.quantities import ByteCount, spell_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable

log = logging.getLogger(__name__)

DAY_S: Final = 86_400.0
PREFIX: Final = "budget."
"""What the names of a report's figures on budgets begin with."""
_MEMORY: Final = 0.8
"""Share of the weight that a round has in the fleet's pace that it keeps in the next: some five rounds count."""

NO_LIMIT: Final = ByteCount(0)

Figures: TypeAlias = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Budget:
    """``[encoding.budget]``: what one device may send and fetch, on average; 0 for no limit.

    up: bytes of its updates. down: bytes of the steps between models, which want ``keyframe_every`` above 1. per:
    ``round``, for each round that it takes part in, or ``day``. Bytes are MQTT payloads. The codecs' shares or
    thresholds are turned to keep to it, from where `up` and `down` of ``[encoding]`` have them.
    """

    up: ByteCount = NO_LIMIT
    down: ByteCount = NO_LIMIT
    per: Literal["round", "day"] = "round"

    def __post_init__(self) -> None:
        """Raise ConfigError for a budget below nothing."""
        for name, count in (("up", self.up), ("down", self.down)):
            if count < 0:
                raise ConfigError(f"budget {name} is {count} bytes; it must be 0 (no limit) or more")

    def require(self, up: Codec, down: Codec) -> None:
        """Raise ConfigError where a codec that has a budget has nothing to turn."""
        for count, codec in ((self.up, up), (self.down, down)):
            if count:
                require_dial(codec)


class Pace:
    """How often one device answers, on average over the last few rounds."""

    def __init__(self) -> None:
        """Begin without knowing."""
        self._answers = self._device_seconds = 0.0

    def seen(self, answers: int, devices: int, seconds: float) -> None:
        """Take one round's figures: so many answers of so many devices that were there for so long."""
        self._answers = _MEMORY * self._answers + answers
        self._device_seconds = _MEMORY * self._device_seconds + max(devices, answers) * seconds

    @property
    def answers_a_day(self) -> float:
        """How many of one device's answers make a day; 1 at least, and as long as nothing is known."""
        if self._answers == 0 or self._device_seconds <= 0:
            return 1.0
        return max(1.0, DAY_S * self._answers / self._device_seconds)


class Throttle:
    """One codec, turned from round to round until a message in it takes what the budget grants."""

    def __init__(self, way: str, codec: Codec, budget: int, *, daily: bool) -> None:
        """Begin with `codec`; `way`, ``up`` or ``down``, is for people. Raises ConfigError if it cannot be turned."""
        self.codec = codec
        self._way, self._budget, self._daily = way, budget, daily
        self._search = Search()
        require_dial(codec)

    def resume(self, lines: Iterable[str]) -> None:
        """Go on from the newest of these codecs, from before a restart, if it is ours but for where it was turned."""
        for codec in map(parse, lines):
            if require_dial(self.codec).alike(codec):
                self.codec = codec

    def seen(self, nbytes: float, pace: Pace) -> Figures:
        """Turn the codec by what one message took in this round, and return the round's figures."""
        setting = require_dial(self.codec)
        granted = self._budget / pace.answers_a_day if self._daily else float(self._budget)
        self._search, value = self._search.turned(setting.rate, setting.value, nbytes, granted)
        codec = setting.turned(value)
        if codec != self.codec:
            log.info(
                "%s takes %s of %s a message as `%s`, so it goes on as `%s`",
                self._way,
                spell_bytes(nbytes),
                spell_bytes(granted),
                self.codec,
                codec,
            )
        self.codec = codec
        return {
            f"{PREFIX}{self._way}": granted,
            f"{PREFIX}{self._way}_bytes": nbytes,
            f"{PREFIX}{self._way}_{setting.rate.parameter}": setting.value,
        }


class Steering:
    """The codecs of a federation in the round to come, and what was done about them in those before."""

    def __init__(
        self,
        budget: Budget,
        up: Codec,
        down: Codec,
        earlier: Iterable[str] = (),
        earlier_down: Iterable[str] = (),
    ) -> None:
        """Begin with `up` and `down`; go on with the newest of `earlier`, the codecs of rounds before a restart.

        `earlier_down` are those of the steps between models.
        """
        daily = budget.per == "day"
        self._up = Throttle("up", up, budget.up, daily=daily) if budget.up else None
        self._down = Throttle("down", down, budget.down, daily=daily) if budget.down else None
        self._plain = up, down
        self._pace = Pace()
        self._figures: dict[int, Figures] = {}
        if self._up is not None:
            self._up.resume(earlier)
        if self._down is not None:
            self._down.resume(earlier_down)

    @property
    def up(self) -> Codec:
        """The codec of the next round's updates."""
        return self._plain[0] if self._up is None else self._up.codec

    @property
    def down(self) -> Codec:
        """The codec of the next step between models."""
        return self._plain[1] if self._down is None else self._down.codec

    def seen(self, seen: Seen) -> None:
        """Turn the codecs by what a round took."""
        self._pace.seen(seen.answers, seen.devices, seen.seconds)
        figures: dict[str, float] = {}
        if self._up is not None and seen.answers and seen.bytes_up:
            figures |= self._up.seen(seen.bytes_up / seen.answers, self._pace)
        if self._down is not None and seen.step_bytes:
            figures |= self._down.seen(seen.step_bytes, self._pace)
        self._figures[seen.round] = figures

    def figures(self, round_: int) -> Figures:
        """Return what is to be reported of a round; nothing where it moved no model, and from the second time on."""
        return self._figures.pop(round_, {})


@dataclass(frozen=True, slots=True)
class Seen:
    """What one round took: answers that came, their bytes in all, the devices there, and the step to the new model.

    `step_bytes` is 0 where the model was published whole.
    """

    round: int
    answers: int
    bytes_up: int
    devices: int
    seconds: float
    step_bytes: int


def told(figures: Figures) -> list[str]:
    """Return what a report's figures say of budgets, in words for people."""
    return [_told(figures, way) for way in ("up", "down") if PREFIX + way in figures]


def _told(figures: Figures, way: str) -> str:
    start = f"{PREFIX}{way}_"
    turned = {name.removeprefix(start): value for name, value in figures.items() if name.startswith(start)}
    nbytes, granted = turned.pop("bytes", 0.0), figures[PREFIX + way]
    at = "".join(f" at {name} {value:g}" for name, value in turned.items())
    return f"{way} {spell_bytes(nbytes)} of {spell_bytes(granted)} a device{at}"
