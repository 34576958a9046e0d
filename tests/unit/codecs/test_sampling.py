import numpy as np
import pytest

from fedmq.codecs.counter import words
from fedmq.codecs.sampling import Sample
from fedmq.errors import ConfigError, Refused


@pytest.mark.parametrize(
    ("share", "sizes", "counts"),
    [
        (0.05, (), ()),
        (0.05, (0, 0), (0, 0)),
        (0.05, (1, 9, 20, 29, 30, 4096), (1, 1, 1, 1, 2, 205)),  # 1.45 and 1.5 of them: to nearest, ties up
        (0.5, (1, 2, 3, 0, 100), (1, 1, 2, 0, 50)),
        (1.0, (1, 2, 3, 0), (1, 2, 3, 0)),
        (1e-6, (5, 4096), (1, 1)),
    ],
)
def test_a_share_of_each_block_is_taken(
    share: float, sizes: tuple[int, ...], counts: tuple[int, ...]
) -> None:
    assert Sample(share).sizes(sizes) == counts
    kept = Sample(share).encode(np.ones(sum(sizes), dtype=np.float32), sizes, 3)
    assert kept.tolist() == [1.0] * sum(counts)


def test_one_number_of_each_run_is_taken_by_one_word_of_philox() -> None:
    # 10 numbers in 3 runs of 3, 3 and 4; then 4 in 1: the words' share of the run says which (the reference page)
    vector = np.arange(14, dtype=np.float32)
    starts, lengths = [0, 3, 6, 10], [3, 3, 4, 4]
    for seed in range(20):
        draws = words(seed, 3, 4).tolist()
        wanted = [start + (w * length >> 32) for w, start, length in zip(draws, starts, lengths, strict=True)]
        assert Sample(0.3).encode(vector, (10, 4), seed).tolist() == wanted


def test_it_decodes_to_zeros_and_each_number_times_the_length_of_its_run() -> None:
    vector = np.arange(1, 15, dtype=np.float32)
    kept = Sample(0.3).encode(vector, (10, 4), 7)
    decoded = Sample(0.3).decode(kept, (10, 4), 7)
    assert np.count_nonzero(decoded) == 4
    places = np.flatnonzero(decoded)
    assert (decoded[places] / vector[places]).tolist() == [3, 3, 4, 4]


def test_all_numbers_are_taken_equally_often_and_their_mean_is_the_vector() -> None:
    vector, sizes, seeds = np.arange(1, 31, dtype=np.float32), (23, 7), 4000
    stage = Sample(0.21)  # 5 of 23 and 1 of 7: runs of 4, 5, 4, 5, 5 and 7
    total = np.zeros(30)
    for seed in range(seeds):
        total += stage.decode(stage.encode(vector, sizes, seed), sizes, seed)
    deviation = vector * np.sqrt(np.repeat([4, 5, 4, 5, 5, 7], [4, 5, 4, 5, 5, 7]) - 1) / np.sqrt(seeds)
    assert np.all(np.abs(total / seeds - vector) < 4.5 * deviation)


def test_the_whole_share_is_the_vector() -> None:
    vector = np.random.default_rng(1).standard_normal(50).astype(np.float32)
    assert np.array_equal(Sample(1.0).encode(vector, (40, 10), 5), vector)
    assert np.array_equal(Sample(1.0).decode(vector, (40, 10), 5), vector)


def test_only_what_is_taken_must_have_a_norm_below_two_to_the_64() -> None:
    vector = np.array([3e38, 1, 3e38, 1], dtype=np.float32)
    outcomes = set()
    for seed in range(64):
        try:
            with np.errstate(over="ignore"):
                kept = Sample(0.5).encode(vector, (4,), seed)
        except Refused:
            outcomes.add("refused")
            continue
        assert np.isfinite(Sample(0.5).decode(kept, (4,), seed)).all()
        outcomes.add("taken")
    assert outcomes == {"refused", "taken"}


@pytest.mark.parametrize("share", [-0.5, 0.0, 1e-7, 1.0001])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(ConfigError, match=f"sample takes no share of {share}: choose one from 1e-06 to 1"):
        Sample(share)
