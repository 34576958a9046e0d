"""Rules side by side on the same kept updates: round after round, each with a model of its own.

The arithmetic is the aggregator's own, `Modelling`: decoding, the rule's fold, its memory, and the replica that devices
would have downloaded, which is what a simulation evaluates. So the recorded rule gives the run's own models again, and
each round's file says what bits they must have.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from fedmq.aggregator.keeping import kept_updates
from fedmq.aggregator.modelling import Modelling
from fedmq.aggregator.pairing import require_pair
from fedmq.config.kept import read
from fedmq.errors import ConfigError, PeerError, Refused
from fedmq.protocol.messages import Task
from fedmq.rules.measure import norm
from fedmq.vectors import fingerprint
from fedmq.wire.envelope import decode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from fedmq.aggregator.settings import Federation
    from fedmq.protocol.messages import Update
    from fedmq.rules import AnyRule
    from fedmq.store.archive import KeptRound, Recording
    from fedmq.store.checkpoint import Weights
    from fedmq.vectors import Vector

    Judge = Callable[[Vector], Mapping[str, float]]

RECORDED = "recorded"
"""Name of the course that the run itself took."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A rule to replay under, by the name that it has in tables and plots; `rule` None is the recorded one."""

    name: str
    rule: AnyRule | None = None


@dataclass(frozen=True, slots=True)
class Point:
    """One round of one course.

    `distance` is the L2 distance of the trainable numbers from the recorded course's model, `moved` that from the model
    before the first kept round. `same` says whether the model has the bits that the run's had. `refused` counts the
    updates that this rule would not take, by reason in `reasons`; `outcome` is ``stepped``, or why the model stayed.
    """

    round: int
    version: int
    outcome: str
    updates: int
    refused: int
    distance: float
    moved: float
    same: bool
    evaluation: Mapping[str, float] = field(default_factory=dict)
    reasons: Mapping[str, int] = field(default_factory=dict)

    @property
    def accuracy(self) -> float | None:
        """On everyone's held-out data, where that is at hand."""
        return self.evaluation.get("accuracy")


@dataclass(slots=True)
class Course:
    """One rule's way through the kept rounds. `rule` is the rule of the first round in words."""

    name: str
    rule: str
    points: list[Point] = field(default_factory=list)

    @property
    def faithful(self) -> bool:
        """Whether every model has the bits of the run's."""
        return all(point.same for point in self.points)


@dataclass(slots=True)
class _Runner:
    """A course in progress: its model, and while a round is open what goes on in it."""

    candidate: Candidate
    course: Course
    weights: Weights
    modelling: Modelling | None = None
    taken: int = 0
    reasons: dict[str, int] = field(default_factory=dict)


class Replay:
    """The recorded rule and any number of candidates on one recording."""

    def __init__(
        self,
        recording: Recording,
        candidates: Sequence[Candidate],
        judge: Judge | None = None,
        *,
        anchored: bool = False,
    ) -> None:
        """Prepare; `judge` evaluates models where held-out data is at hand.

        A course goes on from its own model, or, `anchored`, from the recorded one in every round: then each point says
        what the rule makes of one round's updates, which were trained from that very model. What rules remember is
        their own in either case. Raises ConfigError, also where a candidate has no use for updates in their codec.
        """
        self.recording, self._judge, self.anchored = recording, judge, anchored
        federation = read(recording.rounds[0].settings)
        first = federation.rule
        for each in candidates:
            _require_suited(each, federation)
        self._runners = [
            _Runner(each, Course(each.name, str(each.rule or first)), recording.weights)
            for each in (Candidate(RECORDED), *candidates)
        ]

    @property
    def courses(self) -> list[Course]:
        """The courses as far as they have come, the recorded one first."""
        return [runner.course for runner in self._runners]

    def run(self) -> Iterator[list[Point]]:
        """Yield each round's points, one of every course in their order. Raises StoreError where a file is damaged."""
        for kept in self.recording.rounds:
            for runner in self._runners:
                self._open(runner, kept)
            for update, answered in kept_updates(self.recording, kept):
                for runner in self._runners:
                    _absorb(runner, update, answered)
            yield self._close(kept)

    def _open(self, runner: _Runner, kept: KeptRound) -> None:
        federation = read(kept.settings)
        if runner.candidate.rule is not None:
            federation = replace(federation, rule=runner.candidate.rule)
        runner.modelling = Modelling(
            federation, self.recording.state.run, self.recording.layout, runner.weights
        )
        runner.modelling.codecs.recall(dict(kept.codecs))
        runner.modelling.begin(decode(kept.task, Task), kept.present)
        runner.taken, runner.reasons = 0, {}

    def _close(self, kept: KeptRound) -> list[Point]:
        outcomes = [_finish(runner, kept) for runner in self._runners]
        recorded = self._runners[0].weights
        for runner, outcome in zip(self._runners, outcomes, strict=True):
            runner.course.points.append(self._point(runner, kept, outcome, recorded.vector))
            if self.anchored:
                runner.weights = replace(recorded, memory=runner.weights.memory)
        return [runner.course.points[-1] for runner in self._runners]

    def _point(self, runner: _Runner, kept: KeptRound, outcome: str, reference: Vector) -> Point:
        vector = runner.weights.vector
        return Point(
            round=kept.round,
            version=kept.version,
            outcome=outcome,
            updates=runner.taken,
            refused=sum(runner.reasons.values()),
            distance=self._distance(vector, reference),
            moved=self._distance(vector, self.recording.weights.vector),
            same=fingerprint(vector) == kept.model,
            evaluation=self._evaluation(runner),
            reasons=dict(runner.reasons),
        )

    def _evaluation(self, runner: _Runner) -> dict[str, float]:
        assert runner.modelling is not None  # noqa: S101 - opened before
        return dict(self._judge(runner.modelling.evaluated())) if self._judge else {}

    def _distance(self, vector: Vector, other: Vector) -> float:
        """Compare models; what an algorithm has put behind them is none of theirs."""
        layout = self.recording.layout
        return norm(np.subtract(vector[: layout.size], other[: layout.size]), layout)


def _require_suited(candidate: Candidate, federation: Federation) -> None:
    """Raise ConfigError, with the candidate's name, where its rule has no use for the kept updates' codec."""
    if candidate.rule is not None:
        try:
            require_pair(candidate.rule, federation.algorithm, federation.encoding.up)
        except ConfigError as error:
            raise ConfigError(
                f"the kept updates cannot be replayed under {candidate.name}: {error}"
            ) from None


def _absorb(runner: _Runner, update: Update, answered: int) -> None:
    assert runner.modelling is not None  # noqa: S101 - opened before
    try:
        runner.modelling.absorb(update, answered)
    except PeerError as error:
        reason = str(error)
        runner.reasons[reason] = runner.reasons.get(reason, 0) + 1
    else:
        runner.taken += 1


def _finish(runner: _Runner, kept: KeptRound) -> str:
    """Move the course's model; where its rule cannot, let the model stay and take the number of the next version."""
    assert runner.modelling is not None  # noqa: S101 - as above
    outcome = "no update was taken"
    if runner.taken:
        try:
            runner.weights = runner.modelling.finish(kept.version, kept.present).weights
        except Refused as error:
            outcome = str(error)
        else:
            return "stepped"
    runner.weights = replace(runner.weights, version=kept.version)
    return outcome
