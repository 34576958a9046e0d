"""The aggregator's shell in the simulated world: disk, journal, fold and publication, each step able to be the last.

It does what `fedmq.aggregator` does, in the same order. What the coordinator asks for and what takes time becomes a
*deed*, a generator that yields how long until its next step; a crash falls between any two steps. What is not on the
`AggregatorDisk` by then is lost.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fedmq.errors import MisuseError
from fedmq.protocol import coordination as co
from fedmq.protocol.coordinator import Phase, Progress, Terms
from fedmq.protocol.ledger import Ledger
from fedmq.protocol.messages import Beacon, Facts, Manifest
from fedmq.protocol.spans import gaps
from fedmq.testing.violation import demand
from fedmq.testing.world_broker import Piece, Question, SimulatedUpdate, Status

if TYPE_CHECKING:
    from collections.abc import Generator

    from fedmq.protocol.ledger import Key
    from fedmq.protocol.messages import Receipt, Report, Task
    from fedmq.protocol.policy import StopWhen
    from fedmq.protocol.spans import Spans
    from fedmq.testing.world import World
    from fedmq.testing.world_broker import Upward

LAYOUT = b"layout"
DISK_S = 0.05
ABSORB_S = 4.0
STEP_S = 3.0
REFRESH_S = 60.0
LONGEST_REFRESH_S = 900.0
EARLIER = 2
"""Deltas that stand from before the key-frame."""


@dataclass(slots=True)
class SimulatedJournal:
    """What the disk has of one round: its task, and of each device the updates that were kept last, piece by piece.

    There is one of each device for each round that it answers.
    """

    task: Task
    kept: dict[Key, tuple[SimulatedUpdate, set[int]]] = field(default_factory=dict)
    whole_in_turn: list[Key] = field(default_factory=list)

    def write(self, piece: Piece) -> None:
        """Keep a piece, durable on return."""
        update = piece.update
        known = self.kept.get(update.key)
        if known is None or known[0].id != update.id:
            known = self.kept[update.key] = (update, set())
        known[1].add(piece.index)
        if self.whole(update) and update.key not in self.whole_in_turn:
            self.whole_in_turn.append(update.key)

    def missing(self, update: SimulatedUpdate) -> Spans:
        """Return which pieces of the update are not here."""
        known = self.kept.get(update.key)
        there = known[1] if known is not None and known[0].id == update.id else ()
        return gaps(there, update.chunks)

    def whole(self, update: SimulatedUpdate) -> bool:
        """Say whether all of the update is here."""
        known = self.kept.get(update.key)
        return known is not None and known[0].id == update.id and len(known[1]) == update.chunks


@dataclass(slots=True)
class AggregatorDisk:
    """What survives the aggregator's process."""

    run: bytes
    seed: bytes
    progress: Progress = field(default_factory=Progress)
    verdicts: dict[int, dict[str, Any]] = field(default_factory=dict)
    journal: SimulatedJournal | None = None


