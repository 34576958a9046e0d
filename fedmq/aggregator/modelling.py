"""The numbers of a federation: the model, the open fold, the rule's memory, and the frames that devices fetch.

Everything here is ordinary blocking code; the shell calls it from one worker thread and from nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Final

import numpy as np

from fedmq.aggregator.downlink import Downlink
from fedmq.aggregator.roundcodecs import RoundCodecs
from fedmq.algorithms import MOST_LENGTHS
from fedmq.errors import ConfigError, FedmqError, MessageError, MisuseError, PeerError, StoreError
from fedmq.protocol.frames import blocks
from fedmq.protocol.messages import DELTA, Manifest
from fedmq.protocol.seeds import update_seed
from fedmq.rules import Claim

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from fedmq.aggregator.settings import Federation
    from fedmq.algorithms import Algorithm
    from fedmq.protocol.messages import Task, Update
    from fedmq.rules import AnyRule, Fold
    from fedmq.store.checkpoint import Weights
    from fedmq.vectors import Layout, Vector


_DECODED_AT_ONCE: Final = 1 << 20
"""Numbers, of all updates that are decoded together: what that saves is each call's cost, which large models hide."""


@dataclass(frozen=True, slots=True)
class Moved:
    """What one step did: the new weights, and what the rule measured."""

    weights: Weights
    measurements: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Answer:
    """An update, and the round that it answers."""

    update: Update
    round: int


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
        self.codecs = RoundCodecs(str(federation.encoding.up))
        self.downlink = Downlink(federation.encoding, run, self.layout.sizes)

    @classmethod
    def found(
        cls, federation: Federation, run: bytes, model: Layout, vector: Vector, *, folder: Path | None = None
    ) -> Modelling:
        """Begin a federation from the first model; what its algorithm adds begins at zero."""
        layout = federation.algorithm.extend(model)
        extended = np.zeros(layout.size, np.float32)
        extended[: model.size] = vector
        first = Downlink(federation.encoding, run, layout.sizes).first(extended)
        return cls(federation, run, model, first, folder=folder)

    def evaluated(self) -> Vector:
        """Return the vector to evaluate: the model that devices would download now, or what its rule keeps instead.

        It is of the model's layout, but for algorithms that have several models: see `Algorithm.apart`.
        """
        return self._serving(self.weights.replica)

    def served(self) -> Vector:
        """Return the vector to save: the model, or what its rule keeps beside it for use (an average of models)."""
        return self._serving(self.weights.vector)

    def begin(self, task: Task, present: int = 0) -> None:
        """Open an empty fold for the task's round; `present` devices are there, as far as is known yet."""
        self._rule = self.federation.algorithm.govern(self.federation.rule, present)
        self._fold = self._rule.zero(self.layout, self.weights.memory, self._folder)
        self._task = task
        self.codecs.open(task)

    def discard(self) -> None:
        """Drop the fold: its round was abandoned."""
        self._fold = None

    def absorb(self, update: Update, round_: int | None = None) -> None:
        """Decode the update's delta and give it to the rule.

        `round_` is the one that it answers (default: the open one), its staleness how many model versions have come out
        since the one that it started from.

        Raises PeerError with the reason when it does not decode or a guard refuses it, StoreError where a rule that
        writes updates down cannot; the fold is unchanged then.
        """
        _, task = self._open
        answered = task.round if round_ is None else round_
        (wrong,) = self.absorb_all([Answer(update, answered)])
        if wrong is not None:
            raise wrong

    def absorb_all(self, answers: Sequence[Answer]) -> list[FedmqError | None]:
        """Do with each of `answers`, in order, as `absorb` does; return what that would raise, None where it would not.

        Those of one codec are decoded together, where the model is small enough for it to be worth it.
        """
        wrong: list[FedmqError | None] = []
        for _, group in groupby(answers, lambda answer: self.codecs.of(answer.round)):
            alike = list(group)
            for start in range(0, len(alike), self.at_once):
                some = alike[start : start + self.at_once]
                wrong += map(self._given, some, self._deltas(some))
        return wrong

    @property
    def at_once(self) -> int:
        """How many updates are decoded together at the most: what is more need not be in memory yet."""
        return max(1, _DECODED_AT_ONCE // max(1, self.layout.size))

    @property
    def _open(self) -> tuple[Fold, Task]:
        if self._fold is None or self._task is None:
            raise MisuseError("an update came to be absorbed while no round is open")
        return self._fold, self._task

    def _deltas(self, answers: Sequence[Answer]) -> Iterator[Vector | FedmqError]:
        """Yield what each decodes to, or what is wrong with it: a bad one costs the others time, and nothing else."""
        done = 0
        try:
            for delta in self._decoded(answers):
                done += 1
                yield delta
        except (PeerError, MisuseError) as error:
            if len(answers) == 1:
                yield error
                return
        for answer in answers[done:]:
            yield from self._deltas([answer])

    def _decoded(self, answers: Sequence[Answer]) -> Iterator[Vector]:
        """Yield what each decodes to; they are of one codec."""
        if any(DELTA not in answer.update.sections for answer in answers):
            raise MessageError(f"the update has no section {DELTA!r}")
        sections = [answer.update.sections[DELTA] for answer in answers]
        seeds = [update_seed(answer.update.run, answer.round, answer.update.update) for answer in answers]
        return self.codecs.of(answers[0].round).decode_all(sections, self.layout.sizes, seeds)

    def _given(self, answer: Answer, delta: Vector | FedmqError) -> FedmqError | None:
        """Give a delta to the rule; return what is wrong with it or was before, None where nothing is."""
        if isinstance(delta, FedmqError):
            return delta
        facts = answer.update.facts
        try:
            fold, task = self._open
            staleness = task.model - answer.update.model
            self._rule.absorb(fold, delta, Claim(facts.examples, facts.steps, facts.metrics, staleness))
        except (PeerError, StoreError, MisuseError) as error:
            return error
        return None

    def finish(self, version: int, present: int = 0) -> Moved:
        """Move the model by the fold and encode the frame that leads there. Raises Refused where the rule will not.

        `present` devices are there now, which some algorithms have to know.
        """
        if self._fold is None:
            raise MisuseError("a round came to be finished that was never opened")
        rule = self.federation.algorithm.govern(self.federation.rule, present)
        outcome = rule.finish(self._fold, self.weights.vector)
        self.weights = self.downlink.then(self.weights, version, outcome.model, outcome.memory)
        self._fold = None
        return Moved(self.weights, outcome.measurements)

    def manifest(self) -> Manifest:
        """Return the manifest of the current weights."""
        weights = self.weights
        key, *deltas = weights.frames
        return Manifest(
            run=self.run,
            version=weights.version,
            replica=weights.digest,
            key=key.step.version,
            key_blocks=blocks(len(key.body)),
            deltas=tuple(blocks(len(each.body)) for each in deltas),
            behind=self.layout.sizes[len(self.plain.sizes) :],
        )

    def _serving(self, vector: Vector) -> Vector:
        served = self._rule.serving(vector, self.weights.memory, self.layout)
        return self.federation.algorithm.shown(served, self.plain)


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
