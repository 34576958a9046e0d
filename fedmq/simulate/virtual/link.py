"""One device's link in virtual time: bytes on their way, until they are through or the link breaks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fedmq.simulate.virtual.clock import Timer
    from fedmq.simulate.virtual.surroundings import Surroundings

Deliver: TypeAlias = "Callable[[int, bytes], None]"
"""Takes a payload that has arrived, with its number among those of one transfer."""


@dataclass(slots=True)
class Transfer:
    """Bytes on their way over a device's link: down, or up, as `payloads` that are delivered one by one."""

    began: float
    seconds: float
    nbytes: int
    payloads: Sequence[bytes] = ()
    deliver: Deliver | None = None
    timer: Timer | None = None


class Link:
    """A link that carries any number of transfers at once, each under a key of its own."""

    def __init__(self, number: int, around: Surroundings, cut: Callable[[], None]) -> None:
        """Carry for device `number`; `cut` is called where the link breaks under a transfer."""
        self._number, self._around, self._cut = number, around, cut
        self._transfers: dict[object, Transfer] = {}

    @property
    def busy(self) -> bool:
        """Whether something is on its way."""
        return bool(self._transfers)

    def fetch(self, key: object, nbytes: int, done: Callable[[], None]) -> None:
        """Carry so many bytes down, after the time that the question for them takes up."""
        population = self._around.population
        seconds = population.world.link.latency_s + population.download_s(self._number, nbytes)
        self._carry(key, Transfer(self._around.clock.now, seconds, nbytes), done)

    def send(
        self, key: object, payloads: Sequence[bytes], deliver: Deliver, done: Callable[[], None]
    ) -> None:
        """Carry these up, one behind the other; what comes through whole is delivered, whatever becomes of the rest."""
        nbytes = sum(map(len, payloads))
        seconds = self._around.population.upload_s(self._number, nbytes)
        self._carry(key, Transfer(self._around.clock.now, seconds, nbytes, payloads, deliver), done)

    def drop(self, key: object) -> None:
        """Give a transfer up, if it is on its way."""
        transfer = self._transfers.pop(key, None)
        if transfer is not None:
            self._broken(transfer)

    def drop_all(self) -> None:
        """Give all up that is on its way: the link is gone."""
        transfers, self._transfers = self._transfers, {}
        for transfer in transfers.values():
            self._broken(transfer)

    def _carry(self, key: object, transfer: Transfer, done: Callable[[], None]) -> None:
        """Carry bytes, unless the link breaks before they are through."""
        self._transfers[key] = transfer
        clock = self._around.clock
        end = clock.now + transfer.seconds
        cut_at = self._around.population.next_cut(self._number, clock.now)
        if cut_at < end:
            transfer.timer = clock.at(cut_at, self._cut)
        else:
            transfer.timer = clock.at(end, partial(self._through, key, done))

    def _through(self, key: object, done: Callable[[], None]) -> None:
        self._count(self._transfers.pop(key), 1.0)
        done()

    def _broken(self, transfer: Transfer) -> None:
        if transfer.timer is not None:
            transfer.timer.cancel()
        passed = self._around.clock.now - transfer.began
        self._count(transfer, passed / transfer.seconds if transfer.seconds else 1.0)

    def _count(self, transfer: Transfer, part: float) -> None:
        """Count what went over the air of a transfer, all or a part of it, and deliver what came through whole."""
        nbytes, up = math.floor(part * transfer.nbytes), transfer.deliver is not None
        self._around.power.radioed(self._number, self._around.clock.now, part * transfer.seconds)
        self._around.traffic.carried(nbytes if up else 0, 0 if up else nbytes)
        if transfer.deliver is not None:
            for at, end in enumerate(accumulate(map(len, transfer.payloads))):
                if end <= nbytes:
                    transfer.deliver(at, transfer.payloads[at])