class AggregatorShell:
    """One life of the aggregator's process."""

    def __init__(self, world: World, disk: AggregatorDisk, stop_when: StopWhen) -> None:
        """Load what the disk has."""
        self.world, self.disk = world, disk
        self.alive, self.linked = True, False
        terms = Terms(disk.run, LAYOUT, disk.seed, "float32", 1000, {})
        self.machine = world.parts.coordinator(
            terms, world.setting.policy, stop_when, progress=disk.progress, ledger=Ledger(disk.verdicts)
        )
        self.started = 0.0
        self.counting = 0
        self.resumed = False
        self.wake: float | None = None
        self.fold: dict[Key, SimulatedUpdate] | None = None
        self.absorbing = 0
        self.discarding = False
        self.deeds: deque[Generator[float, None, None]] = deque()
        self._waiting: list[tuple[int, Piece]] = []
        self._asked: list[Question] = []
        self._board: list[Task] = []
        self._alarm = self._calls = 0

    # --- the link -----------------------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Publish what is to stand, subscribe, and the first time start."""
        self.linked = True
        self.world.broker.publish(self._manifest())
        for task in self._board:
            self.world.broker.publish(task)
        self._call()
        if self.machine.phase is Phase.NEW:
            self._start()
            self.after(REFRESH_S, self._refresh, REFRESH_S)

    def _call(self) -> None:
        """Hear what stands at the broker, and have devices announce themselves again."""
        self._calls += 1
        self.world.broker.subscribe()
        self.world.broker.publish(Beacon(alive=True, run=self.disk.run, epoch=self._calls))

    def _refresh(self, pause: float) -> None:
        waiting = self.machine.phase is Phase.WAITING
        if waiting and self.linked:
            self._call()
        pause = min(2.0 * pause, LONGEST_REFRESH_S) if waiting else REFRESH_S
        self.after(pause, self._refresh, pause)

    def _start(self) -> None:
        self.started, journal = self.world.now, self.disk.journal
        if journal is None:
            self.tell(co.Started())
            return
        self.resumed = True
        self.tell(co.Started(journal.task))
        if self.machine.phase is Phase.OPEN and self.machine.task == journal.task:
            self.fold = {}
            for update, indices in list(journal.kept.values()):
                for index in sorted(indices):
                    self.tell(self._offer(Piece(update, index)))
            for key in list(journal.whole_in_turn):
                self._check_whole(journal.kept[key][0])

    def take(self, message: Upward) -> None:
        """Take a message from the broker."""
        if isinstance(message, Status):
            birth = message.birth
            event = co.Born(message.device, birth.session, birth.layout) if birth.alive else None
            self.tell(event or co.Died(message.device, birth.session))
        elif isinstance(message, Question):
            if any(type(effect) is co.Search for effect in self.tell(self._offer(message))):
                self._search(message)
        elif any(type(effect) is co.Keep for effect in self.tell(self._offer(message))):
            self._keep(message)

    def _offer(self, message: Piece | Question) -> co.Offered:
        update = message.update
        if isinstance(message, Question):
            opening, question = True, message.number
        else:
            opening, question = message.index == 0, None
        return co.Offered(update.device, update.run, update.round, update.id, 100, opening, question)

    # --- the journal --------------------------------------------------------------------------------------------------

    def _keep(self, piece: Piece) -> None:
        self._waiting.append((self.machine.progress.round, piece))
        if len(self._waiting) == 1:
            full = self.world.chance(self.world.faults.disk_full)
            self.after(20.0 if full else DISK_S, self._commit)

    def _commit(self) -> None:
        group, self._waiting = self._waiting, []
        asked, self._asked = self._asked, []
        journal = self.disk.journal
        for round_, piece in group:
            if journal is None or self.machine.task != journal.task or journal.task.round != round_:
                continue  # the round closed while the piece waited
            before = journal.whole(piece.update)
            journal.write(piece)
            if not before:
                self._check_whole(piece.update)
        for question in asked:
            self._answer(question)

    def _search(self, question: Question) -> None:
        """Answer when all is durable that came before the question."""
        if self._waiting:
            self._asked.append(question)
        else:
            self._answer(question)

    def _answer(self, question: Question) -> None:
        if self.disk.journal is not None:
            update, missing = question.update, self.disk.journal.missing(question.update)
            self.tell(co.Searched(update.device, update.round, update.id, missing, question.number))

    def _check_whole(self, update: SimulatedUpdate) -> None:
        if self.disk.journal is not None and self.disk.journal.whole(update):
            self.tell(co.Completed(update.device, update.round, update.id, update.model, update.layout))

    def _absorb(self, effect: co.Absorb) -> None:
        journal, key = self.disk.journal, (effect.device, effect.round)
        if journal is None or key not in journal.kept or not journal.whole(journal.kept[key][0]):
            raise MisuseError(f"{effect} of an update that is not whole in the journal")
        demand(
            self.machine.phase is Phase.OPEN,
            f"{effect.update.decode()} is absorbed after its round was closed",
        )
        self.absorbing += 1
        # Mostly quick, now and then not.
        self.after(
            self.world.random.random() ** 4 * ABSORB_S,
            self._absorb_now,
            journal,
            journal.kept[key][0],
        )

    def _absorb_now(self, journal: SimulatedJournal, update: SimulatedUpdate) -> None:
        self.absorbing -= 1
        if self.fold is None or self.disk.journal is not journal:
            return  # the round was given up
        if update.bad:
            self.tell(co.Spoiled(update.device, update.round, update.id, "it does not decode"))
        else:
            self.world.invariants.absorbed(update, self.fold)
            self.fold[update.key] = update
            self.tell(co.Absorbed(update.device, update.round, update.id, Facts(1, 1, {"accuracy": 0.5})))

    # --- the machine --------------------------------------------------------------------------------------------------

    def tell(self, event: co.CoordinatorEvent) -> list[co.CoordinatorEffect]:
        """Give the machine an event, carry out what it asks for, and check that all is well."""
        self.counting = self.machine.progress.round  # the event may open the next
        effects = self.machine.handle(event, self.world.now)
        self.world.note("aggregator", event, effects)
        for effect in effects:
            self._carry_out(effect)
        self.world.invariants.coordinator(self, event)
        return effects

    def _carry_out(self, effect: co.CoordinatorEffect) -> None:
        match effect:
            case co.Keep() | co.Search():
                pass  # `take` sees it among the effects
            case co.Reply(device, receipt):
                self._reply(device, receipt)
            case co.Absorb():
                self._absorb(effect)
            case co.WakeAt(time):
                self.wake = time
                self._alarm += 1
                self.after(max(0.0, time - self.world.now), self._ring, self._alarm)
            case _:
                self._begin(effect)

    def _reply(self, device: str, receipt: Receipt) -> None:
        if self.discarding:
            self._do(self._reply_later(device, receipt))
            return
        self.world.invariants.receipt(self, device, receipt)
        self.world.broker.receipt(device, receipt)

    def _ring(self, alarm: int) -> None:
        if alarm == self._alarm:
            self.wake = None
            self.tell(co.Ticked())

    # --- deeds --------------------------------------------------------------------------------------------------------

    def _begin(self, effect: co.CoordinatorEffect) -> None:
        match effect:
            case co.Announce(task, begin):
                deed = self._announce(task, begin=begin)
            case co.Finish():
                deed = self._finish(effect)
            case co.Discard():
                self.discarding = True
                deed = self._discard()
            case co.Tell(report):
                deed = self._report(report)
            case co.End(_, task):
                deed = self._end(task)
            case _:
                raise MisuseError(f"nobody can carry out {effect}")
        self._do(deed)

    def _do(self, deed: Generator[float, None, None]) -> None:
        self.deeds.append(deed)
        if len(self.deeds) == 1:
            self.after(0.0, self._go_on)

    def _go_on(self) -> None:
        pause = next(self.deeds[0], None)
        if pause is None:
            self.deeds.popleft()
            if self.deeds:
                self._go_on()
        else:
            self.after(pause, self._go_on)

    def _save(self) -> None:
        self.disk.progress, self.disk.verdicts = self.machine.progress, self.machine.ledger.snapshot()

    def _announce(self, task: Task, *, begin: bool) -> Generator[float, None, None]:
        if begin:
            self._save()
            yield DISK_S
            self.disk.journal, self.fold = SimulatedJournal(task), {}
            yield DISK_S
        self.world.invariants.announced(task, begin=begin)
        self._put(task)

    def _finish(self, effect: co.Finish) -> Generator[float, None, None]:
        yield self.world.random.random() * STEP_S
        if self.world.chance(self.world.faults.step_fails):
            self.fold = self.disk.journal = None
            yield DISK_S
            self.tell(co.StepFailed(effect.round, "it is not finite"))
            return
        fold, self.fold = self.fold or {}, None
        self.disk.progress = self.machine.progress.stepped(effect.version)
        self.disk.verdicts = self.machine.ledger.snapshot(effect.round)
        self.world.invariants.stepped(self.disk.run, effect, fold, self.machine.ledger.accepted)
        yield self.world.random.random()
        self.disk.journal = None
        yield DISK_S
        if self.linked:
            self.world.broker.publish(self._manifest())
        yield DISK_S
        self.tell(co.Stepped(effect.round, effect.version))

    def _discard(self) -> Generator[float, None, None]:
        self.fold = None
        yield DISK_S
        self.disk.journal, self.discarding = None, False

    def _reply_later(self, device: str, receipt: Receipt) -> Generator[float, None, None]:
        self._reply(device, receipt)
        yield 0.0

    def _report(self, report: Report) -> Generator[float, None, None]:
        self.world.invariants.reported(report)
        yield 0.0

    def _end(self, task: Task) -> Generator[float, None, None]:
        self._save()
        self.world.invariants.ended(task)
        yield DISK_S
        self.world.invariants.announced(task, begin=True)
        self._put(task)

    # --- publishing ---------------------------------------------------------------------------------------------------

    def _put(self, task: Task) -> None:
        self._board = [task]
        if self.linked:
            self.world.broker.publish(task)

    def _manifest(self) -> Manifest:
        version, every = self.disk.progress.version, self.world.setting.keyframe_every
        key = version - (version - 1) % every
        deltas = min(version - key + EARLIER, version - 1) if every > 1 else 0
        return Manifest(self.disk.run, version, b"digest", key, 100, (2,) * deltas)

    def after(self, delay: float, action: Any, *arguments: object) -> None:  # noqa: ANN401 - any method of this object
        """Do something later, if the process is still there."""
        self.world.after(delay, self, action, *arguments)
