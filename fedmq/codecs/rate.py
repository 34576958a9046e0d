"""Turning the one parameter of a codec that decides about its bytes, from round to round, until they meet a budget.

Nothing in here knows a clock, a network or what the bytes are for: a number goes in, a parameter comes out.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from fedmq.errors import ConfigError

if TYPE_CHECKING:
    from fedmq.codecs.codec import Codec
    from fedmq.codecs.stages import Stage

AIM: Final = 0.95
"""Share of the budget that is aimed at: what devices send varies from round to round by some percent."""
BAND: Final = (0.9, 1.0)
"""Shares of the budget between which nothing is turned: a parameter that stands still is worth more than a percent."""
DIGITS: Final = 4
"""Significant digits of a turned parameter, so that a codec's line stays short and says all there is to it."""

_PLACES: Final = ("quantiser", "layout", "entropy")
_FURTHEST: Final = math.log(8.0)  # at one turn, on the word of one reading
_FLATTER: Final = 16.0  # times: how much flatter than told a curve may be found to be
_SUNK: Final = 0.05  # relative: a value takes so much less than it once did where the curve has moved
_HAIR: Final = 1 + 1e-9  # times: how far a whole number may be off after a logarithm and back
_NARROW: Final = 0.002  # relative: between readings as near as that there is no better value to look for


@dataclass(frozen=True, slots=True)
class Rate:
    """Which `parameter` of a stage decides about the bytes, and the range, `least` to `most`, in which it is turned.

    `slope` is roughly the percentage that bytes grow by when the parameter grows by one percent: 1 where they are
    proportional, negative where they shrink. It is where a search starts; what is measured soon takes its place.
    `whole` parameters are whole numbers, rounded towards fewer bytes: a search ends at the last that keeps the budget.
    """

    parameter: str
    least: float
    most: float
    slope: float = 1.0
    whole: bool = False

    def rounded(self, value: float) -> float:
        """Return `value` within the range, in `DIGITS` digits or as a whole number (an int)."""
        if self.whole:
            fewer = math.floor(value * _HAIR) if self.slope > 0 else math.ceil(value / _HAIR)
            return int(min(max(fewer, self.least), self.most))
        return min(max(float(f"{value:.{DIGITS}g}"), self.least), self.most)

    @property
    def loosest(self) -> float:
        """The value that takes the most bytes."""
        return self.most if self.slope > 0 else self.least


def rate_of(stage: Stage) -> Rate | None:
    """Return what a stage says of its rate in its class variable ``rate``; None where it has none to turn."""
    found: Rate | None = getattr(stage, "rate", None)
    return found


def dial(codec: Codec) -> Dial | None:
    """Return the codec's dial; None where no stage has a rate. Of several, the first decides."""
    stages = (*codec.transforms, *(getattr(codec, name) for name in _PLACES))
    return next((Dial(codec, stage, rate) for stage in stages if (rate := rate_of(stage))), None)


@dataclass(frozen=True, slots=True)
class Dial:
    """A codec, the stage in it whose parameter is turned, and that stage's rate."""

    codec: Codec
    stage: Stage
    rate: Rate

    @property
    def value(self) -> float:
        """Where it stands."""
        return float(getattr(self.stage, self.rate.parameter))

    def turned(self, value: float) -> Codec:
        """Return the codec with this value, rounded; or the nearest in range."""
        fields = {self.rate.parameter: self.rate.rounded(value)}
        stage: Any = dataclasses.replace(self.stage, **fields)
        if self.stage in self.codec.transforms:
            chain = [stage if each is self.stage else each for each in self.codec.transforms]
            return dataclasses.replace(self.codec, transforms=tuple(chain))
        place: Any = next(name for name in _PLACES if getattr(self.codec, name) is self.stage)
        return dataclasses.replace(self.codec, **{place: stage})

    def alike(self, other: Codec) -> bool:
        """Tell whether `other` is this codec, but for where its dial stands."""
        theirs = dial(other)
        return theirs is not None and theirs.turned(self.rate.least) == self.turned(self.rate.least)


def require_dial(codec: Codec) -> Dial:
    """Return the codec's dial; raise ConfigError where it has none."""
    found = dial(codec)
    if found is None:
        raise ConfigError(
            f"`{codec}` has nothing to turn for a budget: take a codec with a share or a threshold, or leave the "
            "budget out"
        )
    return found


