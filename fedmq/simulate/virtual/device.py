"""A device in virtual time, for as long as it has something to do: its state machine, and what the world makes of it.

Most devices of a large fleet sleep most of the time. Such a one is a number; an `ActiveDevice` is made when a task
invites it, and goes when it has its receipt. What stays of it is what stays of a real one: the version of the model
that it holds, its outbox, and what an algorithm or a codec has it keep.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Final

from fedmq.algorithms import told
from fedmq.device.sending import ASK_FROM_BYTES
from fedmq.errors import FedmqError
from fedmq.protocol import participation as pa
from fedmq.protocol.messages import Query
from fedmq.protocol.pacing import spread_s
from fedmq.protocol.participant import Participant, Phase
from fedmq.protocol.spans import EVERYTHING, within
from fedmq.simulate.virtual.alarms import Alarms
from fedmq.simulate.virtual.fetching import Fetching
from fedmq.simulate.virtual.link import Link
from fedmq.simulate.virtual.school import Work
from fedmq.trainers.settings import Settings
from fedmq.wire.chunks import chunk_count, cut
from fedmq.wire.envelope import encode
from fedmq.wire.limits import CHUNK_BYTES

if TYPE_CHECKING:
    from fedmq.protocol.messages import Receipt, Task
    from fedmq.simulate.virtual.link import Deliver
    from fedmq.simulate.virtual.surroundings import Surroundings

NOTHING_LEFT: Final = 0
"""Bytes that the link of a device may carry whose battery is low: it takes no task up. What it has, it sends."""


class ActiveDevice:
    """One device that has something to do."""

    def __init__(self, number: int, around: Surroundings) -> None:
        """Wake device `number`, which may be down yet."""
        self.number, self._around = number, around
        self.name = around.roster.names[number]
        self.locker = around.locker(number)
        self._layout = around.roster.first().layout.digest
        self._machine = self._make_machine()
        self._up = self._linked = False
        self._link = Link(number, around, self._cut)
        self._alarms = Alarms(around.clock)
        self._fetching = Fetching(number, around, self._link, self._alarms, self._happened)
        self._mail: list[Receipt] = []
        self._gone = False

    def _make_machine(self) -> Participant:
        version = self._around.held(self.number)
        held = (self._around.aggregator.run, version) if version else None
        return Participant(self.name, self._layout, held=held, outbox=self.locker.outbox.entries())

    # --- up and down --------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Come up when the world lets it, now or later."""
        if self._up or "up" in self._alarms:
            return
        spell = self._around.population.spell(self.number, self._now)
        if spell.up:
            self._come_up(spell.until)
        else:
            self._alarms.set("up", spell.until, self.wake)

    @property
    def up(self) -> bool:
        """Whether the device is up."""
        return self._up

    def _come_up(self, until: float) -> None:
        self._up = True
        self._alarms.set("down", until, self._go_down)
        self._around.came(self.number)
        self._connect()

    def _go_down(self) -> None:
        """Sleep, or be switched off: then what is not on the disk is lost."""
        goes_on = self._busy or "reconnect" in self._alarms
        self._disconnect()
        self._alarms.cancel("reconnect")
        self._up = False
        self._around.went(self.number)
        if self._around.population.world.availability.forgets:
            self._forget_all()
        if goes_on:
            self.wake()
        else:
            self._rest()

    def _forget_all(self) -> None:
        self._alarms.cancel("wake", "trained")
        self._around.school.withdraw(self.number)
        self._fetching.forget()
        self._machine = self._make_machine()

    def _connect(self) -> None:
        """Have a link, and on it first what the broker has kept for this device."""
        aggregator = self._around.aggregator
        self._linked = True
        self._tell(pa.Paced(spread_s(aggregator.coordinator.fleet)))
        if aggregator.task is not None:
            self._hear(aggregator.task)
        mail, self._mail = self._mail, []
        for receipt in mail:
            self._receive(receipt)
        self._tell(pa.Connected())
        self._rest()

    def _disconnect(self) -> None:
        if not self._linked:
            return
        self._linked = False
        self._fetching.stop()
        self._link.drop_all()
        self._tell(pa.Disconnected())

    def _cut(self) -> None:
        """Lose the link, and come back after a while."""
        self._around.traffic.cuts += 1
        self._disconnect()
        again = self._around.population.reconnected(self.number, self._now)
        self._alarms.set("reconnect", again, self._reconnect)

    def _reconnect(self) -> None:
        self._around.traffic.greeted()
        self._connect()

    # --- what is heard ------------------------------------------------------------------------------------------------

    def hear(self, task: Task) -> None:
        """Take the open round's task, and the manifest that stands with it; without a link, when there is one again."""
        if self._linked and not self._gone:
            self._hear(task)
            self._rest()

    def _hear(self, task: Task) -> None:
        self._tell(pa.Published(self._around.aggregator.manifest))
        self._tell(pa.Tasked(task))
        newest = self._machine.task or task
        verdicts = self.locker.verdicts
        verdicts.task = newest
        questions = list(verdicts.questions(newest, self._machine.outbox))
        verdicts.settle()
        for round_, update, question in questions:
            self._link.send(("question", update), [question], self._asking(round_), self._rest)

    def receive(self, receipt: Receipt) -> None:
        """Take a receipt, or have the broker keep it until there is a link."""
        if self._linked:
            self._receive(receipt)
            self._rest()
        else:
            self._mail.append(receipt)

    def _receive(self, receipt: Receipt) -> None:
        known = receipt.update in self._machine.outbox
        self._tell(pa.Receipted(receipt))
        if not known and receipt.verdict.settled and self.locker.verdicts.concerns(receipt.update):
            self.locker.verdicts.judge(receipt.update, receipt.verdict)

    # --- the machine --------------------------------------------------------------------------------------------------

    @property
    def _now(self) -> float:
        return self._around.clock.now

    @property
    def _busy(self) -> bool:
        """Whether the device has something to do, or to send, or to wait for."""
        phase = self._machine.phase
        under_way = phase in (Phase.FETCHING, Phase.TRAINING) or self._link.busy
        return under_way or self._fetching.retries or bool(self._machine.outbox)

    def _tell(self, event: pa.ParticipantEvent) -> None:
        enough = bool(self._machine.outbox) or self._around.power.enough(self.number, self._now)
        allowed = pa.Allowed(None if enough or isinstance(event, pa.Stored) else NOTHING_LEFT)
        for each in (allowed, event):
            for effect in self._machine.handle(each, self._now):
                self._carry_out(effect)

    def _carry_out(self, effect: pa.ParticipantEffect) -> None:
        match effect:
            case pa.Fetch():
                self._fetching.begin(effect)
            case pa.Train(task):
                self._train(task)
            case pa.Send():
                self._send(effect)
            case pa.Forget():
                self._forget(effect)
            case pa.Wake(at):
                self._alarms.set("wake", at, self._elapsed)
            case pa.Log() | pa.Retire():
                pass

    def _elapsed(self) -> None:
        self._happened(pa.Elapsed())

    def _happened(self, event: pa.ParticipantEvent) -> None:
        """Tell the machine, and rest where that is all."""
        self._tell(event)
        self._rest()

    def _rest(self) -> None:
        """Go to sleep where there is nothing to do."""
        comes_back = "up" in self._alarms or "reconnect" in self._alarms
        if self._busy or self._mail or comes_back or self._gone:
            return
        self._gone = True
        self._alarms.cancel_all()
        self._around.idle(self.number)

    # --- training -----------------------------------------------------------------------------------------------------

    def _train(self, task: Task) -> None:
        around, number = self._around, self.number
        seconds = around.population.training_s(number, self._examples(task), task.round)
        fetched = self._fetching.model
        model = fetched if fetched is not None else around.aggregator.models[task.model]
        around.school.enrol(Work(number, self._now, task, model, self.locker.keepsakes))
        forgets = around.population.world.availability.forgets
        end = self._now + seconds if forgets else around.population.worked(number, self._now, seconds)
        self._alarms.set("trained", end, partial(self._trained, task, seconds))

    def _examples(self, task: Task) -> float:
        """Return how many examples the training goes through, each counted once an epoch."""
        examples = self._around.roster.examples(self.number)
        try:
            settings = Settings.parse(told(task.training)[1])
        except FedmqError:
            return examples  # the training will say what is wrong
        most = math.inf if settings.max_steps is None else settings.max_steps * settings.batch_size
        return min(examples * settings.epochs, most)

    def _trained(self, task: Task, seconds: float) -> None:
        self._around.power.trained(self.number, self._now, seconds)
        try:
            stored = self._around.school.result(self.number)
        except FedmqError as error:
            self._tell(pa.TrainingFailed(task.round, str(error)))
        else:
            self._around.traffic.trained += 1
            self.locker.outbox.put(stored)
            self._tell(pa.Stored(task.round, stored.update, len(stored.body)))
        self._rest()

    # --- updates ------------------------------------------------------------------------------------------------------

    def _send(self, effect: pa.Send) -> None:
        """Send the update, some chunks of it, or the question which ones; see `fedmq.device.sending`."""
        self._link.drop(effect.update)
        letter, body = self._machine.outbox.get(effect.update), self.locker.outbox.get(effect.update)
        if letter is None or body is None:
            return
        aggregator, sent = self._around.aggregator, partial(self._happened, pa.Sent(effect.update))
        count = chunk_count(len(body), CHUNK_BYTES)
        take = partial(aggregator.take, self.name, effect.round)
        if not effect.missing and len(body) >= ASK_FROM_BYTES:
            query = encode(Query(letter.run, effect.update, count, effect.question))
            self._link.send(effect.update, [query], self._asking(effect.round), sent)
        elif count == 1:
            self._link.send(effect.update, [body], lambda _, payload: take(None, payload), sent)
        else:
            wanted = list(within(effect.missing or EVERYTHING, count))
            chunks = cut(body, letter.run, effect.update, CHUNK_BYTES, indexes=wanted)
            payloads = [encode(chunk) for chunk in chunks]
            self._link.send(effect.update, payloads, lambda at, payload: take(wanted[at], payload), sent)

    def _asking(self, round_: int) -> Deliver:
        ask = partial(self._around.aggregator.ask, self.name, round_)
        return lambda _, payload: ask(payload)

    def _forget(self, effect: pa.Forget) -> None:
        verdicts = self.locker.verdicts
        self._around.traffic.dropped += effect.verdict is None
        if effect.verdict is None or not verdicts.concerns(effect.update):
            self.locker.outbox.forget(effect.update)
        else:
            verdicts.judge(effect.update, effect.verdict)
