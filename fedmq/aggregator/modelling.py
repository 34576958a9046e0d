"""The numbers of a federation: the model, the open fold, the rule's memory, and the frames that devices fetch.

Everything here is ordinary blocking code; the shell calls it from one worker thread and from nowhere else.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fedmq.algorithms import MOST_LENGTHS
from fedmq.codecs import parse
from fedmq.errors import ConfigError, MessageError, MisuseError
from fedmq.protocol.messages import DELTA, Frame, Manifest
from fedmq.protocol.seeds import frame_seed, update_seed
from fedmq.rules import Claim
from fedmq.store.checkpoint import Weights
from fedmq.vectors import fingerprint, is_plain

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from fedmq.aggregator.settings import Federation
    from fedmq.algorithms import Algorithm
    from fedmq.protocol.messages import Task, Update
    from fedmq.rules import AnyRule, Fold
    from fedmq.vectors import Layout, Vector

FIRST_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Moved:
    """What one step did: the new weights, and what the rule measured."""

    weights: Weights
    measurements: Mapping[str, float]


class Modelling:
    """The model and its round in progress."""

    def __init__(
        self,
        federation: Federation,
        run: bytes,
        model: Layout,
        weights: Weights,
        *,
        folder: Path | None = None,
    ) -> None:
        """Go on from `weights` in the layout that the algorithm makes of the `model`'s; `found` begins a federation.

        Rules that need every update of a round keep them in a file without a name in `folder`; the system's folder for
        temporary files, which it is where none is given, may be in memory.

        Raises ConfigError where they are of another layout, or the rule does not fit this model.
        """
        self.federation, self.run, self.weights, self._folder = federation, run, weights, folder
        self.plain, self.layout = model, federation.algorithm.extend(model)
        _require_layout(federation.algorithm, model, self.layout, weights.vector)
        self._rule: AnyRule = federation.algorithm.govern(federation.rule)
        self._rule.zero(self.layout, weights.memory)  # says now what the first round would
        self._fold: Fold | None = None
        self._task: Task | None = None
        self._codec = federation.encoding.up

    @classmethod
    def found(
        cls, federation: Federation, run: bytes, model: Layout, vector: Vector, *, folder: Path | None = None
    ) -> Modelling:
        """Begin a federation from the first model; what its algorithm adds begins at zero."""
        extended = np.zeros(federation.algorithm.extend(model).size, np.float32)
        extended[: model.size] = vector
        nothing = Weights(0, extended, np.zeros_like(extended))
        modelling = cls(federation, run, model, nothing, folder=folder)
        modelling.weights = modelling._next_weights(FIRST_VERSION, extended, {}, key_frame=True)
        return modelling

    def trimmed(self, vector: Vector) -> Vector:
        """Return the model's part of a vector, without what the algorithm has put behind it."""
        return vector[: self.plain.size]

    def evaluated(self) -> Vector:
        """Return the vector to evaluate: the model that devices would download now, or what its rule keeps instead."""
        return self._serving(self.weights.replica)

    def served(self) -> Vector:
        """Return the vector to save: the model, or what its rule keeps beside it for use (an average of models)."""
        return self._serving(self.weights.vector)

    def begin(self, task: Task, present: int = 0) -> None:
        """Open an empty fold for the task's round; `present` devices are there, as far as is known yet."""
        self._rule = self.federation.algorithm.govern(self.federation.rule, present)
        self._fold = self._rule.zero(self.layout, self.weights.memory, self._folder)
        self._task, self._codec = task, parse(task.codec)

    def discard(self) -> None:
        """Drop the fold: its round was abandoned."""
        self._fold = None

    def absorb(self, update: Update, round_: int | None = None) -> None:
        """Decode the update's delta and give it to the rule.

        `round_` is the one that it answers (default: the open one), its staleness how many model versions have come out
        since the one that it started from.

        Raises PeerError with the reason when it does not decode or a guard refuses it; the fold is unchanged then.
        """
        if self._fold is None or self._task is None:
            raise MisuseError("an update came to be absorbed while no round is open")
        if DELTA not in update.sections:
            raise MessageError(f"the update has no section {DELTA!r}")
        delta = self._codec.decode(
            update.sections[DELTA],
            self.layout.sizes,
            seed=update_seed(update.run, self._task.round if round_ is None else round_, update.update),
        )
        facts = update.facts
        staleness = self._task.model - update.model
        self._rule.absorb(self._fold, delta, Claim(facts.examples, facts.steps, facts.metrics, staleness))

    def finish(self, version: int, present: int = 0) -> Moved:
        """Move the model by the fold and encode the frame that leads there. Raises Refused where the rule will not.

        `present` devices are there now, which some algorithms have to know.
        """
        if self._fold is None:
            raise MisuseError("a round came to be finished that was never opened")
        rule = self.federation.algorithm.govern(self.federation.rule, present)
        outcome = rule.finish(self._fold, self.weights.vector)
        whole = len(self.weights.frames) >= self.federation.encoding.keyframe_every
        self.weights = self._next_weights(version, outcome.model, outcome.memory, key_frame=whole)
        self._fold = None
        return Moved(self.weights, outcome.measurements)

    def manifest(self, room: int) -> Manifest:
        """Return the manifest of the current weights, whose frames are cut into chunks of `room` bytes."""
        frames = tuple(replace(frame, chunks=chunk_count(body, room)) for frame, body in self.weights.frames)
        return Manifest(self.run, self.weights.version, self.plain.digest, self.layout.sizes, frames)

    def _serving(self, vector: Vector) -> Vector:
        return self.trimmed(self._rule.serving(vector, self.weights.memory, self.layout))

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
        digest = hashlib.sha256(body).digest()
        frame = Frame(
            version=version,
            base=0 if key_frame else old.version,
            codec=str(codec),
            nbytes=len(body),
            chunks=1,
            digest=digest,
            replica=digest if is_plain(body, replica) else fingerprint(replica),
        )
        earlier = () if key_frame else old.frames
        return Weights(version, vector, replica, memory, (*earlier, (frame, body)))


def _require_layout(algorithm: Algorithm, model: Layout, layout: Layout, vector: Vector) -> None:
    if layout.size > MOST_LENGTHS * model.size:
        raise ConfigError(
            f"{algorithm} makes {layout.size} numbers of the model's {model.size}, devices hold {MOST_LENGTHS} times "
            "as many at most: have it ask for less"
        )
    if vector.shape != (layout.size,):
        raise ConfigError(
            f"the folder holds a vector of {vector.size} numbers, under {algorithm} there are {layout.size}: "
            "was the federation begun under another algorithm? Go on with that one, or begin anew in another folder"
        )


def chunk_count(body: bytes, room: int) -> int:
    """Return into how many chunks of at most `room` bytes a body is cut."""
    return max(1, -(-len(body) // room))
