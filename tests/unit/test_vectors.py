"""Vectors and layouts: what is said of them without a framework."""

from __future__ import annotations

import hashlib

import numpy as np

from fedmq.vectors import Layout, Variable, fingerprint, is_finite, is_plain

VECTOR = np.array([1.0, -0.0, np.nan, 1e-40], np.float32)


def test_a_fingerprint_is_of_the_numbers_whatever_their_place_in_memory() -> None:
    wanted = hashlib.sha256(VECTOR.tobytes()).digest()
    assert fingerprint(VECTOR) == wanted
    assert fingerprint(np.repeat(VECTOR, 2)[::2]) == wanted
    assert fingerprint(VECTOR.astype(">f4")) == wanted


def test_plain_bytes_are_told_bit_for_bit() -> None:
    data = VECTOR.tobytes()
    assert is_plain(data, VECTOR)
    assert is_plain(data, np.repeat(VECTOR, 2)[::2])
    assert not is_plain(data, np.abs(VECTOR))
    assert not is_plain(data[:-4], VECTOR)
    assert not is_plain(b"", VECTOR)


def test_trainable_spans_are_the_longest_runs() -> None:
    layout = Layout(
        (
            Variable("a", (2,)),
            Variable("b", (3,)),
            Variable("mean", (1,), "statistic"),
            Variable("own", (9,), scope="personal"),
            Variable("c", (4,)),
        )
    )
    assert layout.trainable_spans == (slice(0, 5), slice(6, 10))
    assert Layout((Variable("mean", (1,), "statistic"),)).trainable_spans == ()


def test_one_number_that_is_not_finite_is_seen_and_large_ones_are_none() -> None:
    for bad in (np.nan, np.inf, -np.inf):
        vector = np.ones(1000, np.float32)
        vector[777] = bad
        assert not is_finite(vector)
    largest = np.full(1000, np.finfo(np.float32).max, np.float32)  # whose squares overflow
    assert is_finite(largest)
    assert is_finite(-largest)
    assert is_finite(np.zeros(0, np.float32))
