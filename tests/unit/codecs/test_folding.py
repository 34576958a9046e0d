import numpy as np
import pytest

from fedmq.codecs.counter import words
from fedmq.codecs.folding import Fold
from fedmq.errors import ConfigError, Refused
from fedmq.vectors import Vector


def signs(count: int, seed: int) -> np.ndarray:
    """The stream's bits by their definition: bit i mod 32 of word i / 32."""
    drawn = words(seed, 5, -(-count // 32)).tolist()
    return np.array([-1 if drawn[i // 32] >> i % 32 & 1 else 1 for i in range(count)], dtype=np.float32)


@pytest.mark.parametrize(
    ("layers", "count", "length"),
    [(20, 0, 0), (20, 1, 1), (20, 20, 1), (20, 21, 2), (3, 7, 3), (50, 101_770, 2036)],
)
def test_a_layer_is_a_part_of_the_whole_vector(layers: int, count: int, length: int) -> None:
    assert Fold(layers).sizes((count,)) == Fold(layers).sizes((0, count)) == (length,)


@pytest.mark.parametrize("layers", [2, 3, 20, 1000])
@pytest.mark.parametrize("count", [1, 2, 19, 64, 70_001])
def test_it_is_the_sum_of_layers_with_signs_and_back(layers: int, count: int) -> None:
    vector = np.random.default_rng(count).integers(-9, 9, count).astype(np.float32)
    flipped = np.zeros(-(-count // layers) * layers, dtype=np.float32)
    flipped[:count] = vector * signs(count, 6)
    folded = flipped.reshape(layers, -1).sum(axis=0)
    assert np.array_equal(Fold(layers).encode(vector, (count,), 6), folded)
    unfolded = (np.tile(folded, layers)[:count]) * signs(count, 6)
    assert np.array_equal(Fold(layers).decode(folded, (count,), 6), unfolded)


def test_the_mean_over_seeds_is_the_vector_and_the_error_of_one_the_other_layers() -> None:
    vector: Vector = np.random.default_rng(1).standard_t(3, 300).astype(np.float32)
    stage, seeds = Fold(6), 2000
    decoded = np.array(
        [stage.decode(stage.encode(vector, (300,), seed), (300,), seed) for seed in range(seeds)],
        dtype=np.float64,
    )
    norm = np.sum(vector.astype(np.float64) ** 2)
    assert np.mean(np.sum((decoded - vector) ** 2, axis=1)) / norm == pytest.approx(5, rel=0.05)
    assert np.sum((decoded.mean(axis=0) - vector) ** 2) / norm == pytest.approx(5 / seeds, rel=0.3)


def test_a_norm_beyond_two_to_the_64_is_refused() -> None:
    with np.errstate(over="ignore"), pytest.raises(Refused, match="`fold` takes smaller ones"):
        Fold().encode(np.array([1e38, 0], dtype=np.float32), (2,), 0)


@pytest.mark.parametrize("layers", [-1, 0, 1, 10_001])
def test_layers_that_are_none_or_too_many_are_refused(layers: int) -> None:
    with pytest.raises(ConfigError, match=f"fold has no {layers} layers: choose 2 to 10000"):
        Fold(layers)
