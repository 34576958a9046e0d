"""The counter generator against the paper's algorithm in plain integers, and against its authors' known answer."""

import numpy as np
import pytest

from fedmq.codecs.counter import words

MASK = (1 << 64) - 1


def philox(counter: list[int], key: tuple[int, int]) -> list[int]:
    """Philox4x64-10 as in the paper's section 4.3."""
    a, b, c, d = counter
    k, m = key
    for _ in range(10):
        left, right = a * 0xD2E7470EE14C6C93, c * 0xCA5A826395121157
        a, b, c, d = (right >> 64) ^ b ^ k, right & MASK, (left >> 64) ^ d ^ m, left & MASK
        k, m = (k + 0x9E3779B97F4A7C15) & MASK, (m + 0xBB67AE8584CAA73B) & MASK
    return [a, b, c, d]


def test_the_oracle_gives_the_authors_known_answer() -> None:
    # Random123, kat_vectors, first line of philox4x64 with 10 rounds.
    answer = [0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B]
    assert philox([0, 0, 0, 0], (0, 0)) == answer


@pytest.mark.parametrize("seed", [0, 1, MASK, 0x0123456789ABCDEF])
@pytest.mark.parametrize("stream", [1, 2])
@pytest.mark.parametrize("count", [0, 1, 2, 7, 8, 19])
def test_words_are_philox_from_counter_one_low_word_first(seed: int, stream: int, count: int) -> None:
    outputs = [out for n in (1, 2, 3) for out in philox([n, 0, 0, 0], (seed, stream))]
    expected = [half for out in outputs for half in (out & 0xFFFFFFFF, out >> 32)]
    assert words(seed, stream, count).tolist() == expected[:count]


def test_a_shorter_draw_is_the_beginning_of_a_longer_one() -> None:
    assert np.array_equal(words(5, 1, 11), words(5, 1, 1000)[:11])
