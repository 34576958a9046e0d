"""One device: events from MQTT, trainer, disk and clock into the participant, its effects out again."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any, Final

from fedmq.algorithms import MOST_LENGTHS
from fedmq.device.computing import Alone
from fedmq.device.fetching import Fetching
from fedmq.device.keepsakes import MemoryKeepsakes
from fedmq.device.metering import Meter
from fedmq.device.naming import drawn
from fedmq.device.outbox import MemoryOutbox
from fedmq.device.presence import Presence
from fedmq.device.replica import Replica
from fedmq.device.sending import Sending
from fedmq.device.settling import Settling
from fedmq.device.storing import Storing
from fedmq.device.training import Training
from fedmq.errors import DecodeError, FedmqError, MessageError, Refused, TransportError
from fedmq.protocol import participation as pa
from fedmq.protocol.frames import longest
from fedmq.protocol.messages import Beacon, Manifest, Receipt, Task
from fedmq.protocol.participant import Participant
from fedmq.transport.interface import Outgoing, Profile
from fedmq.transport.session import Session
from fedmq.wire.envelope import decode
from fedmq.wire.topics import Topics, check_name

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from concurrent.futures import Executor

    from fedmq.device.computing import Computing
    from fedmq.device.interface import Trainer
    from fedmq.device.keepsakes import Keepsakes
    from fedmq.device.naming import Naming
    from fedmq.device.outbox import Outbox
    from fedmq.transport.interface import Connection, Message, Transport

log = logging.getLogger(__name__)

FAREWELL_S: Final = 2.0
"""Time for saying good-bye; the last will says it otherwise."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the device is: its federation, its own name, and a number that grows with each of its lives."""

    federation: str
    name: str
    session: int = 1

    def __post_init__(self) -> None:
        """Raise ConfigError for a name that cannot stand in a topic."""
        check_name(self.name, "device")


@dataclass(slots=True)
class Counters:
    """What the device has done, for people and tests. Bytes are MQTT payloads; `healed` counts wrong replicas."""

    rounds: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    healed: int = 0
    verdicts: dict[str, int] = field(default_factory=dict)


