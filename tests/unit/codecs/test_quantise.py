import numpy as np
import pytest

from fedmq.codecs import grid, parse
from fedmq.codecs.grid import block_norms, block_peaks
from fedmq.errors import ConfigError, DecodeError
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


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1 + 2.0**-8, 1.0),  # a tie: to even
        (1 + 3 * 2.0**-8, 1 + 2.0**-6),
        (-1 - 2.0**-8 - 2.0**-20, -1 - 2.0**-7),
        (float(FLOAT_MAX), (2 - 2.0**-7) * 2.0**127),  # where rounding would reach infinity
        (-float(FLOAT_MAX), -(2 - 2.0**-7) * 2.0**127),
        (2.0**-133, 2.0**-133),  # the smallest of bfloat16
        (2.0**-134, 0.0),
        (0.0, 0.0),
    ],
)
def test_bfloat16_rounds_to_nearest_even_and_saturates(value: float, expected: float) -> None:
    assert through("bfloat16", value) == [expected]


def test_bfloat16_is_the_upper_half_of_float32() -> None:
    assert parse("bfloat16").encode(np.array([1, -2, -0.0], dtype=np.float32), (3,)).hex() == "803f00c00080"


@pytest.mark.parametrize("bits", ["807f", "80ff", "c07f", "ffff"])
def test_bfloat16_that_is_not_finite_is_refused(bits: str) -> None:
    with pytest.raises(DecodeError, match="data decodes to NaN or infinity"):
        parse("bfloat16").decode(bytes.fromhex(bits), (1,))


def test_int4_and_int2_have_seven_steps_and_one() -> None:
    assert through("int4", 7, 0.4, -0.6, 3.4, -7) == [7, 0, -1, np.float32(np.float32(3 / 7) * 7), -7]
    assert through("int2", 7, 3.4, 3.6, -4, 3.5) == [7, 0, 7, -7, 0]
    assert len(parse("int4").encode(np.ones(9, dtype=np.float32), (4, 5))) == 8 + 5
    assert len(parse("int2").encode(np.ones(9, dtype=np.float32), (4, 5))) == 8 + 3


@pytest.mark.parametrize("line", ["int4(stochastic)", "int2(stochastic)", "qsgd", "qsgd(7, bucket=64)"])
def test_fewer_steps_at_random_are_right_in_the_mean(line: str) -> None:
    values = [7.0, *[2.3] * 4000]
    draws = np.array(through(line, *values)[1:])
    assert len(set(draws.tolist())) >= 2
    assert abs(draws.mean() - 2.3) < 6 * draws.std() / 4000**0.5


def test_qsgd_counts_in_steps_of_each_buckets_norm() -> None:
    vector = np.array([3, 4, 0, -2, 0.5], dtype=np.float32)
    codec = parse("qsgd(2, bucket=2)")
    quantised = codec.quantiser.encode(vector, (4, 1), 0)
    assert quantised.scales.tolist() == [5, 2, 0.5]
    assert quantised.symbols[2:].tolist() == [0, -2, 2]
    assert codec.decode(codec.encode(vector, (4, 1)), (4, 1))[2:].tolist() == [0, -2, 0.5]
    assert codec.quantiser.bound(vector, (5,)) == pytest.approx([2.5, 2.5, 1, 1, 0.25], rel=1e-5)


def test_qsgd_leaves_most_numbers_at_zero() -> None:
    vector = np.random.default_rng(0).standard_normal(5120).astype(np.float32)
    sent = np.count_nonzero(parse("qsgd").quantiser.encode(vector, (5120,), 0).symbols)
    assert sent == pytest.approx(10 * 512**0.5 * 0.8, rel=0.1)  # per bucket, the 1-norm over the 2-norm


def test_norms_of_huge_numbers_stay_finite() -> None:
    assert through("qsgd(7)", float(FLOAT_MAX), -float(FLOAT_MAX))[0] <= FLOAT_MAX
    assert block_norms(np.array([FLOAT_MAX, FLOAT_MAX, 3], dtype=np.float32), (2, 0, 1)).tolist() == [
        FLOAT_MAX,
        0,
        3,
    ]


@pytest.mark.parametrize("levels", ["0", "128"])
def test_qsgd_of_too_few_or_too_many_levels_is_refused(levels: str) -> None:
    with pytest.raises(ConfigError, match=rf"qsgd has {levels} levels: choose 1 to 127"):
        parse(f"qsgd({levels})")


def test_qsgd_of_empty_buckets_is_refused() -> None:
    with pytest.raises(ConfigError, match="qsgd takes buckets of 0 numbers: choose 1 or more"):
        parse("qsgd(1, bucket=0)")


def test_bfloat16_is_off_by_half_a_unit_at_most() -> None:
    numbers = np.random.default_rng(0).standard_t(1, 2000).astype(np.float32)
    codec = parse("bfloat16")
    errors = np.abs(codec.decode(codec.encode(numbers, (2000,)), (2000,)).astype(np.float64) - numbers)
    assert np.all(errors <= codec.bound(numbers, (2000,)))
    assert np.max(errors / np.abs(numbers)) > 2.0**-8 * 0.95


def test_a_whole_number_of_steps_stays_whatever_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid, "fractions", lambda *_: np.zeros(4, dtype=np.float32))
    assert grid.drawn(np.array([-2, 0, 3, 0.001], dtype=np.float32), 0).tolist() == [-2, 0, 3, 1]
