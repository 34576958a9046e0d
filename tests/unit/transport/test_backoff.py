from __future__ import annotations

from random import Random

import pytest

from fedmq.errors import MisuseError
from fedmq.transport.backoff import Backoff


def test_delays_fill_a_window_that_doubles_up_to_the_cap() -> None:
    """The first attempts all of it; those that failed the half in which no first attempts are left."""
    random, backoff = Random(1), Backoff(base_s=1.0, cap_s=20.0)
    for attempt, window in enumerate([1.0, 2.0, 4.0, 8.0, 16.0, 20.0, 20.0]):
        least = window / 2 if attempt else 0.0
        delays = [backoff.delay(attempt, random) for _ in range(2_000)]
        assert least <= min(delays) < least + 0.01 * window
        assert 0.99 * window < max(delays) <= window
        assert sum(delays) / len(delays) == pytest.approx((least + window) / 2, rel=0.05)


def test_no_number_of_failures_overflows() -> None:
    assert Backoff(cap_s=60.0).delay(10**9, Random(1)) <= 60.0


def test_after_a_refusal_it_waits_long() -> None:
    delays = [Backoff(cap_s=60.0).refused(Random(seed)) for seed in range(200)]
    assert 30.0 <= min(delays) < max(delays) <= 60.0


@pytest.mark.parametrize("wrong", [{"base_s": 0.0}, {"base_s": 90.0}, {"steady_s": -1.0}])
def test_settings_that_cannot_work(wrong: dict[str, float]) -> None:
    with pytest.raises(MisuseError):
        Backoff(**wrong)
