"""The aggregator in virtual time: its state machine, model, fold and codecs, without link and disk.

What `fedmq.aggregator` does in workers and waits for is done here at once. Updates come as the bytes that a device
would have sent, and are decoded and folded as there.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from fedmq.aggregator.founding import figured, found, make_coordinator, make_steering, steer
from fedmq.errors import MessageError, PeerError, Refused
from fedmq.protocol import coordination as co
from fedmq.protocol.messages import Beacon, Chunk, Query, Update
from fedmq.protocol.pacing import spread_s
from fedmq.protocol.spans import gaps
from fedmq.wire import limits
from fedmq.wire.chunks import Collector, cut
from fedmq.wire.envelope import decode, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fedmq.aggregator.settings import Federation
    from fedmq.protocol.coordinator import Coordinator
    from fedmq.protocol.frames import Step
    from fedmq.protocol.messages import Manifest, Receipt, Report, Task
    from fedmq.simulate.virtual.clock import Clock, Timer
    from fedmq.store.modelfile import StoredModel
    from fedmq.vectors import Vector


class Field(Protocol):
    """What is on the other side of the broker."""

    def look(self) -> None:
        """Tell the coordinator who has come and gone; called before it may open a round."""

    def published(self, manifest: Manifest, nbytes: int) -> None:
        """Hear that a model stands."""

    def announced(self, task: Task, nbytes: int) -> None:
        """Hear that a round is open."""

    def replied(self, device: str, receipt: Receipt) -> None:
        """Take a receipt to a device."""

    def told(self, report: Report) -> None:
        """Hear how a round went."""


@dataclass(slots=True)
class Pieces:
    """The chunks of one update that have come."""

    update: bytes
    collector: Collector
    there: set[int] = field(default_factory=set)


class VirtualAggregator:
    """One federation's aggregator. Everything is done by the time a call returns."""

    def __init__(  # noqa: PLR0913 - the parts that it is made of
        self,
        federation: Federation,
        first: StoredModel,
        clock: Clock,
        surroundings: Field,
        *,
        entropy: Callable[[int], bytes],
        evaluate: Callable[[Vector], Mapping[str, float]],
    ) -> None:
        """Found the federation with the `first` model; `start` begins it."""
        self._clock, self._field, self._evaluate = clock, surroundings, evaluate
        self.federation = federation
        state, self.modelling = found(federation, first, entropy)
        self.run = state.run
        self._steering = make_steering(federation, state, self.modelling)
        self.coordinator: Coordinator = make_coordinator(federation, state, self.modelling, self._steering)
        self._updates: dict[tuple[str, int, bytes], Update] = {}
        self._pieces: dict[tuple[str, int], Pieces] = {}
        self._deeds: deque[co.CoordinatorEffect] = deque()
        self._working = False
        self._alarm: Timer | None = None
        self._frames: dict[Step, int] = {}
        self.models: dict[int, Vector] = {}
        self.task: Task | None = None
        self.reason = ""

    def start(self) -> None:
        """Publish the first model, and open a round when enough devices are there."""
        self._publish()
        self._field.look()
        self.tell(co.Started())

    @property
    def beacon_bytes(self) -> int:
        """Length of the retained message that says the aggregator is alive."""
        return len(encode(Beacon(True, self.run, 2**16 + 1, spread_s(self.coordinator.fleet))))  # noqa: FBT003 - alive

    # --- what comes ---------------------------------------------------------------------------------------------------

    def take(self, device: str, round_: int, chunk: int | None, payload: bytes) -> None:
        """Take an update that has arrived, or one `chunk` of it."""
        try:
            if chunk is None:
                self._take_update(device, round_, decode(payload, Update), len(payload))
            else:
                self._take_chunk(device, round_, decode(payload, Chunk), len(payload))
        except MessageError as error:
            self.tell(co.Garbled(device, len(payload), str(error)))

    def _take_update(self, device: str, round_: int, update: Update, nbytes: int) -> None:
        if self._offer(device, round_, update.run, update.update, nbytes):
            self._complete(device, round_, update)

    def _take_chunk(self, device: str, round_: int, chunk: Chunk, nbytes: int) -> None:
        opening = chunk.index == 0
        if not self._offer(device, round_, chunk.run, chunk.stem, nbytes, opening=opening):
            return
        known = self._pieces.get((device, round_))
        if known is None or known.update != chunk.stem:
            known = self._pieces[device, round_] = Pieces(chunk.stem, Collector(limits.BODY_BYTES))
        known.there.add(chunk.index)
        body = known.collector.take(chunk)
        if body is not None:
            self._complete(device, round_, decode(body, Update))

    def _offer(  # noqa: PLR0913 - what an update's header says
        self, device: str, round_: int, run: bytes, update: bytes, nbytes: int, *, opening: bool = True
    ) -> bool:
        effects = self.tell(co.Offered(device, run, round_, update, nbytes, opening))
        return any(isinstance(effect, co.Keep) for effect in effects)

    def _complete(self, device: str, round_: int, update: Update) -> None:
        self._updates[device, round_, update.update] = update
        self.tell(co.Completed(device, round_, update.update, update.model, update.layout))

    def ask(self, device: str, round_: int, payload: bytes) -> None:
        """Take a question about an update."""
        query = decode(payload, Query)
        offered = co.Offered(device, query.run, round_, query.update, len(payload), question=query.question)
        if not any(isinstance(effect, co.Search) for effect in self.tell(offered)) or not query.count:
            return
        known = self._pieces.get((device, round_))
        there = known.there if known is not None and known.update == query.update else set()
        missing = gaps(there, query.count)
        self.tell(co.Searched(device, round_, query.update, missing, query.question))

    def tell(self, event: co.CoordinatorEvent) -> Sequence[co.CoordinatorEffect]:
        """Give the coordinator an event and do what it asks for."""
        effects = self.coordinator.handle(event, self._clock.now)
        self._deeds.extend(effects)
        if not self._working:
            self._working = True
            while self._deeds:
                self._do(self._deeds.popleft())
            self._working = False
        return effects

    # --- what is to be done -------------------------------------------------------------------------------------------

    def _do(self, effect: co.CoordinatorEffect) -> None:
        match effect:
            case co.Absorb():
                self.tell(self._absorbed(effect))
            case co.Reply(device, receipt):
                self._field.replied(device, receipt)
            case co.Finish():
                self._finish(effect)
            case co.Announce(task):
                self._announce(task)
            case co.Discard():
                self.modelling.discard()
            case co.Tell(report):
                self._field.told(figured(report, self._steering))
            case co.WakeAt(at):
                self._wake_at(at)
            case co.End(reason):
                self.reason = reason
            case co.Keep() | co.Search():
                pass  # `take` and `ask` see it among the effects of their own event

    def _wake_at(self, at: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = self._clock.at(at, self._tick)

    def _tick(self) -> None:
        self._field.look()
        self.tell(co.Ticked())

    def _absorbed(self, effect: co.Absorb) -> co.Absorbed | co.Spoiled:
        name = effect.device, effect.round, effect.update
        update = self._updates.pop(name)
        try:
            self.modelling.absorb(update, effect.round)
        except PeerError as error:
            return co.Spoiled(*name, str(error))
        return co.Absorbed(*name, update.facts)

    def _finish(self, effect: co.Finish) -> None:
        self._field.look()
        present = len(self.coordinator.present)
        try:
            moved = self.modelling.finish(effect.version, present)
        except Refused as error:
            self.modelling.discard()
            self.tell(co.StepFailed(effect.round, str(error)))
            return
        self._publish()
        evaluation = self._evaluate(self.modelling.evaluated())
        steer(self._steering, self.coordinator, self.modelling, present=present, now=self._clock.now)
        self.tell(co.Stepped(effect.round, effect.version, len(moved.weights.frames[-1].body), evaluation))

    def _announce(self, task: Task) -> None:
        self._pieces.clear()
        self._updates.clear()  # what the last round had no room for was told to come again
        self.modelling.begin(task, len(self.coordinator.present))
        self.task = task
        self.models = {
            version: model for version, model in self.models.items() if version >= self._oldest(task)
        }
        self._field.announced(task, len(encode(task)))

    def _oldest(self, task: Task) -> int:
        """Return the oldest model that an update may still start from."""
        opened = self.coordinator.progress.find(task.oldest)
        return task.model if opened is None else opened.model

    # --- what stands --------------------------------------------------------------------------------------------------

    @property
    def manifest(self) -> Manifest:
        """What the newest model's manifest says."""
        return self._manifest

    def frame_bytes(self, step: Step) -> int | None:
        """Return how many bytes a device gets for this step; None where its frame does not stand (any more)."""
        return self._frames.get(step)

    def _publish(self) -> None:
        weights, room = self.modelling.weights, self.federation.encoding.chunk_bytes
        known, self._frames = self._frames, {}
        for each in weights.frames:
            self._frames[each.step] = known.get(each.step) or sum(
                len(encode(chunk)) for chunk in cut(each.body, self.run, b"", room, each.digest)
            )
        self.models[weights.version] = weights.replica
        self._manifest = self.modelling.manifest()
        self._field.published(self._manifest, len(encode(self._manifest)))
