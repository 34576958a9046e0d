"""What the aggregator publishes: the model's manifest and frames, and single messages, all of them retained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedmq.transport.interface import Outgoing
from fedmq.wire.chunks import chunk_count, cut
from fedmq.wire.envelope import encode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fedmq.aggregator.board import Board
    from fedmq.aggregator.modelling import Modelling
    from fedmq.protocol.messages import Message
    from fedmq.store.checkpoint import Encoded
    from fedmq.wire.topics import Topics


class Publication:
    """Puts onto the board what is to stand there of the model as it is."""

    def __init__(self, topics: Topics, board: Board, modelling: Modelling, room: int) -> None:
        """Cut frames into chunks of at most `room` bytes."""
        self._topics, self._board, self._modelling, self._room = topics, board, modelling, room

    async def begin(self) -> None:
        """Put up the model, and take down what an earlier life of this process may have left standing."""
        self._board.take_down(self._gone())
        await self._put_model()

    async def cut_anew(self, room: int) -> None:
        """Put the frames up in other chunks, where the broker now takes more or less at a time."""
        if room != self._room:
            self._room = room
            await self._put_model(anew=True)

    async def put(self, topic: str, message: Message) -> None:
        """Put up one message."""
        await self._board.put([Outgoing(topic, encode(message), retain=True)])

    async def put_frames(self, *, anew: bool = False) -> None:
        """Put up the frames that lead to the current version; with `anew`, also those that stand already."""
        standing = set() if anew else set(self._board.topics())
        for encoded in self._modelling.weights.frames:
            if self._topics.frame(encoded.step, 0) not in standing:
                await self._board.put(self._chunks(encoded))

    async def put_manifest(self) -> None:
        """Put up the manifest; its frames have to stand by then."""
        await self.put(self._topics.manifest, self._modelling.manifest())

    async def clear_old_frames(self) -> None:
        """Take down the chunks that are of no frame that stands: of older frames, or of another cutting."""
        frames = self._modelling.weights.frames
        counts = {each.step: chunk_count(len(each.body), self._room) for each in frames}
        places = ((topic, self._topics.parse_frame(topic)) for topic in self._board.topics())
        await self._board.clear(
            [topic for topic, place in places if place is not None and place[1] >= counts.get(place[0], 0)]
        )

    async def _put_model(self, *, anew: bool = False) -> None:
        await self.put_frames(anew=anew)
        await self.put_manifest()
        await self.clear_old_frames()

    def _chunks(self, encoded: Encoded) -> Iterator[Outgoing]:
        for chunk in cut(encoded.body, self._modelling.run, b"", self._room, encoded.digest):
            topic = self._topics.frame(encoded.step, chunk.index)
            yield Outgoing(topic, encode(chunk), retain=True)

    def _gone(self) -> Iterator[str]:
        for step, nbytes in self._modelling.weights.gone:
            for index in range(chunk_count(nbytes, self._room)):
                yield self._topics.frame(step, index)
