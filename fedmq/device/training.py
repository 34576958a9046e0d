"""From a task to an update in the outbox: everything that a device computes, in a worker thread.

`answer` is all of it. What stands before and behind the training itself is there on its own too (`begin`, `finish`, and
the halves of that, `draft` and `seal`), for fleets whose trainings and encodings are done many at a time.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Final

from fedmq.algorithms import Algorithm, told
from fedmq.codecs import parse
from fedmq.device.drafts import Draft
from fedmq.device.interface import steered
from fedmq.device.kept import End, Origin
from fedmq.device.naming import drawn
from fedmq.device.outbox import Stored
from fedmq.device.residual import Whole
from fedmq.errors import MisuseError, Refused
from fedmq.protocol.messages import DELTA, Facts, Update
from fedmq.protocol.seeds import update_seed
from fedmq.vectors import is_finite
from fedmq.wire.envelope import encode
from fedmq.wire.fields import SINGLE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fedmq.codecs.feedback import Feedback
    from fedmq.descent import Pull
    from fedmq.device.interface import Setting, SteeredTrainer, Trained, Trainer
    from fedmq.device.keepsakes import Keepsakes
    from fedmq.device.kept import Vectors
    from fedmq.device.naming import Naming
    from fedmq.device.outbox import Outbox
    from fedmq.device.residual import Residual
    from fedmq.protocol.messages import Task
    from fedmq.vectors import Vector


@dataclass(frozen=True, slots=True)
class Begun:
    """What is to be trained for a task: by which device, from which weights and how; see `Trainer.train`."""

    device: str
    task: Task
    model: Vector
    algorithm: Algorithm
    start: Vector
    settings: Mapping[str, Setting]
    seed: int
    pull: Pull | None


class Training:
    """One device's answers to tasks. Blocking; one call at a time."""

    def __init__(
        self,
        device: str,
        trainer: Trainer,
        outbox: Outbox,
        keepsakes: Keepsakes,
        *,
        naming: Naming = drawn,
    ) -> None:
        """Train with `trainer`; put answers into `outbox`, and what is to be kept of them into `keepsakes`.

        `naming` gives updates their names, so that a simulation can repeat a run.
        """
        self._device, self._trainer = device, trainer
        self._outbox, self._keepsakes, self._naming = outbox, keepsakes, naming
        self._unstored: Callable[[], Stored] = _nothing

    def answer(self, task: Task, model: Vector) -> Stored:
        """Train from `model`, the replica that the task names, and store the update.

        Raises Refused where the device cannot answer this task, ConfigError for settings that the trainer does not
        know, StoreError: `store` then does the last part again.
        """
        begun = self.begin(task, model)
        return self.finish(begun, train(self._trainer, begun))

    def begin(self, task: Task, model: Vector) -> Begun:
        """Return what is to be trained; `train` does it. Raises Refused, ConfigError."""
        self._unstored = _nothing
        algorithm, settings = told(task.training)
        layout = self._trainer.layout
        _require_fitting(algorithm, model, self._trainer)
        algorithm = algorithm.settled(model, layout, self._trainer.evaluate)
        pull = algorithm.pull(model, layout, self._keepsakes.kept(task.run))
        start, seed = algorithm.start(model, layout), self._training_seed(task)
        return Begun(self._device, task, model, algorithm, start, settings, seed, pull)

    def finish(self, begun: Begun, trained: Trained) -> Stored:
        """Store the update that came of a training. Raises Refused, StoreError."""
        draft = self.draft(begun, trained)
        return self.seal(draft, draft.codec.encode(draft.sent, draft.sizes, seed=draft.seed))

    def draft(self, begun: Begun, trained: Trained) -> Draft:
        """Return what is to be encoded: the first half of `finish`. Raises Refused where the training diverged."""
        task, algorithm, layout = begun.task, begun.algorithm, self._trainer.layout
        delta = algorithm.answer(begun.model, trained.vector, trained.reach, layout)
        delta = algorithm.lessen(delta, layout, self._keepsakes.kept(task.run))
        if not is_finite(delta):
            raise Refused("training diverged: the new weights are not finite; try a lower learning rate")
        update, codec = self._naming(task), _parsed(task.codec)
        whole = self._whole(task, algorithm, delta, codec.feedback)
        return Draft(
            begun,
            trained,
            update,
            codec,
            algorithm.extend(layout).sizes,
            update_seed(task.run, task.round, update),
            delta if whole is None else whole.vector,
            whole,
        )

    def seal(self, draft: Draft, data: bytes) -> Stored:
        """Store what a draft was encoded to: the second half of `finish`. Raises Refused, StoreError."""
        task, algorithm, whole = draft.begun.task, draft.begun.algorithm, draft.whole
        change: Vectors = {}
        residual: Residual | None = None
        stored = _sealed(task, draft.update, draft.trained, data)
        if whole is not None or _learns(algorithm):
            codec = draft.codec
            delivered = draft.sent if codec.exact else codec.decode(data, draft.sizes, seed=draft.seed)
            change = algorithm.learn(delivered, self._trainer.layout)
            residual = None if whole is None else whole.after(delivered)
        origin = Origin(task.run, task.round, task.model)
        self._unstored = partial(self._put, origin, stored, change, residual)
        return self.store()

    @property
    def is_unstored(self) -> bool:
        """Whether there is an update that the disk has refused."""
        return self._unstored is not _nothing

    def store(self) -> Stored:
        """Store the last update that was made; once more, where the disk has refused it. Raises StoreError."""
        stored = self._unstored()
        self._unstored = _nothing
        return stored

    def _put(self, origin: Origin, stored: Stored, change: Vectors, residual: Residual | None) -> Stored:
        if change or residual is not None:  # is there before the update can be accepted
            self._keepsakes.put(origin, stored.update, change, residual)
        self._unstored = partial(self._post, stored)
        return self._post(stored)

    def _post(self, stored: Stored) -> Stored:
        self._outbox.put(stored)
        return stored

    def _whole(
        self, task: Task, algorithm: Algorithm, delta: Vector, feedback: Feedback | None
    ) -> Whole | None:
        """Return the delta with what is owed to the model; None without error feedback."""
        if feedback is None:
            return None
        self._take_back(task)
        mask = algorithm.fed_back(self._trainer.layout)
        return Whole.of(delta, self._keepsakes.owed(task.run), task.round, feedback.keep, mask)

    def _take_back(self, task: Task) -> None:
        """Settle an update of this very round that never reached the outbox: the power went in between."""
        for update, origin in self._keepsakes.waiting().items():
            here = (origin.run, origin.round) == (task.run, task.round) and not origin.accepted
            if here and update not in self._outbox.entries():
                self._keepsakes.settle(update, End.RETURNED)

    def _training_seed(self, task: Task) -> int:
        """Return a seed that differs by device, run and round, and repeats with them."""
        name = self._device.encode()
        return int.from_bytes(
            hashlib.sha256(task.run + task.round.to_bytes(8, "big") + name).digest()[:4], "big"
        )


