"""Names of updates: drawn where devices are real, reckoned where a run is to repeat.

A name seeds the random stages of the update's codec, so two runs send the same bytes only under the same names.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    from fedmq.protocol.messages import Task

    Naming: TypeAlias = Callable[[Task], bytes]

NAME_BYTES: Final = 8


def drawn(_: Task) -> bytes:
    """Return a name that no other update has: of a device that lost its disk and answers the task again, neither."""
    return os.urandom(NAME_BYTES)


def reckoned(device: str) -> Naming:
    """Return what names a simulated device's updates: by device, run and round, the same whenever that is simulated."""

    def naming(task: Task) -> bytes:
        word = hashlib.sha256(task.run + task.round.to_bytes(8, "big") + b"update" + device.encode())
        return word.digest()[:NAME_BYTES]

    return naming
