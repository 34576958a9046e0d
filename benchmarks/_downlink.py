"""What devices download in a course: a first frame, then for each round what separates the model from their replica."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from fedmq.codecs import parse

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fedmq.vectors import Layout, Vector

_SEEDS: Final = 1 << 32
"""Seeds of frames begin here, those of updates end before."""


@dataclass(frozen=True, slots=True)
class Down:
    """Codecs of the first frame, of those between versions, and of the key-frame that stands each `every` versions."""

    first: str
    delta: str
    key: str = "int8 | huffman"
    every: int = 20


@dataclass(slots=True)
class Broadcast:
    """A published model: the replica that devices hold, the frames that lead there, and the bytes fetched so far.

    As in `fedmq.aggregator.downlink`: where a key-frame stands, the replica is what its codec makes of it, so that who
    follows and who comes late hold the same. Without a `Down`, whoever takes part is sent the whole model as float32.
    """

    down: Down | None
    layout: Layout
    replica: Vector
    frames: list[int]
    have: list[int]
    keys: list[tuple[int, int]] = field(default_factory=list)
    nbytes: int = 0

    @classmethod
    def found(cls, down: Down | None, layout: Layout, model: Vector, devices: int) -> Broadcast:
        """Publish the first model, and begin with what devices have of it.

        First weights are drawn at random, and what a few bits make of them is as good a beginning.
        """
        decoded, nbytes = _sent(down.first if down else "float32", model, layout, _SEEDS)
        return cls(down, layout, decoded, [nbytes], [0] * devices)

    def publish(self, model: Vector) -> None:
        """Encode the way from the replica to `model`, and go it."""
        if self.down is None:
            self.replica = model
            return
        seed = _SEEDS + len(self.frames)
        way, nbytes = _sent(self.down.delta, model - self.replica, self.layout, seed)
        self.replica = self.replica + way
        self.frames.append(nbytes)
        if len(self.frames) % self.down.every == 0:
            self.replica, nbytes = _sent(self.down.key, self.replica, self.layout, seed)
            self.keys.append((len(self.frames), nbytes))

    def fetch(self, devices: Iterable[int]) -> None:
        """Count what these devices download to have the replica: the cheaper of what they missed, and a key-frame."""
        for device in devices:
            self.nbytes += self._missed(0 if self.down is None else self.have[device])
            self.have[device] = len(self.frames)

    def _missed(self, have: int) -> int:
        whole = [nbytes + sum(self.frames[version:]) for version, nbytes in self.keys[-1:]]
        return min([sum(self.frames[have:]), *whole])


def _sent(line: str, vector: Vector, layout: Layout, seed: int) -> tuple[Vector, int]:
    """Return what arrives, and in how many bytes."""
    codec = parse(line)
    body = codec.encode(vector, layout.sizes, seed=seed)
    return codec.decode(body, layout.sizes, seed=seed), len(body)
