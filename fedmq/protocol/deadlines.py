"""Soft deadlines that follow how fast updates come in.

A round may end on its quorum at the soft deadline. With `Policy.adaptive` that is twice the time by which four in five
of a round's accepted updates were in, in the median of the last rounds: those that are slower than that by far are not
waited for, and one slow round moves nothing. It is never later than the policy says, and every tenth round waits that
long again: what it measures takes the place of what was known. So a fleet that has become slower is found out, though
its updates come after the deadline and are never seen.
"""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fedmq.protocol.policy import Policy
    from fedmq.protocol.progress import Progress

SHARE: Final = 0.8
"""Share of a round's accepted updates whose arrival is measured; the slowest fifth may be as slow as it likes."""
MARGIN: Final = 2.0
"""How many times longer than that a round waits."""
LEAST_S: Final = 1.0
"""Shortest deadline: below, it would follow the moods of disk and network."""
KNOWN: Final = 5
"""Rounds whose times count."""
ENOUGH: Final = 3
"""Rounds that have to be known before the deadline follows them."""
SEARCH_EVERY: Final = 10
"""Rounds from one that waits as long as the policy says to the next."""


def soft_deadline_s(policy: Policy, progress: Progress) -> float:
    """Return how many seconds after its opening the open round may end on a quorum."""
    if not policy.adaptive or len(progress.arrivals) < ENOUGH or _searches(progress):
        return policy.soft_deadline_s
    return min(policy.soft_deadline_s, max(LEAST_S, MARGIN * median(progress.arrivals)))


def learn(progress: Progress, arrivals: Sequence[float]) -> Progress:
    """Return the progress with the times, in seconds from the round's opening, at which its updates were in.

    >>> from fedmq.protocol.progress import Progress
    >>> learn(Progress(round=1, arrivals=(4.0, 6.0)), [1.0, 2.0, 3.0, 5.0, 60.0]).arrivals
    (4.0, 6.0, 5.0)
    """
    if not arrivals:
        return progress
    time = sorted(arrivals)[math.ceil(SHARE * len(arrivals)) - 1]
    if _searches(progress):
        return replace(progress, arrivals=(time,) * ENOUGH)
    return replace(progress, arrivals=(*progress.arrivals, time)[-KNOWN:])


def forget(progress: Progress) -> Progress:
    """Return the progress without times: a round came to nothing, so they say nothing about the next."""
    return replace(progress, arrivals=())


def _searches(progress: Progress) -> bool:
    return progress.round % SEARCH_EVERY == 0
