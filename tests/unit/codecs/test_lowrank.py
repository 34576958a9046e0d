import numpy as np
import pytest

from fedmq.codecs import parse
from fedmq.codecs.lowrank import Lowrank, shapes
from fedmq.errors import ConfigError
from fedmq.vectors import Vector


@pytest.mark.parametrize(
    ("sizes", "found"),
    [
        ((), []),
        ((0, 1, 7), [(0, 1), (1, 1), (7, 1)]),
        ((12, 4), [(3, 4), (2, 2)]),  # a kernel and its bias
        ((12, 12), [(4, 3), (4, 3)]),  # no bias: as long as the block itself
        ((12, 1), [(4, 3), (1, 1)]),
        ((12, 5), [(4, 3), (5, 1)]),
        ((100_352, 128, 1280, 10), [(784, 128), (16, 8), (128, 10), (5, 2)]),
        ((5 * 5 * 3 * 8, 8, 36), [(75, 8), (4, 2), (6, 6)]),
    ],
)
def test_a_kernel_is_known_by_the_bias_behind_it(
    sizes: tuple[int, ...], found: list[tuple[int, int]]
) -> None:
    assert [tuple(shape) for shape in shapes(sizes)] == found


def matrix(rank: int, rows: int = 30, columns: int = 20) -> Vector:
    chance = np.random.default_rng(rank)
    product = chance.standard_normal((rows, rank)) @ chance.standard_normal((rank, columns))
    return product.astype(np.float32).ravel()


def test_a_matrix_of_no_higher_rank_comes_back_whole() -> None:
    stage, sizes = Lowrank(3), (600, 20)
    numbers = np.concatenate((matrix(3), np.arange(20, dtype=np.float32)))
    coded = stage.encode(numbers, sizes, 7)
    assert stage.sizes(sizes) == (90, 60, 20)
    assert coded.size == 170
    assert np.array_equal(coded[150:], numbers[600:])
    assert np.allclose(stage.decode(coded, sizes, 7), numbers, atol=1e-5)


@pytest.mark.parametrize("rank", [1, 4, 7])
def test_the_error_is_near_the_least_of_that_rank(rank: int) -> None:
    spread = np.random.default_rng(rank).standard_normal((40, 25)) * 0.7 ** np.arange(25)
    best = float(np.linalg.norm(np.linalg.svd(spread)[1][rank:]))
    numbers = np.concatenate((spread.ravel(), np.zeros(25))).astype(np.float32)
    decoded = Lowrank(rank).decode(Lowrank(rank).encode(numbers, (1000, 25), 5), (1000, 25), 5)
    assert best < np.linalg.norm(decoded - numbers) < 1.3 * best


def test_factors_are_of_like_size_and_small_blocks_stay_as_they_are() -> None:
    numbers = matrix(1) * np.float32(1e30)
    coded = Lowrank(1).encode(np.append(numbers, np.zeros(20, np.float32)), (600, 20), 0)
    left, right = coded[:30], coded[30:50]
    assert np.linalg.norm(left) == pytest.approx(np.linalg.norm(right), rel=1e-5)
    assert Lowrank(4).sizes((12, 4)) == (12, 4)
    assert Lowrank(3).sizes((600, 20, 599)) == (90, 60, 20, 599)
    assert [Lowrank(rank).sizes((600, 20)) for rank in (6, 7)] == [(180, 120, 20), (600, 20)]
    assert Lowrank(1).encode(numbers[:4], (4,), 0).tolist() == numbers[:4].tolist()


def test_zeros_come_back_as_zeros_and_huge_products_are_cut_to_finite_numbers() -> None:
    zeros = np.zeros(620, dtype=np.float32)
    assert not Lowrank(2).decode(Lowrank(2).encode(zeros, (600, 20), 1), (600, 20), 1).any()
    huge = np.full(50, 3e38, dtype=np.float32)
    decoded = Lowrank(1).decode(np.append(huge, zeros[:20]), (600, 20), 0)
    assert np.all(decoded[:600] == np.finfo(np.float32).max)
    assert parse("lowrank(1) | float32").encode(
        np.append(np.full(600, 3e38, np.float32), zeros[:20]), (600, 20)
    )


def test_the_start_follows_the_seed() -> None:
    numbers = np.random.default_rng(0).standard_normal(620).astype(np.float32)
    first, again, other = (Lowrank(2).encode(numbers, (600, 20), seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("rank", ["0", "-1", "65"])
def test_a_rank_that_makes_no_sense_is_refused(rank: str) -> None:
    with pytest.raises(ConfigError, match=rf"lowrank has no rank {rank}: choose 1 to 64"):
        parse(f"lowrank({rank}) | int8")


def test_the_bound_holds_for_factors_that_are_off_by_as_much_as_their_own() -> None:
    stage, sizes, chance = Lowrank(2), (600, 20), np.random.default_rng(4)
    numbers = chance.standard_normal(620).astype(np.float32)
    coded = stage.encode(numbers, sizes, 1)
    inner = np.full(coded.size, 0.01)
    bound = stage.bound(numbers, sizes, 1, inner)
    for _ in range(20):
        off = (coded + chance.choice([-0.01, 0.01], coded.size)).astype(np.float32)
        errors = np.abs(stage.decode(off, sizes, 1) - numbers)
        assert np.all(errors <= bound + 1e-6)
    assert bound[600:] == pytest.approx(0.01)
    exact = stage.bound(numbers, sizes, 1, 0 * inner)
    assert exact[:600] == pytest.approx(np.abs(stage.decode(coded, sizes, 1) - numbers)[:600], abs=1e-5)
