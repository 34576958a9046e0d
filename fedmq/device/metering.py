"""Counting what a link carries, day by day, and how much of a day's limit is left.

The count is on disk, in a file of one line: ``<day> <bytes>``. So that an SD card is spared, bytes are written down
before they are used, a fiftieth of the limit at a time; a device that is switched off without a word counts as having
used what was written, which errs on the side of the bill.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from fedmq.errors import ConfigError, StoreError
from fedmq.protocol.quantities import ByteCount, spell_bytes
from fedmq.store.files import disk, make_folder, write_whole
from fedmq.store.trouble import DISK_PAUSE_S, Trouble

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

log = logging.getLogger(__name__)

COUNT_WAITS: Final = "what the link carries cannot be written down, and a limited link carries no more"
DAY_S: Final = 86_400
WRITES: Final = 50
"""Times that the count is written on a day that uses its limit up."""
FRAMING_BYTES: Final = 64
"""What a message costs beside topic and payload: MQTT's header, TCP's and IP's, some of its acknowledgement."""


@dataclass(frozen=True, slots=True)
class LinkTable:
    """``[link]``: what the device's link costs.

    metered: count what goes up and down. bytes_per_day: most of both in a day (UTC); when they are used up the device
    fetches, trains and sends no more until the next day. What it has stored waits.
    """

    metered: bool = False
    bytes_per_day: ByteCount | None = None

    def __post_init__(self) -> None:
        """Raise ConfigError for a limit that nothing fits in, or one of a link that is not metered."""
        if self.bytes_per_day is not None and not self.metered:
            raise ConfigError("bytes_per_day is given of a link that is not metered: say metered = true too")
        if self.bytes_per_day is not None and self.bytes_per_day < 1:
            raise ConfigError(f"bytes_per_day is {self.bytes_per_day}; it must be 1 or more")

    def meter(self, folder: Path) -> Meter | None:
        """Return the meter whose count is in `folder`; None for a link that is not metered. Raises StoreError."""
        return Meter(self.bytes_per_day, make_folder(folder) / "traffic") if self.metered else None


class Meter:
    """One link's count of today's bytes."""

    def __init__(
        self, limit: int | None, path: Path | None = None, *, clock: Callable[[], float] = time.time
    ) -> None:
        """Go on with the count at `path`, or keep one in memory; `clock` gives Unix time. Raises StoreError."""
        self.limit = limit
        self._path, self._clock = path, clock
        self._trouble = Trouble(COUNT_WAITS, waits="the link's count waits for it")
        self._again = 0.0
        self._step = max(1, (limit or 1_000_000) // WRITES)
        self._day, self._used = self._read()
        self._written = self._used

    @property
    def used(self) -> int:
        """Bytes of today."""
        self._turn()
        return self._used

    @property
    def left(self) -> int | None:
        """Bytes that the link may still carry today, at least 0; None where it has no limit.

        While the count cannot be written it is 0: a device that is switched off then would not know what it has used.
        """
        if self.limit is None:
            return None
        if self._trouble.lasts:
            self._write(self._used + self._step)
        return 0 if self._trouble.lasts else max(0, self.limit - self.used)

    async def tomorrow(self) -> None:
        """Wait for the next day."""
        await asyncio.sleep((self._today() + 1) * DAY_S - self._clock())

    def count(self, topic: str, payload: bytes) -> None:
        """Count one message, up or down."""
        self._turn()
        self._used += len(topic.encode()) + len(payload) + FRAMING_BYTES
        if self._used > self._written:
            self._write(self._used + self._step)

    def close(self) -> None:
        """Write down what was used, to the byte; a disk that refuses has the last count."""
        self._turn()
        if self._used != self._written:
            self._write(self._used)

    def _turn(self) -> None:
        """Begin a new day where one has begun; a clock that is put back begins none."""
        today = self._today()
        if today > self._day:
            if self._used:
                log.info("the link carried %s on %s (UTC)", spell_bytes(self._used), _date(self._day))
            self._day, self._used, self._written = today, 0, 0

    def _today(self) -> int:
        return int(self._clock() // DAY_S)

    def _read(self) -> tuple[int, int]:
        """Return day and bytes; today and none where there is no count, or none that can be read."""
        if self._path is not None and self._path.exists():
            with disk("read", self._path):
                words = self._path.read_bytes().split()
            if len(words) == 2 and all(word.isdigit() for word in words):  # noqa: PLR2004 - day, bytes
                return int(words[0]), int(words[1])
        return self._today(), 0

    def _write(self, count: int) -> None:
        begin = time.monotonic()
        if begin < self._again:
            return
        try:
            if self._path is not None:
                write_whole(self._path, f"{self._day} {count}\n".encode())
        except StoreError as error:
            self._trouble.refused(error)
            self._again = begin + DISK_PAUSE_S
        else:
            self._trouble.wrote(time.monotonic() - begin)
            self._written, self._again = count, 0.0


def _date(day: int) -> str:
    return datetime.fromtimestamp(day * DAY_S, UTC).date().isoformat()
