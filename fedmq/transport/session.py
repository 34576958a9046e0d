"""One MQTT session kept going over many connections."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self

from fedmq.errors import BrokerRefused, ConnectionLost, MisuseError, TransportError
from fedmq.transport.backoff import Backoff

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence
    from random import Random
    from types import TracebackType

    from fedmq.transport.interface import Connection, Message, Outgoing, Profile, Transport

_log = logging.getLogger(__name__)

PASSING: Final = frozenset({0x88, 0x89, 0x97, 0x9F})
"""Reasons for which a broker refuses a connection now, and may not in a moment: not available, busy, a quota or a rate
exceeded (MQTT 5, section 3.2.2.2)."""


class Session:
    """Connects, hands on what arrives, and connects again for as long as `run` runs.

    on_connected(connection): subscribe and publish what must be there, through the connection that is given; `publish`
    of the session waits until this has returned.
    on_messages(batch): called with one batch after the other, never two at a time; it may be an ordinary function where
    it waits for nothing. A batch is acknowledged when the call has returned. It may `publish`, and wait for a new
    connection in doing so; a batch whose own connection broke meanwhile comes again after the call has returned.
    With `early`, it is called while on_connected is under way, too. A broker may send all that it has kept for the
    session before it answers anything. On a poor link that takes longer than the link lasts, and what is not taken up
    as it comes, comes again over the next one.
    on_lost(error): called for each connection that broke or could not be made.

    An exception of theirs ends `run`; but a TransportError counts as a broken connection. `random` and `sleep` are
    arguments so that tests can run in virtual time.
    """

    def __init__(  # noqa: PLR0913 - all but two go by name
        self,
        transport: Transport,
        profile: Profile,
        *,
        on_connected: Callable[[Connection], Coroutine[Any, Any, None]],
        on_messages: Callable[[Sequence[Message]], Coroutine[Any, Any, None] | None],
        on_lost: Callable[[TransportError], None] | None = None,
        random: Random,
        backoff: Backoff | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        early: bool = False,
    ) -> None:
        self._transport = transport
        self._profile = profile
        self._on_connected = on_connected
        self._on_messages = on_messages
        self._on_lost = on_lost
        self._random = random
        self._backoff = self._unpaced = backoff or Backoff()
        self._sleep, self._early = sleep, early
        self._attempt = 0
        self._closed = False
        self._worker: asyncio.Task[None] | None = None
        self._runner: asyncio.Task[None] | None = None
        self._greeter: asyncio.Task[Any] | None = None
        self._live: Connection | None = None
        self._live_since = float("inf")
        self._dropped: asyncio.Future[None] | None = None
        self._waiters: set[asyncio.Future[Connection]] = set()
        self._batch: tuple[Connection, asyncio.Task[None]] | None = None
        self._closer: asyncio.Task[Any] | None = None

    @property
    def connection(self) -> Connection | None:
        """The live connection, where there is one."""
        return self._live

    def pace(self, spread_s: float) -> None:
        """Spread the attempts after the next loss of the link, one of a fleet's, over so many seconds."""
        self._backoff = self._unpaced.over(spread_s)

    async def run(self) -> None:
        """Keep the session going until `close`, or until this is cancelled."""
        if self._worker is not None or self._closed:
            raise MisuseError("a session runs once: make a new one")
        self._worker = asyncio.create_task(self._forever(), name=f"session {self._profile.identity}")
        try:
            await asyncio.wait((self._worker,))
        finally:
            await self.close()
        if not self._worker.cancelled():
            self._worker.result()

    async def close(self) -> None:
        """End `run` and disconnect in good order; nothing is published. May be called twice.

        Called from `on_messages` or `on_connected`, it returns at once: the link ends, and `run` when that call has.
        """
        self._closed = True
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(self._ended())
        if self._worker is not None and not self._worker.done():
            self._worker.cancel()
            if not self._inside():
                await asyncio.wait((self._worker,))

    async def __aenter__(self) -> Self:
        self._runner = asyncio.create_task(self.run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
        if self._runner is not None:
            await self._runner

    async def publish(self, outgoing: Outgoing) -> None:
        """Send, at least once, over as many connections as it takes.

        Raises BrokerRefused as soon as the broker refuses it, ConnectionLost when the session ends first.
        """
        while True:
            connection = self._live or await self._next()
            try:
                return await connection.publish(outgoing)
            except ConnectionLost:
                self._drop(connection)

    async def try_publish(self, outgoing: Outgoing) -> None:
        """Send over the present connection. Raises ConnectionLost without one, and as `Connection.publish` does."""
        if self._live is None:
            raise ConnectionLost(f"not connected to {self._transport.address}")
        await self._live.publish(outgoing)

    # -----------------------------------------------------------------------------------------------------------------
    # Connections, one after the other

    async def _forever(self) -> None:
        try:
            while True:
                await self._sleep(await self._once())
        finally:
            await self._end_batch()

    async def _once(self) -> float:
        """Make one connection and use it until it breaks; return how long to wait before the next."""
        self._live_since = float("inf")
        try:
            await self._use(await self._transport.connect(self._profile))
        except BrokerRefused as error:
            if error.code in PASSING:
                pause = self._backoff.delay(self._failures(), self._random)
            else:
                pause = self._backoff.refused(self._random)
            _log.error("%s: %s; next try in %.0f s", self._profile.identity, error, pause)
            self._tell(error)
        except TransportError as error:
            pause = self._backoff.delay(self._failures(), self._random)
            _log.warning("%s: %s; next try in %.1f s", self._profile.identity, error, pause)
            self._tell(error)
        return pause

    def _failures(self) -> int:
        """Return how many times in a row it has failed before, and count this time."""
        if asyncio.get_running_loop().time() - self._live_since >= self._backoff.steady_s:
            self._attempt = 0
        self._attempt += 1
        return self._attempt - 1

    def _tell(self, error: TransportError) -> None:
        if self._on_lost is not None:
            self._on_lost(error)

    async def _use(self, connection: Connection) -> NoReturn:
        self._dropped = asyncio.get_running_loop().create_future()
        try:
            if self._early:
                await self._read_beside(connection)
            else:
                await self._greet(connection)
                await self._read(connection)
        finally:
            self._drop(connection)
            await connection.close()

    async def _read(self, connection: Connection) -> NoReturn:
        while True:
            await self._batch_done(connection)
            work = self._on_messages(await connection.receive())
            if work is not None:
                self._batch = connection, asyncio.create_task(work)

    async def _read_beside(self, connection: Connection) -> NoReturn:
        """Read while the connection is greeted; raise what went wrong with that, where it did."""
        greeting = asyncio.create_task(self._greet_or_close(connection))
        try:
            await asyncio.sleep(0)  # on_connected comes first all the same
            await self._read(connection)
        except ConnectionLost:
            await asyncio.wait((greeting,))
            greeting.result()
            raise
        finally:
            greeting.cancel()
            await asyncio.gather(greeting, return_exceptions=True)

    async def _greet_or_close(self, connection: Connection) -> None:
        try:
            await self._greet(connection)
        except BaseException:
            self._give_up_batch()
            await connection.close()  # by which who reads it notices
            raise

    async def _greet(self, connection: Connection) -> None:
        self._greeter = asyncio.current_task()
        try:
            await self._on_connected(connection)
        finally:
            self._greeter = None
        _log.info("%s: connected to %s", self._profile.identity, self._transport.address)
        self._live, self._live_since = connection, asyncio.get_running_loop().time()
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(connection)

    def _drop(self, connection: Connection) -> None:
        """Stop using a connection that broke."""
        if self._live is connection:
            self._live = None
            self._give_up_batch()

    def _give_up_batch(self) -> None:
        """Wait no longer for a batch that may wait for the next connection."""
        if self._dropped is not None and not self._dropped.done():
            self._dropped.set_result(None)

    async def _next(self) -> Connection:
        if self._closed:
            raise self._ended()
        if asyncio.current_task() is self._greeter:
            raise MisuseError("on_connected() must publish through the connection that it is given")
        waiter: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            return await waiter
        finally:
            self._waiters.discard(waiter)

    def _ended(self) -> ConnectionLost:
        return ConnectionLost(f"the session of {self._profile.identity!r} was closed")

    # -----------------------------------------------------------------------------------------------------------------
    # Batches, one after the other, over all connections

    async def _batch_done(self, connection: Connection) -> None:
        """Wait until the last batch is done. Raises ConnectionLost when a publish finds the link broken meanwhile.

        The batch may be waiting for a connection in just that publish; so it goes on while a new one is made.
        """
        if self._batch is None or self._dropped is None:
            return
        source, task = self._batch
        await asyncio.wait((task, self._dropped), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ConnectionLost(f"the link to {self._transport.address} broke while a batch was in work")
        self._batch = None
        try:
            task.result()
        except TransportError:
            if source is connection:
                raise
            # An older connection's trouble: its batch comes again.

    async def _end_batch(self) -> None:
        if self._batch is None:
            return
        _, task = self._batch
        if task is not self._closer:
            task.cancel()
        await asyncio.wait((task,))
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.warning("%s: the last batch was cut short: %r", self._profile.identity, error)

    def _inside(self) -> bool:
        """Return whether one of the session's own tasks, or its batch, is what runs now."""
        self._closer = asyncio.current_task()
        batch = None if self._batch is None else self._batch[1]
        return self._closer in (self._worker, self._greeter, batch)
