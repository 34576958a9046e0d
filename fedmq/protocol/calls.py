"""The tasks that open rounds: what they say, and a salt whose cohort is big enough."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from fedmq.protocol.cohort import cohort_size, draw_salt
from fedmq.protocol.messages import Task, TaskKind

if TYPE_CHECKING:
    from collections.abc import Collection

    from fedmq.protocol.policy import Policy
    from fedmq.protocol.progress import Progress, Terms

SALT_DRAWS: Final = 64
"""Tries to find a cohort that can make the quorum; a small fleet needs a few."""
MANY: Final = 20
DEVIATIONS: Final = 6.0
"""Where so many are asked on average, and the quorum is so many standard deviations above that, no draw will do, and
none is tried beyond the first, which costs a hash a device: the quorum counts on devices that are yet to come."""


def next_task(terms: Terms, policy: Policy, progress: Progress, present: Collection[str]) -> Task:
    """Return the task of the round after the last one; the devices that are `present` decide on its salt."""
    number = progress.round + 1
    first_taken = number - policy.window
    return Task(
        run=terms.run,
        round=number,
        oldest=min((one.round for one in progress.recent if one.round >= first_taken), default=number),
        kind=TaskKind.TRAIN,
        model=progress.version,
        layout=terms.layout,
        salt=_salt(terms.seed, policy, number, present),
        fraction=policy.invited,
        seconds=policy.hard_deadline_s,
        codec=terms.codec,
        update_bytes=terms.update_bytes,
        training=terms.training,
    )


def _salt(seed: bytes, policy: Policy, number: int, present: Collection[str]) -> bytes:
    """Draw until the cohort of those present is big enough for a quorum."""
    fraction = policy.invited
    mean = fraction * len(present)
    wanted = max(policy.quorum, math.floor(mean))
    hopeless = mean >= MANY and wanted > mean + DEVIATIONS * math.sqrt(mean)
    best, most = b"", -1
    for attempt in range(1 if hopeless else SALT_DRAWS):
        salt = draw_salt(seed, number, attempt)
        size = cohort_size(present, salt, fraction)
        if size >= wanted:
            return salt
        if size > most:
            best, most = salt, size
    return best
