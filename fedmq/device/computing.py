"""Where devices compute: one device by itself, or those of one process together.

Devices of one process hear the same messages, and get the same models by the same frames. What one of them has decoded
and checked the others need not: `Shared` hands it to each that has the same bytes before it, and for a model to each
that holds the same one before. So a thousand devices hold one vector between them, and decode it once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, cast

from fedmq.wire.envelope import MessageT, decode

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Executor

    from fedmq.device.outbox import Stored
    from fedmq.device.replica import Replica
    from fedmq.device.training import Training
    from fedmq.protocol.frames import Step
    from fedmq.protocol.messages import Manifest, Message, Task
    from fedmq.vectors import Vector

    Frames = Sequence[tuple[Step, bytes]]

REMEMBERED: Final = 4
"""Ways from model to model that are remembered: that of the round, and of those who are late or new."""
MESSAGES: Final = 16
"""Messages that are remembered: a round's task, its manifest, the chunks of a short frame."""
SHORT_BYTES: Final = 8192
"""Longest message that is remembered: to look for a longer one would take as long as to decode it."""


class Computing(Protocol):
    """Does a device's decoding, training and encoding; called on the event loop, and does not hold it up."""

    def read(self, payload: bytes, kind: type[MessageT]) -> MessageT:
        """Return the message; see `fedmq.wire.envelope.decode`."""

    async def advance(self, replica: Replica, manifest: Manifest, frames: Frames) -> None:
        """Take the replica forward; see `Replica.advance`."""

    async def answer(self, training: Training, task: Task, model: Vector) -> Stored:
        """Return what the device answers; see `Training.answer`."""


class Alone:
    """Computes for one device, in threads."""

    def __init__(self, executor: Executor | None = None) -> None:
        """Train on `executor`, a default thread pool where there is none."""
        self._executor = executor

    def read(self, payload: bytes, kind: type[MessageT]) -> MessageT:
        """Return the message."""
        return decode(payload, kind)

    async def advance(self, replica: Replica, manifest: Manifest, frames: Frames) -> None:
        """Take the replica forward in a thread."""
        await asyncio.to_thread(replica.advance, manifest, frames)

    async def answer(self, training: Training, task: Task, model: Vector) -> Stored:
        """Train, encode and store in the executor."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, training.answer, task, model)


@dataclass(frozen=True, slots=True, eq=False)
class _Way:
    """How one replica has come from one model to the next."""

    before: Vector | None
    sizes: Sequence[int]
    manifest: Manifest
    frames: Frames
    after: Vector

    def fits(self, replica: Replica, manifest: Manifest, frames: Frames) -> bool:
        """Tell whether the replica stands where this one stood, and has the same before it."""
        return (
            self.before is replica.vector
            and self.manifest == manifest
            and self.sizes == replica.sizes
            and self.frames == frames
        )


class Shared:
    """What the devices of one process have in common of messages and models: each is decoded once."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._messages: dict[tuple[type, bytes], Message] = {}
        self._ways: deque[_Way] = deque(maxlen=REMEMBERED)
        self._turn = asyncio.Lock()

    def read(self, payload: bytes, kind: type[MessageT]) -> MessageT:
        """Return the message, the very one that another device has read where there is such."""
        if len(payload) > SHORT_BYTES:
            return decode(payload, kind)
        known = self._messages.get((kind, payload))
        if known is not None:
            return cast("MessageT", known)
        message = self._messages[kind, payload] = decode(payload, kind)
        if len(self._messages) > MESSAGES:
            del self._messages[next(iter(self._messages))]
        return message

    async def advance(self, replica: Replica, manifest: Manifest, frames: Frames) -> None:
        """Take the replica to the model that another has come to from here; in a thread where it is the first."""
        if self._lead(replica, manifest, frames):
            return
        async with self._turn:
            if self._lead(replica, manifest, frames):  # someone was faster
                return
            before = replica.vector
            await asyncio.to_thread(replica.advance, manifest, frames)
            if replica.vector is not None:
                self._ways.append(_Way(before, replica.sizes, manifest, frames, replica.vector))

    def _lead(self, replica: Replica, manifest: Manifest, frames: Frames) -> bool:
        for way in reversed(self._ways):  # nearly all come by the newest
            if way.fits(replica, manifest, frames):
                replica.adopt(manifest, way.after)
                return True
        return False


class Together:
    """Computes for all devices of one process: they share what they hold of the models, and train on one executor."""

    def __init__(self, executor: Executor | None = None) -> None:
        """Train on `executor`, as `Alone` does."""
        self._shared, self._alone = Shared(), Alone(executor)

    def read(self, payload: bytes, kind: type[MessageT]) -> MessageT:
        """Return the message; see `Shared`."""
        return self._shared.read(payload, kind)

    async def advance(self, replica: Replica, manifest: Manifest, frames: Frames) -> None:
        """Take the replica forward; see `Shared`."""
        await self._shared.advance(replica, manifest, frames)

    async def answer(self, training: Training, task: Task, model: Vector) -> Stored:
        """Train, encode and store in the executor."""
        return await self._alone.answer(training, task, model)
