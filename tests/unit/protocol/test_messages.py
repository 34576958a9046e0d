from __future__ import annotations

import hashlib

from fedmq.protocol.messages import Verdict
from fedmq.protocol.seeds import frame_seed, update_seed


def test_all_verdicts_but_retry_settle_an_update() -> None:
    assert [verdict for verdict in Verdict if not verdict.settled] == [Verdict.RETRY]


def test_seeds_are_the_hashes_of_the_specification() -> None:
    update = hashlib.sha256(b"run" + (7).to_bytes(8, "big") + b"id").digest()[:8]
    frame = hashlib.sha256(b"runframe" + (7).to_bytes(8, "big")).digest()[:8]
    assert update_seed(b"run", 7, b"id") == int.from_bytes(update, "big")
    assert frame_seed(b"run", 7) == int.from_bytes(frame, "big")
