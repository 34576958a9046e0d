import numpy as np
import pytest

from fedmq.codecs import parse
from fedmq.codecs.selection import Threshold, Topk
from fedmq.errors import ConfigError
from fedmq.vectors import Vector


def vector(*values: float) -> Vector:
    return np.array(values, dtype=np.float32)


def kept(stage: Topk | Threshold, *values: float) -> list[float]:
    numbers = vector(*values)
    found: list[float] = stage.encode(numbers, (numbers.size,), 0).tolist()
    return found


def test_topk_keeps_the_largest_magnitudes_as_they_are() -> None:
    assert kept(Topk(0.5), 0.1, -3, 2, -0.5, 1, 0) == [0, -3, 2, 0, 1, 0]
    assert kept(Topk(1.0), 0.1, -3) == kept(Topk(1.0), 0.1, -3)
    assert kept(Topk(1.0), 0.5, -3) == [0.5, -3]


def test_of_equal_numbers_topk_keeps_the_first() -> None:
    assert kept(Topk(0.5), 1, -1, 1, 2, -1, 1) == [1, -1, 0, 2, 0, 0]
    assert kept(Topk(0.5), 0, 0, 0, 0) == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("size", "fraction", "count"), [(0, 0.5, 0), (3, 0.01, 1), (200, 0.01, 2), (250, 0.01, 2)]
)
def test_topk_keeps_its_share_and_at_least_one(size: int, fraction: float, count: int) -> None:
    assert np.count_nonzero(kept(Topk(fraction), *range(1, size + 1))) == count


def test_topk_keeps_as_many_of_any_vector() -> None:
    for seed in range(20):
        numbers = np.random.default_rng(seed).standard_t(2, 999).astype(np.float32)
        found = Topk(0.1).encode(numbers, (999,), 0)
        assert np.count_nonzero(found) == 100
        assert np.abs(found[found != 0]).min() >= np.abs(numbers[found == 0]).max()


def test_threshold_keeps_what_is_as_large_as_so_many_root_mean_squares() -> None:
    assert kept(Threshold(1.0), 1, -7, 5, 0) == [0, -7, 5, 0]
    assert kept(Threshold(1.0), 2, -2, 2) == [2, -2, 2]
    assert kept(Threshold(3.0), 1, -7, 5, 0) == [0, 0, 0, 0]
    assert kept(Threshold(1.0)) == []
    assert kept(Threshold(1e30), 3e38, 1) == [0, 0]


def test_what_is_left_out_is_the_error() -> None:
    numbers = vector(0.1, -3, 2, -0.5)
    inner = np.full(4, 0.25)
    for stage in (Topk(0.5), Threshold(1.0)):
        assert stage.bound(numbers, (4,), 0, inner) == pytest.approx([0.35, 0.25, 0.25, 0.75])


@pytest.mark.parametrize("line", ["topk(0) | int8", "topk(-0.1) | int8", "topk(1.1) | int8"])
def test_a_share_that_makes_no_sense_is_refused(line: str) -> None:
    with pytest.raises(ConfigError, match=r"topk keeps a share of .*: choose one above 0, up to 1"):
        parse(line)


@pytest.mark.parametrize("line", ["threshold(0) | int8", "threshold(-1) | int8"])
def test_a_threshold_that_makes_no_sense_is_refused(line: str) -> None:
    with pytest.raises(ConfigError, match=r"threshold is .* root mean squares: choose one above 0"):
        parse(line)
