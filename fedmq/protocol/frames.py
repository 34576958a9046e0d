"""The steps by which a replica comes to a model's version, and which of them a device takes.

Each step has its frame on the broker. A *key-frame* is a whole model, a *delta* what separates a version from the one
before it. Key-frames are made now and then, of the replica that the deltas lead to: so a device that has kept up goes
on from delta to delta, and only one that is new, or was away for long, pays for a key-frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fedmq.protocol.messages import Manifest

BLOCK_BYTES: Final = 64
"""Unit in which a manifest tells how long frames are: so that most take one byte to tell."""
STEP_BYTES: Final = 256
"""What a device pays for a frame beside its bytes: subscribing, topics, the heads of chunks."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step: to the model of `version`, from nothing (`key`) or from the version before it."""

    version: int
    key: bool = False


def blocks(nbytes: int) -> int:
    """Return how many blocks so many bytes fill, the last one perhaps in part."""
    return -(-nbytes // BLOCK_BYTES)


def longest(manifest: Manifest, step: Step) -> int:
    """Return how many bytes the step's frame has at most."""
    length = manifest.key_blocks if step.key else manifest.deltas[step.version - manifest.version - 1]
    return BLOCK_BYTES * length


def cost(manifest: Manifest, steps: Iterable[Step]) -> int:
    """Return how many bytes a device downloads for these steps, about."""
    return sum(longest(manifest, step) + STEP_BYTES for step in steps)


def way(manifest: Manifest, held: int) -> tuple[Step, ...]:
    """Return the steps from version `held` (0: none) to the manifest's, the cheapest that there are.

    >>> from fedmq.protocol.messages import Manifest
    >>> way(Manifest(b"run", 7, b"digest", 5, 900, (60, 60, 60, 60)), 4)
    (Step(version=5, key=False), Step(version=6, key=False), Step(version=7, key=False))
    >>> way(Manifest(b"run", 7, b"digest", 5, 900, (60, 60, 60, 60)), 1)
    (Step(version=5, key=True), Step(version=6, key=False), Step(version=7, key=False))
    """
    anew = (Step(manifest.key, key=True), *_deltas(manifest.key, manifest.version))
    if not held or not manifest.version - len(manifest.deltas) <= held <= manifest.version:
        return anew
    onwards = _deltas(held, manifest.version)
    return min(onwards, anew, key=lambda steps: cost(manifest, steps))


def _deltas(held: int, version: int) -> tuple[Step, ...]:
    return tuple(Step(each) for each in range(held + 1, version + 1))
