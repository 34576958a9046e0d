from __future__ import annotations

import pytest

from fedmq.errors import DecodeError
from fedmq.rules.fold import MOST_COUNT, Tally, pack, unpack

TAG = b"the tag."
TALLY = Tally.of(1.0, changed=False).plus(Tally.of(2.0, changed=True))


def test_counts_come_back() -> None:
    counts = (0, 2, 2 * (MOST_COUNT - 1))
    assert unpack(TAG, pack(TAG, TALLY, counts, [b"lane"]), 3) == (TALLY, counts, [b"lane"])


def test_a_count_that_no_updates_give_does_not_load() -> None:
    data = pack(TAG, TALLY, (2 * MOST_COUNT + 1,), [b"lane"])
    with pytest.raises(DecodeError, match=r"counted .* of 2 updates"):
        unpack(TAG, data, 1)
