"""What a link may still carry today, as far as the participant decides by it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fedmq.protocol.quantities import spell_bytes


@dataclass(slots=True)
class Allowance:
    """Bytes that are `left`; without a limit it is infinite. `update_bytes` is the longest update of late."""

    left: float = math.inf
    update_bytes: int = 0
    told: bool = False

    def grant(self, left: float | None) -> bool:
        """Take the news, None for no limit; tell whether there is more than before: another day has begun."""
        before, self.left = self.left, math.inf if left is None else left
        if self.left <= before:
            return False
        self.told = False
        return True

    def covers(self, nbytes: int) -> bool:
        """Tell whether so many may still go; never where nothing is left."""
        return 0 < self.left >= nbytes

    def complaint(self, what: str, nbytes: int) -> str:
        """Return a sentence on what has to wait, nothing where one was said today."""
        if self.told:
            return ""
        self.told = True
        return (
            f"{what} takes {spell_bytes(nbytes)}, the link may carry {spell_bytes(max(self.left, 0))} more today: "
            "it waits for tomorrow"
        )
