"""The device's copy of the published model, and the way frames bring it forward."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedmq.codecs import parse
from fedmq.errors import ConfigError, DecodeError, Refused
from fedmq.protocol.messages import Frame
from fedmq.protocol.seeds import frame_seed
from fedmq.vectors import fingerprint
from fedmq.wire import limits
from fedmq.wire.envelope import decode

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fedmq.codecs import Codec
    from fedmq.protocol.frames import Step
    from fedmq.protocol.messages import Manifest
    from fedmq.vectors import Vector


class Replica:
    """Starts empty; `advance` takes it forward, to a version whose digest is right or not at all."""

    def __init__(self, sizes: Sequence[int]) -> None:
        """Hold a vector of a layout with these block sizes."""
        self._sizes = tuple(sizes)
        self.run, self.version = b"", 0
        self.vector: Vector | None = None

    def resize(self, sizes: Sequence[int]) -> None:
        """Hold vectors of these block sizes from now on; be empty where they were others."""
        if tuple(sizes) != self._sizes:
            self._sizes = tuple(sizes)
            self.forget()

    @property
    def sizes(self) -> tuple[int, ...]:
        """The block sizes of the vectors that it holds."""
        return self._sizes

    def forget(self) -> None:
        """Be empty again."""
        self.run, self.version, self.vector = b"", 0, None

    def advance(self, manifest: Manifest, frames: Iterable[tuple[Step, bytes]]) -> None:
        """Take one frame after the other and go to the manifest's version; the replica is as it was until the last.

        Raises MessageError or DecodeError when a frame cannot be read or does not follow on, or when the digest is
        another than the manifest's; Refused for a codec that is not here.
        """
        run, version, vector = self.run, self.version, self.vector
        for step, body in frames:
            if not step.key and (vector is None or (run, version) != (manifest.run, step.version - 1)):
                raise DecodeError(f"the delta to model {step.version} does not follow on model {version}")
            vector = self._after(frame_seed(manifest.run, step.version), body, None if step.key else vector)
            run, version = manifest.run, step.version
        if vector is None or version != manifest.version:
            raise DecodeError(f"the frames lead to model {version}, not to {manifest.version}")
        if fingerprint(vector)[: limits.DIGEST] != manifest.replica:
            raise DecodeError(f"model {version} came out with another digest than the aggregator's")
        vector.setflags(write=False)
        self.run, self.version, self.vector = run, version, vector

    def adopt(self, manifest: Manifest, vector: Vector) -> None:
        """Go to where another replica's `advance` has come, by the same frames, from the vector that this one holds."""
        self.run, self.version, self.vector = manifest.run, manifest.version, vector

    def _after(self, seed: int, body: bytes, before: Vector | None) -> Vector:
        """Return the replica behind a frame: a key-frame where there is nothing `before`."""
        frame = decode(body, Frame)
        vector = _codec(frame.codec).decode(frame.data, self._sizes, seed=seed)
        if before is not None:
            vector += before
        return _codec(frame.rounded).rounded(vector, self._sizes, seed=seed) if frame.rounded else vector


def _codec(line: str) -> Codec:
    try:
        return parse(line)
    except ConfigError as error:
        raise Refused(f"the model comes in a codec that this fedmq does not have: {error}") from None
