"""A device's shell in the simulated world: outbox, replica, training and link.

What is on its `DeviceDisk` survives a crash, everything else does not.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fedmq.errors import MisuseError
from fedmq.protocol import participation as pa
from fedmq.protocol.messages import Beacon, Manifest, Receipt, Task
from fedmq.protocol.spans import within
from fedmq.testing.world_aggregator import LAYOUT
from fedmq.testing.world_broker import Piece, Question, SimulatedUpdate

if TYPE_CHECKING:
    from fedmq.testing.world import World
    from fedmq.testing.world_broker import Downward, Link

PIECE_S = 0.1


@dataclass(slots=True)
class DeviceDisk:
    """What survives the device's process. `written` counts updates ever made, for their names."""

    outbox: dict[bytes, SimulatedUpdate] = field(default_factory=dict)
    replica: tuple[bytes, int] | None = None
    sessions: int = 0


class DeviceShell:
    """One life of a device's process."""

    layout = LAYOUT

    def __init__(self, world: World, name: str, disk: DeviceDisk) -> None:
        """Load what the disk has."""
        self.world, self.name, self.disk = world, name, disk
        self.alive = True
        self.link: Link | None = None
        self.wake: float | None = None
        self.replica = disk.replica if world.setting.keeps_replica else None
        self.answered = {(stored.run, stored.round) for stored in disk.outbox.values()}
        self.written = {update: stored.run for update, stored in disk.outbox.items()}
        outbox = {update: (stored.run, stored.round) for update, stored in disk.outbox.items()}
        self.machine = world.parts.participant(name, LAYOUT, held=self.replica, outbox=outbox)
        self.fetching = self.training = False
        self._alarm = self._fetch = 0
        self.sending: dict[bytes, pa.Send] = {}

    # --- the link -----------------------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Open a link, in place of any other."""
        if self.link is not None:
            self.lost(self.link, again=False)
        self.disk.sessions += 1
        self.sending = {}
        self.link = self.world.broker.connect(self, self.disk.sessions)
        self.tell(pa.Connected())

    def lost(self, link: Link, *, again: bool = True) -> None:
        """Notice that the link is gone, and come back after a while."""
        if link is not self.link:
            return
        self.link = None
        self.sending = {}
        self.fetching = False
        self._fetch += 1
        self.tell(pa.Disconnected())
        if again:
            self.after(self.world.random.random() * 10.0, self._reconnect)

    def _reconnect(self) -> None:
        if self.link is None:
            self.connect()

    def take(self, message: Downward) -> None:
        """Take a message from the broker."""
        match message:
            case Task():
                self.tell(pa.Tasked(message))
            case Manifest():
                self.tell(pa.Published(message))
            case Receipt():
                self.tell(pa.Receipted(message))
            case Beacon():
                self._come_back()

    def _come_back(self) -> None:
        """Be announced to an aggregator that calls, and return to what has no receipt."""
        if self.link is not None and self.link.alive:
            self.world.broker.announce(self.link)
        if self.link is not None:
            self.tell(pa.Connected())

    # --- the machine --------------------------------------------------------------------------------------------------

    def tell(self, event: pa.ParticipantEvent) -> None:
        """Give the machine an event, carry out what it asks for, and check that all is well."""
        effects = self.machine.handle(event, self.world.now)
        self.world.note(self.name, event, effects)
        for effect in effects:
            self._carry_out(effect)
        self.world.invariants.participant(self, event, effects)

    def _carry_out(self, effect: pa.ParticipantEffect) -> None:
        match effect:
            case pa.Fetch():
                self._begin_fetch(effect)
            case pa.Train(task):
                self._train(task)
            case pa.Send():
                self._send(effect)
            case pa.Forget(_, update):
                del self.disk.outbox[update]
            case pa.Wake(time):
                self.wake = time
                self._alarm += 1
                self.after(max(0.0, time - self.world.now), self._ring, self._alarm)
            case pa.Log() | pa.Retire():
                pass
            case _:
                raise MisuseError(f"nobody can carry out {effect}")

    def _ring(self, alarm: int) -> None:
        if alarm == self._alarm:
            self.wake = None
            self.tell(pa.Elapsed())

    # --- the model ----------------------------------------------------------------------------------------------------

    def _begin_fetch(self, effect: pa.Fetch) -> None:
        if self.link is None:
            raise MisuseError("a fetch was asked for without a link")
        self.fetching = True
        self._fetch += 1
        run = self.machine.run
        self.after(self.world.random.random() * 2.0, self._end_fetch, self._fetch, effect, run)

    def _end_fetch(self, number: int, effect: pa.Fetch, run: bytes) -> None:
        if number != self._fetch:
            return
        self.fetching = False
        broken = self.link is None or not self.link.alive or self.world.chance(self.world.faults.fetch_fails)
        if broken or not self.world.broker.stands(run, effect.version):
            self.tell(pa.FetchFailed(effect.version, "no chunk came for a long time"))
            return
        self.world.invariants.fetched(self, effect, run)
        self.replica = self.disk.replica = (run, effect.version)
        self.tell(pa.Fetched(effect.version))

    # --- training and updates -----------------------------------------------------------------------------------------

    def _train(self, task: Task) -> None:
        self.world.invariants.training(self, task)
        self.training = True
        self.answered.add((task.run, task.round))
        random = self.world.random
        slow = self.world.chance(self.world.faults.straggle)
        self.after(random.random() * (100.0 if slow else 6.0), self._trained, task, self.replica)

    def _trained(self, task: Task, base: tuple[bytes, int]) -> None:
        if self.world.chance(self.world.faults.train_fails):
            self.training = False
            self.tell(pa.TrainingFailed(task.round, "it diverged"))
            return
        bad = self.world.chance(self.world.faults.spoil)
        name = self.world.new_name(self.name)
        update = SimulatedUpdate(
            name, self.name, task.run, task.round, task.model, LAYOUT, base, bad, self.world.setting.chunks
        )
        self.disk.outbox[name], self.written[name] = update, task.run
        self.after(0.01, self._stored, pa.Stored(task.round, name))

    def _stored(self, event: pa.Stored) -> None:
        self.training = False
        self.tell(event)

    def _send(self, effect: pa.Send) -> None:
        stored = self.disk.outbox[effect.update]
        self.world.invariants.sending(stored)
        self.sending[effect.update] = effect
        messages: deque[Piece | Question] = deque(
            Piece(stored, index) for index in within(effect.missing, stored.chunks)
        )
        if self.link is None:
            raise MisuseError("an update was to be sent without a link")
        if not effect.missing:
            messages.append(Question(stored, effect.question))
        self._send_next(messages, effect, self.link)

    def _send_next(self, messages: deque[Piece | Question], effect: pa.Send, link: Link) -> None:
        """Send one message after the other, until all are sent, something else is to be sent, or the link is gone."""
        if self.sending.get(effect.update) is not effect:
            return
        if messages and link.alive:
            self.world.broker.update(messages.popleft())
        if messages and effect.update in self.machine.outbox:
            self.after(PIECE_S, self._send_next, messages, effect, link)
        else:
            self.after(PIECE_S, self._end_sending, effect)

    def _end_sending(self, effect: pa.Send) -> None:
        if self.sending.get(effect.update) is effect:
            del self.sending[effect.update]
            self.tell(pa.Sent(effect.update))

    def after(self, delay: float, action: Any, *arguments: object) -> None:  # noqa: ANN401 - any method of this object
        """Do something later, if the process is still there."""
        self.world.after(delay, self, action, *arguments)
