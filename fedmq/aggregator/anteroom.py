"""Where updates of an asynchronous federation wait in memory for the next buffer.

They come at any time: also while the model moves, and when as many as the buffer takes are in already. Those are not
journaled for a buffer that has no use for them, and not asked for again; they wait here, in the order in which they
came, with the questions about them. What does not fit goes the ordinary way, and is asked for again.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from fedmq.protocol.ledger import Key
    from fedmq.wire.topics import QueryTopic, UpdateTopic

    Place: TypeAlias = UpdateTopic | QueryTopic

WAITING_BYTES: Final = 8 * 2**20
"""Bytes of updates that may wait."""


class Anteroom:
    """A bounded queue before a buffer of `most` updates; with 0, for rounds that have no such limit, nobody waits."""

    def __init__(self, most: int = 0) -> None:
        """Begin with nobody in it."""
        self._most = most
        self._shut = False
        self._whole: set[Key] = set()
        self._waiting: deque[tuple[Place, bytes]] = deque()
        self._bytes = 0

    def shut(self) -> None:
        """Let nobody through until the next buffer begins: the model moves."""
        self._shut = self._most > 0

    def begin(self) -> None:
        """Let the first through, into a buffer that is empty."""
        self._shut = False
        self._whole.clear()

    def whole(self, key: Key) -> None:
        """Note that an update is in the buffer, whole."""
        self._whole.add(key)

    def gone(self, key: Key) -> None:
        """Note that an update is in the buffer no more: it was no good, or another takes its place."""
        self._whole.discard(key)

    @property
    def lets_through(self) -> bool:
        """Whether the buffer has a use for more."""
        return not self._shut and (not self._most or len(self._whole) < self._most)

    def keep(self, place: Place, payload: bytes) -> bool:
        """Keep a message back if it has to wait and there is room; say whether it is kept."""
        if self.lets_through or self._bytes + len(payload) > WAITING_BYTES:
            return False
        self._waiting.append((place, payload))
        self._bytes += len(payload)
        return True

    def next(self) -> tuple[Place, bytes] | None:
        """Return the message whose turn it is; None where nobody waits, or all have to wait on."""
        if not self._waiting or not self.lets_through:
            return None
        place, payload = self._waiting.popleft()
        self._bytes -= len(payload)
        return place, payload
