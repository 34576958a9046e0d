"""What a rule asks of the codec that its updates come in; rules know no codecs, a federation brings both together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

if TYPE_CHECKING:
    from collections.abc import Iterable

ErrorSize: TypeAlias = Literal["none", "small", "moderate", "large"]
"""How far one decoded update may lie from what its device computed; the words in which codecs speak of themselves."""

_SIZES: Final[tuple[ErrorSize, ...]] = get_args(ErrorSize)

COMPARES: Final = "it compares single updates, and their errors would outweigh what tells them apart"
"""Why reducers that look at every update need a small error."""
MEASURES_LENGTH: Final = "it goes by the length of single updates, and most of that would be error"
"""Why clips, bounds and weights by norm need one. An unbiased codec that sends few numbers makes each of them larger:
a share p of them makes an update about 1 / sqrt(p) times as long, an honest one and a hostile one alike."""
MEASURES_DIRECTION: Final = "it goes by the direction of single updates, which errors would turn away"
"""Why whatever takes cosines needs one."""
REMEMBERS: Final = (
    "devices remember what was decoded of their own updates, where no mean takes the errors out"
)
"""Why algorithms that keep a vector of their own on each device need one."""


@dataclass(frozen=True, slots=True)
class Needs:
    """The largest `error` of one update that can be borne, and which `part` asks for that, for what `reason`.

    The default asks for nothing: where updates are averaged, errors without bias go away in the mean, as 1 / n.
    """

    error: ErrorSize = "large"
    part: str = ""
    reason: str = ""

    def allow(self, error: ErrorSize) -> bool:
        """Tell whether updates with such errors will do."""
        return _SIZES.index(error) <= _SIZES.index(self.error)


def strictest(needs: Iterable[Needs]) -> Needs:
    """Return the needs that are hardest to meet, the first of several; none where there are none."""
    return min(needs, key=lambda each: _SIZES.index(each.error), default=Needs())