def loosest(codec: Codec) -> Codec:
    """Return the codec turned to where it takes the most bytes; itself where there is nothing to turn."""
    found = dial(codec)
    return codec if found is None else found.turned(found.rate.loosest)


# --- the search -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reading:
    """What was seen: `place` is the parameter's logarithm, turned so that `size`, that of the bytes, grows with it."""

    place: float
    size: float


@dataclass(frozen=True, slots=True)
class Search:
    """A search for the parameter whose bytes meet a budget: the nearest readings below and above it, if any.

    `overs` counts the readings above it in a row.

    Bytes may hang on the parameter in any monotone way, and the way may change from round to round. While one side is
    unknown, a turn goes as far as the rate's slope says, or a flatter one that was measured. Between two readings it
    goes where a straight line meets the budget, but always cuts off a quarter of the way between them, three quarters
    where the last reading was over the budget as well: so it comes to an end whatever the curve. Where that leaves no
    better value the lower one is kept: bytes jump there, from below the budget to above it. A reading that belies an
    older one drops it.
    """

    under: Reading | None = None
    over: Reading | None = None
    overs: int = 0

    def turned(self, rate: Rate, value: float, nbytes: float, budget: float) -> tuple[Search, float]:
        """Return the search and the value to go on with, after `nbytes` were seen at `value`.

        `nbytes` and `budget` are above 0.
        """
        if BAND[0] * budget <= nbytes <= BAND[1] * budget:
            return Search(), value
        sign = math.copysign(1.0, rate.slope)
        seen = Reading(sign * math.log(value), math.log(nbytes))
        search = self._with(seen, math.log(budget))
        aim = math.log(AIM * budget)
        place = search.goal(aim, seen.place + self._step(seen, aim, abs(rate.slope)))
        return search, search.untried(rate, rate.rounded(math.exp(sign * place)))

    def untried(self, rate: Rate, value: float) -> float:
        """Return the next whole number in place of the lower one, while there is one between both; else `value`."""
        if not rate.whole or self.under is None or self.over is None:
            return value
        sign = math.copysign(1.0, rate.slope)
        low, high = (round(math.exp(sign * reading.place)) for reading in (self.under, self.over))
        towards = int(math.copysign(1, high - low))
        return low + towards if value == low != high - towards else value

    def goal(self, aim: float, beyond: float) -> float:
        """Return the place to go to for `aim`, which is `beyond` while one side is unknown."""
        if self.under is None or self.over is None:
            return beyond
        width = self.over.place - self.under.place
        if width < _NARROW:
            return self.under.place
        share = (aim - self.under.size) / (self.over.size - self.under.size)
        return self.under.place + width * min(max(share, 0.25), 0.25 if self.overs > 1 else 0.75)

    def _step(self, seen: Reading, aim: float, told: float) -> float:
        """Return how far `aim` lies from `seen`: by the slope that is `told`, or that from the reading before."""
        before = self.under or self.over
        if before is None or abs(seen.place - before.place) < _NARROW:
            step = (aim - seen.size) / told
        else:
            measured = (seen.size - before.size) / (seen.place - before.place)
            step = (aim - seen.size) / (min(max(measured, told / _FLATTER), told) if measured >= 0 else told)
            if measured > 0 and told == 1.0:
                step = min(step, _affine_step(before, seen, aim))
        return min(max(step, -_FURTHEST), _FURTHEST)

    def _with(self, seen: Reading, budget: float) -> Search:
        """Return the search with this reading on its side, and on the other side only what agrees with it."""
        if seen.size > budget:
            under = self.under
            holds = under is not None and under.place < seen.place and under.size <= budget
            return Search(under if holds else None, seen, self.overs + 1)
        over = self.over
        holds = over is not None and over.place > seen.place and over.size > budget
        if holds and self.under is not None and seen.place == self.under.place:
            sunk = seen.size < self.under.size - _SUNK
            return Search(seen) if sunk else Search(self.under, over)
        return Search(seen, over if holds else None)


def _affine_step(before: Reading, seen: Reading, aim: float) -> float:
    """Return the step to `aim` where bytes grow in proportion, beside some that every message takes."""
    here, nbytes = math.exp(seen.place), math.exp(seen.size)
    slope = (nbytes - math.exp(before.size)) / (here - math.exp(before.place))
    there = here + (math.exp(aim) - nbytes) / slope
    return math.log(there / here) if there > 0 else -_FURTHEST
