import numpy as np
import pytest

from fedmq.codecs import parse
from fedmq.codecs.quantise import block_peaks
from fedmq.vectors import Vector

FLOAT_MAX = np.finfo(np.float32).max


def through(line: str, *values: float, seed: int = 0) -> list[float]:
    """What `values`, as one block, decode to."""
    vector = np.array(values, dtype=np.float32)
    codec = parse(line)
    decoded: list[float] = codec.decode(
        codec.encode(vector, (vector.size,), seed=seed), (vector.size,)
    ).tolist()
    return decoded


def test_int8_rounds_to_nearest_and_ties_to_even() -> None:
    assert through("int8", 127, 0.5, 1.5, 2.5, -0.5, -1.5, 2.4, 2.6) == [127, 0, 2, 2, 0, -2, 2, 3]


def test_int8_keeps_the_largest_magnitude_of_each_block_exactly() -> None:
    vector = np.array([0.1, -0.3, 1e-45, 3e-45, FLOAT_MAX, -1], dtype=np.float32)
    decoded = parse("int8").decode(parse("int8").encode(vector, (2, 2, 2)), (2, 2, 2))
    assert decoded[[1, 3, 4]].tolist() == vector[[1, 3, 4]].tolist()


def test_int8_blocks_do_not_disturb_each_other() -> None:
    vector = np.array([1e-6, -5e-7, 1e6], dtype=np.float32)
    decoded = parse("int8").decode(parse("int8").encode(vector, (2, 1)), (2, 1))
    assert np.allclose(decoded, vector, rtol=0.01, atol=0)


def test_int8_is_one_byte_a_number_and_four_a_block() -> None:
    message = parse("int8").encode(np.array([0, 254, -2, 2.9], dtype=np.float32), (3, 0, 1))
    assert message.hex() == "00007e43000000009a993940007fff7f"


def test_stochastic_rounding_goes_to_a_neighbour_as_often_as_it_is_near() -> None:
    draws = np.array(through("int8(stochastic)", 127, *[3.25] * 4000, *[-3.25] * 4000)[1:])
    assert set(draws[:4000]) == {3, 4}
    assert set(draws[4000:]) == {-3, -4}
    assert abs(draws[:4000].mean() - 3.25) < 0.04  # 6 standard deviations of the mean
    assert abs(draws[4000:].mean() + 3.25) < 0.04


def test_stochastic_rounding_leaves_the_grid_alone_and_follows_the_seed() -> None:
    grid = [float(level) for level in range(-127, 128)]
    assert through("int8(stochastic)", *grid, seed=7) == grid
    between = [127.0, *[0.5] * 64]
    assert through("int8(stochastic)", *between, seed=1) != through("int8(stochastic)", *between, seed=2)


def test_stochastic_rounding_compares_philox_words_with_the_fraction() -> None:
    # Seed 0, stream 1: the words' upper 24 bits, as fractions, decide (docs/reference/codecs.md).
    from fedmq.codecs.counter import words

    draws = (words(0, 1, 9) >> np.uint32(8)) / 2**24
    expected = [127.0, *(float(draw < 0.5) for draw in draws[1:])]
    assert through("int8(stochastic)", 127, *[0.5] * 8) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1 + 2.0**-11, 1.0),  # a tie: to even
        (1 + 3 * 2.0**-11, 1 + 2.0**-9),
        (65504.0, 65504.0),
        (65520.0, 65504.0),  # where binary16 would round to infinity
        (FLOAT_MAX, 65504.0),
        (-1e9, -65504.0),
        (2.0**-24, 2.0**-24),  # the smallest of binary16
        (2.0**-25, 0.0),
    ],
)
def test_float16_rounds_to_nearest_even_and_saturates(value: float, expected: float) -> None:
    assert through("float16", value) == [expected]


@pytest.mark.parametrize(
    ("vector", "sizes", "peaks"),
    [
        ([], (), []),
        ([], (0, 0), [0, 0]),
        ([-3, 2], (0, 2, 0), [0, 3, 0]),
        ([1, -2, 3], (1, 2), [1, 3]),
        ([1, -2, 0], (2, 0, 1), [2, 0, 0]),
    ],
)
def test_peaks_are_per_block(vector: list[float], sizes: tuple[int, ...], peaks: list[float]) -> None:
    found: Vector = block_peaks(np.array(vector, dtype=np.float32), sizes)
    assert found.tolist() == peaks
