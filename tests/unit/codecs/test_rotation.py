import numpy as np
import pytest

from fedmq.codecs.rotation import Rotate
from fedmq.errors import ConfigError, Refused
from fedmq.vectors import Vector

NORMAL = np.random.default_rng(0).standard_normal(101_770).astype(np.float32)


def hadamard(count: int) -> np.ndarray:
    """Sylvester's matrix by its own definition, apart from the code's."""
    places, odd = np.arange(count), np.zeros((count, count), dtype=np.intp)
    for digit in range(count.bit_length()):
        odd ^= (places[:, None] & places[None, :]) >> digit & 1
    return 1.0 - 2.0 * odd


@pytest.mark.parametrize(
    ("count", "block", "blocks"),
    [
        (0, 4096, ()),
        (1, 4096, (1,)),
        (3, 4096, (2, 1)),
        (9, 4096, (8, 2)),  # 9 is 1001, rounded up to three digits: 101 · 2
        (600, 4096, (512, 128)),
        (4095, 4096, (4096,)),
        (4096, 4096, (4096,)),
        (4097, 4096, (4096, 1)),
        (10_000, 4096, (4096, 4096, 2048)),
        (101_770, 4096, (4096,) * 24 + (2048, 1024, 512)),
        (11, 2, (2, 2, 2, 2, 2, 1)),
    ],
)
def test_whole_blocks_then_up_to_three_smaller_ones(count: int, block: int, blocks: tuple[int, ...]) -> None:
    assert Rotate(block).sizes((count,)) == blocks
    assert Rotate(block).sizes((count, 0)) == blocks


def test_few_zeros_are_added() -> None:
    for count in range(1, 9000, 13):
        blocks = Rotate().sizes((count,))
        assert count <= sum(blocks) <= count * 1.25
        assert sum(block < 4096 for block in blocks) <= 3


@pytest.mark.parametrize("count", [1, 2, 3, 31, 33, 64, 100, 5000, 101_770])
@pytest.mark.parametrize("block", [2, 32, 64, 4096, 65536])
def test_it_keeps_norms_and_turns_back(count: int, block: int) -> None:
    vector, stage = NORMAL[:count], Rotate(block)
    turned = stage.encode(vector, (count,), 5)
    assert turned.dtype == np.float32
    assert np.linalg.norm(turned) == pytest.approx(np.linalg.norm(vector), rel=1e-5)
    assert np.abs(stage.decode(turned, (count,), 5) - vector).max() < 1e-5


@pytest.mark.parametrize("power", [*range(1, 10), 11])
def test_a_block_is_its_signs_and_then_hadamards_transform(power: int) -> None:
    count = 1 << power
    matrix = hadamard(count) / np.sqrt(count)
    impulses = np.eye(count, dtype=np.float32)[[0, count // 3, count - 1]]
    rows = [Rotate(count).encode(impulse, (count,), 9) for impulse in impulses]
    for row, place in zip(rows, (0, count // 3, count - 1), strict=True):
        assert np.allclose(np.abs(row @ matrix), np.eye(count)[place], atol=1e-5)
        assert np.allclose(np.abs(row), 1 / np.sqrt(count), atol=1e-6)


def test_what_stood_in_one_place_is_spread_evenly() -> None:
    spike = np.zeros(4096, dtype=np.float32)
    spike[77] = 64
    assert set(np.abs(Rotate().encode(spike, (4096,), 1)).tolist()) == {1.0}


def test_seeds_flip_other_signs() -> None:
    one, same, other = (Rotate().encode(NORMAL[:100], (100,), seed) for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.allclose(np.abs(one), np.abs(other))


def test_blocks_are_turned_apart_from_each_other() -> None:
    first = Rotate(8).encode(NORMAL[:20], (20,), 3)
    changed = NORMAL[:20].copy()
    changed[9] += 1
    second = Rotate(8).encode(changed, (20,), 3)
    assert np.flatnonzero(first != second).tolist() == list(range(8, 16))


def test_sums_of_whole_numbers_are_exact_whatever_the_order() -> None:
    """As `eden` gives them: 31 · 87 · 4,096 is below 2²⁴, so all machines decode to the same bits."""
    numbers = np.random.default_rng(1).choice([-10_788.0, -60, 12, 0, 10_788], 1024).astype(np.float32)
    exact = (hadamard(1024) @ numbers.astype(np.float64)) / 32
    decoded = Rotate().decode(numbers * np.float32(2.0**-20), (1024,), 8)
    assert np.array_equal(np.abs(decoded), np.abs(exact).astype(np.float32) * np.float32(2.0**-20))


def test_zeros_are_plus_zero() -> None:
    decoded = Rotate().decode(-np.zeros(64, dtype=np.float32), (64,), 8)
    assert not np.signbit(decoded).any()


@pytest.mark.parametrize("vector", [[3e19], [2e19, 0.0], [-1e38, 1e38]])
def test_a_norm_beyond_two_to_the_64_is_refused(vector: list[float]) -> None:
    numbers: Vector = np.array(vector, dtype=np.float32)
    with (
        np.errstate(all="ignore"),
        pytest.raises(
            Refused, match=r"the vector's norm is beyond 2⁶⁴ or not a number, `rotate` takes smaller ones"
        ),
    ):
        Rotate().encode(numbers, (numbers.size,), 0)


@pytest.mark.parametrize("block", [-4, 0, 1, 3, 4095, 1 << 17])
def test_a_block_that_is_no_power_of_two_is_refused(block: int) -> None:
    with pytest.raises(
        ConfigError, match=f"rotate has no blocks of {block}: choose a power of two from 2 to 65536"
    ):
        Rotate(block)
