from __future__ import annotations

import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmq.protocol.cohort import cohort_size, draw_salt, in_cohort, members

NAMES = [f"device-{number}" for number in range(4000)]


@pytest.mark.parametrize("device", ["ada", "bø", "x" * 64])
def test_membership_is_the_keyed_hash_of_the_specification(device: str) -> None:
    word = int.from_bytes(hmac.digest(b"salt", device.encode(), "sha256")[:8], "big")
    threshold = word / 2**64
    assert in_cohort(device, b"salt", min(1.0, threshold * (1 + 1e-9)))
    assert not in_cohort(device, b"salt", threshold * (1 - 1e-9))


@given(st.text(), st.binary(min_size=1, max_size=16))
def test_everybody_is_in_a_whole_cohort_and_nobody_in_an_empty_one(device: str, salt: bytes) -> None:
    assert in_cohort(device, salt, 1.0)
    assert not in_cohort(device, salt, 0.0)


@given(st.binary(min_size=1, max_size=16), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_fraction_keeps_who_was_in(salt: bytes, one: float, other: float) -> None:
    small, large = sorted((one, other))
    assert all(in_cohort(name, salt, large) for name in NAMES[:50] if in_cohort(name, salt, small))


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9])
def test_about_the_wanted_share_is_in(fraction: float) -> None:
    share = cohort_size(NAMES, b"any salt", fraction) / len(NAMES)
    assert share == pytest.approx(fraction, abs=0.03)


def test_salts_differ_by_round_attempt_and_federation() -> None:
    salts = {
        draw_salt(seed, round_, attempt) for seed in (b"a", b"b") for round_ in (1, 2) for attempt in (0, 1)
    }
    assert len(salts) == 8
    assert {len(salt) for salt in salts} == {16}


def test_every_devices_turn_comes() -> None:
    salts = [draw_salt(b"seed", round_, 0) for round_ in range(100)]
    turns = [sum(in_cohort(name, salt, 0.2) for salt in salts) for name in NAMES[:100]]
    assert min(turns) > 0


@given(st.binary(min_size=16, max_size=16), st.sampled_from([0.0, 2**-64, 0.01, 0.3, 1 - 2**-53, 1.0]))
def test_members_are_those_that_are_in_the_cohort(salt: bytes, fraction: float) -> None:
    devices = [f"device-{number}" for number in range(40)]
    found = [device for device in devices if in_cohort(device, salt, fraction)]
    assert list(members(devices, salt, fraction)) == found
