"""The replica: forward by right frames, unmoved by any other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fedmq.aggregator.downlink import Downlink
from fedmq.aggregator.modelling import Modelling
from fedmq.aggregator.settings import Encoding, Federation
from fedmq.codecs import parse
from fedmq.device.replica import Replica
from fedmq.errors import DecodeError, MessageError, Refused
from fedmq.protocol.frames import Step
from fedmq.protocol.messages import Frame, Manifest
from fedmq.testing.federation import SMALL
from fedmq.wire.envelope import encode

RUN = b"run-0001"
ENCODING = Encoding(down=parse("int8"), keyframe_every=10, key=parse("half"))


def course(versions: int) -> tuple[Manifest, dict[Step, bytes]]:
    """Return the manifest of the last of so many versions, and the frames that stand."""
    downlink = Downlink(ENCODING, RUN, SMALL.sizes)
    random = np.random.default_rng(1)
    weights = downlink.first(random.normal(size=SMALL.size).astype(np.float32))
    for version in range(2, versions + 1):
        vector = weights.vector + random.normal(size=SMALL.size).astype(np.float32)
        weights = downlink.then(weights, version, vector, {})
    modelling = Modelling(Federation("f", encoding=ENCODING), RUN, SMALL, weights)
    return modelling.manifest(), {each.step: each.body for each in weights.frames}


MANIFEST, FRAMES = course(4)
ALL = list(FRAMES.items())


def holding() -> Replica:
    replica = Replica(SMALL.sizes)
    replica.advance(MANIFEST, ALL)
    return replica


def refuses(replica: Replica, manifest: Manifest, frames: list[tuple[Step, bytes]], says: str) -> None:
    """Check that these frames are refused, and change nothing."""
    before = replica.run, replica.version, replica.vector
    with pytest.raises((DecodeError, MessageError, Refused), match=says):
        replica.advance(manifest, frames)
    assert (replica.run, replica.version, replica.vector) == before


def test_a_replica_cannot_be_written_to() -> None:
    vector = holding().vector
    assert vector is not None
    assert not vector.flags.writeable


def test_frames_that_do_not_follow_on_are_refused() -> None:
    refuses(Replica(SMALL.sizes), MANIFEST, ALL[1:], "the delta to model 2 does not follow on model 0")
    refuses(
        Replica(SMALL.sizes), MANIFEST, [ALL[0], *ALL[2:]], "the delta to model 3 does not follow on model 1"
    )
    refuses(
        holding(), replace(MANIFEST, run=b"run-0002", version=5), [(Step(5), ALL[3][1])], "does not follow on"
    )
    refuses(Replica(SMALL.sizes), MANIFEST, ALL[:-1], "the frames lead to model 3, not to 4")
    refuses(Replica(SMALL.sizes), MANIFEST, [], "the frames lead to model 0")


def test_another_digest_is_refused() -> None:
    refuses(
        Replica(SMALL.sizes), replace(MANIFEST, replica=bytes(8)), ALL, "another digest than the aggregator's"
    )


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "Frame: not a fedmq message|not a fedmq message"),
        (encode(Frame("int8", "", b"")), "data has 0 bytes"),
        (encode(Frame("int99", "", b"")), "a codec that this fedmq does not have: there is no stage `int99`"),
        (encode(Frame("float32", "", bytes(4 * SMALL.size + 4))), "was it for another"),
        (ALL[3][1].replace(b"\xa4int8\xa0", b"\xa4int8\xa5int99"), "does not have"),
    ],
)
def test_a_frame_that_cannot_be_read_is_refused(body: bytes, says: str) -> None:
    refuses(Replica(SMALL.sizes), MANIFEST, [*ALL[:3], (Step(4), body)], says)


def test_another_length_empties_it() -> None:
    replica = holding()
    replica.resize(SMALL.sizes)
    assert replica.version == 4
    replica.resize((*SMALL.sizes, 5))
    assert (replica.run, replica.version, replica.vector) == (b"", 0, None)
