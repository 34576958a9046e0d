"""The device's copy of the published model, and the way frames bring it forward."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from fedmq.codecs import parse
from fedmq.errors import ConfigError, DecodeError, MessageError
from fedmq.protocol.seeds import frame_seed
from fedmq.vectors import fingerprint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fedmq.codecs import Codec
    from fedmq.protocol.messages import Frame
    from fedmq.vectors import Vector


class Replica:
    """Starts empty; `advance` applies frames one after the other, each checked by its digests."""

    def __init__(self, sizes: Sequence[int]) -> None:
        """Hold a vector of a layout with these block sizes."""
        self._sizes = tuple(sizes)
        self.version = 0
        self.vector: Vector | None = None

    def resize(self, sizes: Sequence[int]) -> None:
        """Hold vectors of these block sizes from now on; be empty where they were others."""
        if tuple(sizes) != self._sizes:
            self._sizes = tuple(sizes)
            self.forget()

    def forget(self) -> None:
        """Be empty again."""
        self.version, self.vector = 0, None

    def advance(self, run: bytes, frame: Frame, body: bytes) -> None:
        """Decode the frame and go to its version.

        Raises MessageError or DecodeError when the frame does not follow on, does not decode, or a digest is wrong; the
        replica is unchanged then.
        """
        if hashlib.sha256(body).digest() != frame.digest:
            raise MessageError(f"the bytes of model frame {frame.version} do not have the manifest's digest")
        decoded = self._codec(frame.codec).decode(body, self._sizes, seed=frame_seed(run, frame.version))
        vector = decoded if frame.base == 0 else self._base(frame) + decoded
        if fingerprint(vector) != frame.replica:
            raise DecodeError(f"model {frame.version} came out with another digest than the aggregator's")
        vector.setflags(write=False)
        self.vector, self.version = vector, frame.version

    def _codec(self, spelling: str) -> Codec:
        try:
            return parse(spelling)
        except ConfigError as error:
            raise MessageError(f"the model comes in a codec that this fedmq does not have: {error}") from None

    def _base(self, frame: Frame) -> Vector:
        if self.vector is None or self.version != frame.base:
            raise MessageError(
                f"model frame {frame.version} builds on {frame.base}, the replica is {self.version}"
            )
        return self.vector
