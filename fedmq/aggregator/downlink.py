"""What devices hold of the model, and the frames that bring it to them: deltas in a closed loop, and key-frames.

The replica is what every device has that keeps up, bit for bit. Each version's delta codes what separates the model
from the replica before it, so what one delta rounds away the next one makes good, and nothing adds up. Now and then the
replica is rounded as the key-frames' codec rounds: then it is the same whether it came by deltas or as a key-frame.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

from fedmq.protocol.frames import BLOCK_BYTES, STEP_BYTES, Step, blocks
from fedmq.protocol.messages import Frame
from fedmq.protocol.seeds import frame_seed
from fedmq.store.checkpoint import Encoded, Weights
from fedmq.vectors import fingerprint
from fedmq.wire import limits
from fedmq.wire.chunks import body_digest
from fedmq.wire.envelope import encode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from fedmq.aggregator.settings import Encoding
    from fedmq.codecs import Codec
    from fedmq.vectors import Vector

    Memory = Mapping[str, NDArray[Any]]

FIRST_VERSION: Final = 1
MOST_EARLIER: Final = 64
"""Most deltas that stand from before the key-frame: a device fetches them one after the other."""


class Downlink:
    """Encodes version after version of one run; what is to be kept of it stands in the `Weights`."""

    def __init__(self, encoding: Encoding, run: bytes, sizes: Sequence[int]) -> None:
        """Encode vectors whose blocks have the lengths `sizes`; the codec of deltas, `down`, may be changed later."""
        self.down = encoding.down
        self._encoding, self._run, self._sizes = encoding, run, tuple(sizes)

    def first(self, vector: Vector) -> Weights:
        """Publish the model that the federation begins with, or, in a codec of its own, what that makes of it."""
        codec = self._encoding.first
        key, replica = self._key_frame(FIRST_VERSION, vector, codec or self._encoding.key)
        model = vector if codec is None else replica
        return Weights(FIRST_VERSION, model, replica, {}, _digest(replica), (key,))

    def then(self, old: Weights, version: int, vector: Vector, memory: Memory) -> Weights:
        """Publish the next version."""
        replica, frames = self._frames(old, version, vector)
        left = {each.step for each in frames}
        gone = tuple((each.step, len(each.body)) for each in old.frames if each.step not in left)
        return Weights(version, vector, replica, memory, _digest(replica), frames, gone)

    def _frames(self, old: Weights, version: int, vector: Vector) -> tuple[Vector, tuple[Encoded, ...]]:
        """Return the new replica, and the frames that are to stand now."""
        if not old.frames or version != old.version + 1 or self._encoding.keyframe_every == 1:
            key, replica = self._key_frame(version, vector, self._encoding.key)
            return replica, (key,)
        key, *deltas = old.frames
        anew = version >= key.step.version + self._encoding.keyframe_every
        delta, replica = self._delta(old, version, vector, rounded=anew)
        deltas.append(delta)
        if anew:
            key, replica = self._key_frame(version, replica, self._encoding.key)
            deltas = _of_use(deltas, key)
        return replica, (key, *deltas[-limits.FRAMES :])

    def _delta(self, old: Weights, version: int, vector: Vector, *, rounded: bool) -> tuple[Encoded, Vector]:
        """Return the delta and the replica behind it; where that is yet to be `rounded`, the delta says how."""
        codec, seed = self.down, frame_seed(self._run, version)
        data = codec.encode(vector - old.replica, self._sizes, seed=seed)
        replica = codec.decode(data, self._sizes, seed=seed)
        replica += old.replica
        return _encoded(Step(version), codec, data, self._encoding.key if rounded else None), replica

    def _key_frame(self, version: int, vector: Vector, codec: Codec) -> tuple[Encoded, Vector]:
        """Return the key-frame of a vector, and the replica that it makes."""
        seed = frame_seed(self._run, version)
        data = codec.encode(vector, self._sizes, seed=seed)
        replica = vector if codec.exact else codec.decode(data, self._sizes, seed=seed)
        return _encoded(Step(version, key=True), codec, data), replica


def _encoded(step: Step, codec: Codec, data: bytes, rounded: Codec | None = None) -> Encoded:
    body = encode(Frame(str(codec), str(rounded or ""), data))
    return Encoded(step, str(codec), body, body_digest(body))


def _digest(replica: Vector) -> bytes:
    return fingerprint(replica)[: limits.DIGEST]


def _of_use(deltas: Sequence[Encoded], key: Encoded) -> list[Encoded]:
    """Return the last deltas, as many as together cost a device less than the key-frame."""
    costs = accumulate(map(_cost, reversed(deltas)))
    count = sum(each < _cost(key) for each in costs)
    return list(deltas[len(deltas) - min(count, MOST_EARLIER) :])


def _cost(frame: Encoded) -> int:
    return BLOCK_BYTES * blocks(len(frame.body)) + STEP_BYTES
