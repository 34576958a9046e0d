"""The numbers of a federation: the model, the open fold, the rule's memory, and the frames that devices fetch.

Everything here is ordinary blocking code; the shell calls it from one worker thread and from nowhere else.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fedmq.codecs import parse
from fedmq.errors import MessageError, MisuseError
from fedmq.protocol.messages import DELTA, Frame, Manifest
from fedmq.protocol.seeds import frame_seed, update_seed
from fedmq.rules import Claim
from fedmq.store.checkpoint import Weights
from fedmq.vectors import fingerprint

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from fedmq.aggregator.settings import Federation
    from fedmq.protocol.messages import Task, Update
    from fedmq.rules import Fold
    from fedmq.vectors import Layout, Vector

FIRST_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Moved:
    """What one step did: the new weights, and what the rule measured."""

    weights: Weights
    measurements: Mapping[str, float]


class Modelling:
    """The model and its round in progress."""

    def __init__(self, federation: Federation, run: bytes, layout: Layout, weights: Weights) -> None:
        """Go on from `weights`; see `found` for a new federation."""
        self.federation, self.run, self.layout, self.weights = federation, run, layout, weights
        self._fold: Fold | None = None
        self._task: Task | None = None
        self._codec = federation.encoding.up

    @classmethod
    def found(cls, federation: Federation, run: bytes, layout: Layout, vector: Vector) -> Modelling:
        """Begin a federation from the first model."""
        nothing = Weights(0, vector, np.zeros_like(vector))
        modelling = cls(federation, run, layout, nothing)
        modelling.weights = modelling._next_weights(FIRST_VERSION, vector, {}, key_frame=True)
        return modelling

    def begin(self, task: Task) -> None:
        """Open an empty fold for the task's round."""
        self._fold = self.federation.rule.zero(self.layout, self.weights.memory)
        self._task, self._codec = task, parse(task.codec)

    def discard(self) -> None:
        """Drop the fold: its round was abandoned."""
        self._fold = None

    def absorb(self, update: Update) -> None:
        """Decode the update's delta and give it to the rule.

        Raises PeerError with the reason when it does not decode or a guard refuses it; the fold is unchanged then.
        """
        if self._fold is None or self._task is None:
            raise MisuseError("an update came to be absorbed while no round is open")
        if DELTA not in update.sections:
            raise MessageError(f"the update has no section {DELTA!r}")
        delta = self._codec.decode(
            update.sections[DELTA],
            self.layout.sizes,
            seed=update_seed(update.run, self._task.round, update.update),
        )
        facts = update.facts
        self.federation.rule.absorb(self._fold, delta, Claim(facts.examples, facts.steps, facts.metrics))

    def finish(self, version: int) -> Moved:
        """Move the model by the fold and encode the frame that leads there. Raises Refused where the rule will not."""
        if self._fold is None:
            raise MisuseError("a round came to be finished that was never opened")
        outcome = self.federation.rule.finish(self._fold, self.weights.vector)
        whole = len(self.weights.frames) >= self.federation.encoding.keyframe_every
        self.weights = self._next_weights(version, outcome.model, outcome.memory, key_frame=whole)
        self._fold = None
        return Moved(self.weights, outcome.measurements)

    def manifest(self, room: int) -> Manifest:
        """Return the manifest of the current weights, whose frames are cut into chunks of `room` bytes."""
        frames = tuple(replace(frame, chunks=chunk_count(body, room)) for frame, body in self.weights.frames)
        return Manifest(self.run, self.weights.version, self.layout.digest, self.layout.sizes, frames)

    def _next_weights(
        self, version: int, vector: Vector, memory: Mapping[str, NDArray[Any]], *, key_frame: bool
    ) -> Weights:
        """Encode the whole model, or what separates it from the replica that every device holds.

        What a delta frame rounds away stays in the difference, so the next frame makes it good: the replica follows the
        model in a closed loop.
        """
        old, codec = self.weights, self.federation.encoding.down
        seed = frame_seed(self.run, version)
        body = codec.encode(vector if key_frame else vector - old.replica, self.layout.sizes, seed=seed)
        if key_frame and codec.exact:
            replica = vector  # one copy less to hold, and to write into each checkpoint
        else:
            decoded = codec.decode(body, self.layout.sizes, seed=seed)
            replica = decoded if key_frame else old.replica + decoded
        frame = Frame(
            version=version,
            base=0 if key_frame else old.version,
            codec=str(codec),
            nbytes=len(body),
            chunks=1,
            digest=hashlib.sha256(body).digest(),
            replica=fingerprint(replica),
        )
        earlier = () if key_frame else old.frames
        return Weights(version, vector, replica, memory, (*earlier, (frame, body)))


def chunk_count(body: bytes, room: int) -> int:
    """Return into how many chunks of at most `room` bytes a body is cut."""
    return max(1, -(-len(body) // room))
