"""A device's word that it is there: its birth, its birth again wherever that may have got lost, and its farewell."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

from fedmq.errors import TransportError
from fedmq.protocol.messages import Birth
from fedmq.protocol.pacing import LONGEST_S
from fedmq.transport.interface import Outgoing
from fedmq.version import __version__
from fedmq.wire.envelope import encode

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from random import Random

    from fedmq.device.device import Identity
    from fedmq.device.interface import Trainer
    from fedmq.protocol.messages import Beacon
    from fedmq.transport.interface import Connection
    from fedmq.wire.topics import Topics

REFRESH_S: Final = 300.0
"""Silence after which the device subscribes again, and so gets task and manifest again, and announces itself again: a
broker whose queue for us, or for the aggregator, was full may have dropped any of it without a word."""
REFRESH_JITTER: Final = 1.5
"""Longest time between two looks for silence, as a share of the shortest: else a fleet that was switched on at one
moment would announce itself at one moment, and overflow the same queue again."""


class Presence:
    """When one device says that it is there, and what it says."""

    def __init__(  # noqa: PLR0913 - all but three go by name
        self,
        identity: Identity,
        trainer: Trainer,
        topics: Topics,
        *,
        link: Callable[[], Connection | None],
        pace: Callable[[float], None],
        come_back: Callable[[], None],
        begin: Callable[[Coroutine[object, object, None]], object],
        random: Random,
        clock: Callable[[], float],
    ) -> None:
        """Announce over the connection that `link` gives.

        pace(seconds): hears over how long the fleet is to spread what all of it would do at once.
        come_back(): is called when the aggregator may have missed what was sent over this connection.
        begin(work): begins a task, and looks after it.
        """
        self._identity, self._trainer, self._topics = identity, trainer, topics
        self._link, self._pace, self._come_back, self._begin = link, pace, come_back, begin
        self._random, self._clock = random, clock
        self._heard = clock()
        self._aggregator_life: tuple[bytes, int] | None = None
        self.spread_s = 0.0

    # --- what it says -------------------------------------------------------------------------------------------------

    def birth(self) -> Outgoing:
        """Return the birth certificate."""
        layout, trainer = self._trainer.layout, self._trainer
        return self._status(
            Birth(
                alive=True,
                session=self._identity.session,
                layout=layout.digest,
                examples=trainer.examples,
                trainer=trainer.name,
                software=f"fedmq {__version__}",
            )
        )

    def farewell(self) -> Outgoing:
        """Return what is said on leaving, by the device or, where that cannot, by the broker."""
        return self._status(Birth(alive=False, session=self._identity.session))

    def _status(self, birth: Birth) -> Outgoing:
        return Outgoing(self._topics.status(self._identity.name), encode(birth), retain=True)

    # --- when it says it ----------------------------------------------------------------------------------------------

    async def greet(self, connection: Connection) -> None:
        """Announce the device, and subscribe to all that concerns it. Raises TransportError."""
        await connection.publish(self.birth())
        await self._subscribe(connection)

    async def _subscribe(self, connection: Connection) -> None:
        await connection.subscribe(*self._topics.device_filters(self._identity.name))

    def hear(self) -> None:
        """Note that something has come: it is not silent."""
        self._heard = self._clock()

    async def refresh_forever(self) -> None:
        """Look for silence now and then, and after a long one subscribe and announce again."""
        while True:
            await asyncio.sleep(REFRESH_S * self._random.uniform(1.0, REFRESH_JITTER))
            connection = self._link()
            if connection is not None and self._clock() - self._heard >= REFRESH_S:
                with contextlib.suppress(TransportError):
                    await self._subscribe(connection)
                    await connection.publish(self.birth())

    def herald(self, beacon: Beacon, *, live: bool) -> None:
        """Come back when the aggregator has started anew: be announced again, and return to what has no receipt.

        What it had not yet written, it lost.

        So too when it came after us, and was not there (its beacon `live`, not retained) when we sent. All devices hear
        of that at once, and come back one after the other.
        """
        if not beacon.alive:
            return
        self.spread_s = min(beacon.spread_s, LONGEST_S)
        self._pace(self.spread_s)
        life = beacon.run, beacon.epoch
        if life != self._aggregator_life:
            anew, self._aggregator_life = live or self._aggregator_life is not None, life
            connection = self._link()
            if anew and connection is not None:
                pause = self._random.uniform(0.0, self.spread_s)
                asyncio.get_running_loop().call_later(pause, self._be_back, connection)

    def _be_back(self, connection: Connection) -> None:
        if self._link() is connection:  # else the next connection has done so, or will
            self._begin(self._announce_again(connection))
            self._come_back()

    async def _announce_again(self, connection: Connection) -> None:
        """Repeat the birth: of all that stand the broker may have room for so many in its queue for the aggregator."""
        with contextlib.suppress(TransportError):
            await connection.publish(self.birth())