def _nothing() -> Stored:
    raise MisuseError("there is no update to store: train first")


_parsed: Final = lru_cache(maxsize=64)(parse)


def _learns(algorithm: Algorithm) -> bool:
    """Tell whether what the aggregator decodes has to be known here: decoding takes as long as encoding."""
    return type(algorithm).learn is not Algorithm.learn


def train(trainer: Trainer, begun: Begun) -> Trained:
    """Do the training. Raises Refused where an algorithm steers it and the trainer cannot be steered, ConfigError."""
    if begun.pull is None:
        return trainer.train(begun.start, begun.settings, seed=begun.seed)
    return _steered(trainer).train(begun.start, begun.settings, seed=begun.seed, pull=begun.pull)


def _sealed(task: Task, update: bytes, trained: Trained, data: bytes) -> Stored:
    metrics = {name: min(max(value, SINGLE.low), SINGLE.high) for name, value in trained.metrics.items()}
    facts = Facts(trained.examples, trained.steps, metrics)
    body = encode(Update(task.run, update, task.model, task.layout, facts, {DELTA: data}))
    if len(body) > task.update_bytes:
        raise Refused(f"the update takes {len(body)} bytes, the task allows {task.update_bytes}")
    return Stored(task.run, task.round, update, body)


def _steered(trainer: Trainer) -> SteeredTrainer:
    found = steered(trainer)
    if found is None:
        raise Refused(
            f"the task's algorithm steers the training, and trainer {trainer.name} cannot be steered: "
            "let its train() take a pull"
        )
    return found


def _require_fitting(algorithm: Algorithm, model: Vector, trainer: Trainer) -> None:
    wanted = algorithm.extend(trainer.layout).size
    if model.size != wanted:
        raise Refused(
            f"the published model holds {model.size} numbers, {algorithm.kind} wants {wanted} here: "
            "did the federation change its algorithm within a run?"
        )