class Device:
    """One MQTT session, one trainer, one outbox; `run` lives until the federation has ended or it is cancelled."""

    def __init__(  # noqa: PLR0913 - the parts that a device is made of
        self,
        identity: Identity,
        transport: Transport,
        trainer: Trainer,
        *,
        outbox: Outbox | None = None,
        keepsakes: Keepsakes | None = None,
        executor: Executor | None = None,
        computing: Computing | None = None,
        keep_alive: bool = False,
        on_verdict: Callable[[int, str, str], None] | None = None,
        meter: Meter | None = None,
        naming: Naming = drawn,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Train on `executor` (a default thread pool otherwise); `outbox` and `keepsakes` in memory are the default.

        Devices of one process may have one `computing`, which then says what they train on.
        With `keep_alive` the device stays when the federation has ended, and waits for another run. `on_verdict` hears
        of each update's round, verdict and reason. With a `meter`, the day's limit of the link is kept to. `naming`
        gives updates their names, so that a simulation can repeat a run.
        """
        self.identity, self.trainer = identity, trainer
        self.topics = Topics(identity.federation)
        self.counters = Counters()
        self.replica = Replica(trainer.layout.sizes)
        self.retired = asyncio.Event()
        self._outbox: Outbox = outbox or MemoryOutbox()
        self._keepsakes: Keepsakes = keepsakes or MemoryKeepsakes()
        self._training = Training(identity.name, trainer, self._outbox, self._keepsakes, naming=naming)
        self._computing: Computing = computing or Alone(executor)
        self._storing = Storing(self._computing, self._training)
        self._keep_alive, self._clock = keep_alive, clock
        self._on_verdict, self._meter = on_verdict, meter or Meter(None)
        self._participant = Participant(identity.name, trainer.layout.digest, outbox=self._outbox.entries())
        self._fetching = Fetching(self.topics, self._computing.read)
        self._fetch: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._settling = Settling(self._keepsakes, self._outbox, self._begin)
        self._sending = Sending(
            identity.name,
            self.topics,
            self._outbox,
            letters=lambda: self._participant.outbox,
            publish=self._publish,
            sent=lambda update: self._dispatch(pa.Sent(update)),
        )
        self._alarm: asyncio.TimerHandle | None = None
        self._connection: Connection | None = None
        self._failed: asyncio.Future[None] | None = None
        random = Random()  # noqa: S311 - jitter, not a secret
        self._presence = Presence(
            identity,
            trainer,
            self.topics,
            link=lambda: self._connection,
            pace=self._pace,
            come_back=lambda: self._dispatch(pa.Connected()),
            begin=self._begin,
            random=random,
            clock=clock,
        )
        self._session = Session(
            transport,
            Profile(f"fedmq:{identity.federation}:{identity.name}", will=self._presence.farewell()),
            on_connected=self._on_connected,
            on_messages=self._on_messages,
            on_lost=self._on_lost,
            random=random,
            early=True,
        )

    # --- life ---------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Take part until the federation has ended. Raises FedmqError when the device cannot go on."""
        self._failed = asyncio.get_running_loop().create_future()
        session: asyncio.Task[object] = asyncio.create_task(self._session.run())
        self._begin(self._presence.refresh_forever())
        if self._meter.limit is not None:
            self._begin(self._await_days())
        retired: asyncio.Task[object] = asyncio.create_task(self.retired.wait())
        try:
            endings: list[asyncio.Future[Any]] = [session, retired, self._failed]
            await asyncio.wait(endings, return_when=asyncio.FIRST_COMPLETED)
            for ending in (session, self._failed):
                if ending.done():
                    ending.result()
        finally:
            await self._close(session, retired)
            self._meter.close()

    async def _close(self, *tasks: asyncio.Task[object]) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        await self._settling.done()
        self._connection = None  # a moment to come back that was drawn before must find nobody
        with contextlib.suppress(TransportError, TimeoutError):
            async with asyncio.timeout(FAREWELL_S):
                await self._session.try_publish(self._presence.farewell())
        for task in [*tasks, *self._tasks]:
            task.cancel()
        await asyncio.gather(*tasks, *self._tasks, return_exceptions=True)

    # --- the link -----------------------------------------------------------------------------------------------------

    async def _on_connected(self, connection: Connection) -> None:
        self._connection = connection
        self._fetching.connected(present=connection.limits.session_present)
        await self._presence.greet(connection)
        self._dispatch(pa.Connected())

    def _pace(self, spread_s: float) -> None:
        self._session.pace(spread_s)
        self._dispatch(pa.Paced(spread_s))

    async def _await_days(self) -> None:
        """Go on at the beginning of each day with what had to wait for it."""
        while True:
            await self._meter.tomorrow()
            self._dispatch(pa.Elapsed())

    def _on_lost(self, error: TransportError) -> None:
        self._connection = None
        log.debug("%s lost its link: %s", self.identity.name, error)
        if self._fetch is not None:
            self._fetch.cancel()
        self._dispatch(pa.Disconnected())

    def _on_messages(self, messages: Sequence[Message]) -> None:
        self._presence.hear()
        for message in messages:
            try:
                self._take(message)
            except MessageError as error:
                log.warning("%s ignored a message on %s: %s", self.identity.name, message.topic, error)

    def _take(self, message: Message) -> None:
        self.counters.bytes_down += len(message.payload)
        self._meter.count(message.topic, message.payload)
        if self._fetching.take(message) or not message.payload:
            return
        if message.topic == self.topics.task:
            self._tasked(self._computing.read(message.payload, Task))
        elif message.topic == self.topics.manifest:
            self._dispatch(pa.Published(self._fitting(self._computing.read(message.payload, Manifest))))
        elif message.topic == self.topics.receipt(self.identity.name):
            self._receipted(decode(message.payload, Receipt))
        elif message.topic == self.topics.beacon:
            self._presence.herald(self._computing.read(message.payload, Beacon), live=not message.retained)

    def _tasked(self, task: Task) -> None:
        self._dispatch(pa.Tasked(task))
        newest = self._participant.task or task  # this one may be old
        for round_, update, question in self._settling.tasked(newest, self._participant.outbox):
            self._begin(self._ask(pa.Send(round_, update), question))

    def _receipted(self, receipt: Receipt) -> None:
        known = receipt.update in self._participant.outbox
        self._dispatch(pa.Receipted(receipt))
        if not known:
            self._settling.heard(receipt)

    def _fitting(self, manifest: Manifest) -> Manifest:
        """Raise MessageError for a manifest with more behind the model than any algorithm puts there."""
        size, whole = self.trainer.layout.size, self.trainer.layout.size + sum(manifest.behind)
        if whole > MOST_LENGTHS * size:
            raise MessageError(f"the manifest's {whole} numbers are far more than the model's {size}")
        return manifest

    # --- the participant ----------------------------------------------------------------------------------------------

    def _dispatch(self, event: pa.ParticipantEvent) -> None:
        now = self._clock()
        if self._meter.limit is not None:
            self._react(pa.Allowed(self._meter.left), now)
        self._react(event, now)

    def _react(self, event: pa.ParticipantEvent, now: float) -> None:
        for effect in self._participant.handle(event, now):
            self._carry_out(effect)

    def _carry_out(self, effect: pa.ParticipantEffect) -> None:
        match effect:
            case pa.Fetch():
                self._begin_fetch(effect)
            case pa.Train(task):
                self._begin(self._train(task))
            case pa.Send():
                if self._connection is not None:
                    self._begin(self._sending.send(self._connection, effect))
            case pa.Forget():
                self._forget(effect)
            case pa.Log(sentence, serious):
                log.log(logging.ERROR if serious else logging.INFO, "%s: %s", self.identity.name, sentence)
            case pa.Wake(at):
                self._wake_at(at)
            case pa.Retire():
                self._retire()

    def _begin(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Let a bug in a background task end the device loudly."""
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) and self._failed and not self._failed.done():
            self._failed.set_exception(error)

    def _wake_at(self, at: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        loop = asyncio.get_running_loop()
        self._alarm = loop.call_later(max(0.0, at - self._clock()), self._dispatch, pa.Elapsed())

    def _retire(self) -> None:
        log.info("%s: the federation has ended", self.identity.name)
        if not self._keep_alive:
            self.retired.set()

    # --- the model ----------------------------------------------------------------------------------------------------

    def _begin_fetch(self, effect: pa.Fetch) -> None:
        if self._fetch is not None:
            self._fetch.cancel()
        self._fetch = self._begin(self._fetch_model(effect, self._fetch))

    async def _fetch_model(self, effect: pa.Fetch, before: asyncio.Task[None] | None) -> None:
        if before is not None and not before.done():
            await asyncio.wait({before})  # one fetch at a time has the collectors
        if self._connection is None:
            return
        try:
            await self._bring(self._connection, effect)
        except (MessageError, DecodeError) as error:
            self._fetching.forget()
            self.counters.healed += not effect.fresh
            self._dispatch(pa.FetchFailed(effect.version, str(error), wrong=True))
        except (FedmqError, TimeoutError) as error:
            self._dispatch(pa.FetchFailed(effect.version, str(error)))
        else:
            self._fetching.forget()
            self._dispatch(pa.Fetched(effect.version))

    async def _bring(self, connection: Connection, effect: pa.Fetch) -> None:
        """Get the frames and take the replica to the model that they lead to."""
        manifest, replica = effect.manifest, self.replica
        replica.resize((*self.trainer.layout.sizes, *manifest.behind))
        if effect.fresh:
            replica.forget()
        most = {step: longest(manifest, step) for step in effect.steps}
        bodies = await self._fetching.fetch(connection, manifest.run, most)
        await self._computing.advance(replica, manifest, bodies)

    # --- training -----------------------------------------------------------------------------------------------------

    async def _train(self, task: Task) -> None:
        """Train, encode and store; nothing of that touches the event loop."""
        await self._settling.up_to_date(task)
        model = self.replica.vector
        try:
            if model is None or self.replica.version != task.model:
                raise Refused("the model that the task starts from is not here")
            stored = await self._storing.answer(task, model)
        except FedmqError as error:
            self._dispatch(pa.TrainingFailed(task.round, str(error)))
        else:
            self.counters.rounds += 1
            self._dispatch(pa.Stored(task.round, stored.update, len(stored.body)))

    # --- updates ------------------------------------------------------------------------------------------------------

    async def _ask(self, about: pa.Send, question: bytes) -> None:
        """Ask for the verdict on an update of a round that is over; a lost link asks again with the next task."""
        if self._connection is not None:
            with contextlib.suppress(TransportError):
                topic = self.topics.query(self.identity.name, about.round)
                await self._publish(self._connection, topic, question)

    async def _publish(self, connection: Connection, topic: str, data: bytes) -> None:
        self.counters.bytes_up += len(data)
        self._meter.count(topic, data)
        await connection.publish(Outgoing(topic, data))

    def _forget(self, effect: pa.Forget) -> None:
        self._settling.forget(effect.update, effect.verdict)
        verdict = effect.verdict.name.lower() if effect.verdict else "dropped"
        self.counters.verdicts[verdict] = self.counters.verdicts.get(verdict, 0) + 1
        if self._on_verdict is not None:
            self._on_verdict(effect.round, verdict, effect.reason)
        level = logging.INFO if verdict in {"accepted", "dropped"} else logging.WARNING
        log.log(
            level, "%s: update for round %d %s %s", self.identity.name, effect.round, verdict, effect.reason
        )
