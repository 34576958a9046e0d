from statistics import NormalDist

import numpy as np
import pytest

from fedmq.codecs import Codec, parse
from fedmq.codecs.eden import CENTROIDS, Eden
from fedmq.codecs.rotation import Rotate
from fedmq.errors import ConfigError
from fedmq.vectors import Vector

NORMAL = np.random.default_rng(4).standard_normal(100_000).astype(np.float32)
ERRORS = {1: 0.5708, 2: 0.1331, 3: 0.0358, 4: 0.0096}


def heavy(count: int, seed: int = 1) -> Vector:
    """Numbers like a trained delta's: many zeros, few large ones."""
    generator = np.random.default_rng(seed)
    return (generator.standard_t(3, count) * 1e-3 * (generator.random(count) > 0.2)).astype(np.float32)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_centroids_are_those_of_the_normal_distribution(bits: int) -> None:
    normal, magnitudes = NormalDist(), np.array(CENTROIDS[bits - 1]) / 32
    edges = [0.0, *((magnitudes[1:] + magnitudes[:-1]) / 2), 40.0]
    for centroid, low, high in zip(magnitudes, edges[:-1], edges[1:], strict=True):
        mean = (normal.pdf(low) - normal.pdf(high)) / (normal.cdf(high) - normal.cdf(low))
        assert abs(mean - centroid) < 0.03


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_the_error_on_normal_numbers_is_the_known_one(bits: int) -> None:
    stage, sizes = Eden(bits), (2000,) * 50
    decoded = stage.decode(stage.encode(NORMAL, sizes, 0), sizes)
    error = np.sum((decoded - NORMAL) ** 2) / np.sum(NORMAL**2)
    assert error == pytest.approx(ERRORS[bits], rel=0.02, abs=0.0008)  # the rest is the scales' rounding


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_the_scale_keeps_each_blocks_product_with_itself(bits: int) -> None:
    stage, sizes, numbers = Eden(bits), (300, 0, 700), NORMAL[:1000].astype(np.float64)
    decoded = np.mean(
        [stage.decode(stage.encode(NORMAL[:1000], sizes, s), sizes) for s in range(400)], axis=0
    )
    for block in (slice(0, 300), slice(300, 1000)):
        assert np.dot(decoded[block], numbers[block]) == pytest.approx(
            np.dot(numbers[block], numbers[block]), rel=0.01
        )


def test_one_bit_is_the_sign_and_zero_counts_as_positive() -> None:
    quantised = Eden().encode(np.array([-3, 0, 1, -0.0, 1], dtype=np.float32), (5,), 0)
    assert quantised.symbols.tolist() == [0, 1, 1, 1, 1]
    assert quantised.scales[0] in {2.125, 2.25}  # 11 / 5 lies between


def test_symbols_count_centroids_from_the_lowest_up() -> None:
    numbers = np.array([-1.4, -0.4, 0.1, 1.5], dtype=np.float32)
    numbers /= np.sqrt(np.mean(numbers**2))
    assert Eden(2).encode(numbers, (4,), 0).symbols.tolist() == [0, 1, 2, 3]


def test_blocks_of_zeros_decode_to_zeros() -> None:
    vector = np.array([0, 0, 0, 2, -2], dtype=np.float32)
    for bits in (1, 2, 3, 4):
        decoded = Eden(bits).decode(Eden(bits).encode(vector, (3, 2), 1), (3, 2))
        assert not decoded[:3].any()
        assert decoded[3:].any()


LINES = [
    "rotate | eden",
    "rotate | eden(3)",
    "rotate | sample(0.2) | eden",
    "rotate(256) | sample(0.5) | eden(2)",
]


@pytest.mark.parametrize("line", LINES)
def test_averaging_removes_the_error_and_its_size_is_the_stated_one(line: str) -> None:
    """The mean over N seeds has 1/N of the error of one, and the more seeds the less of it is bias."""
    codec, vector, seeds = parse(line), heavy(2000), 300
    decoded = np.array([through(codec, vector, seed) for seed in range(seeds)], dtype=np.float64)
    norm = np.sum(vector.astype(np.float64) ** 2)
    of_one = np.mean(np.sum((decoded - vector) ** 2, axis=1)) / norm
    of_mean = np.sum((decoded.mean(axis=0) - vector) ** 2) / norm
    assert of_one == pytest.approx(expected_error(codec), rel=0.06)
    assert of_mean == pytest.approx(of_one / seeds, rel=0.35)  # a bias of 3 % of the vector would double it


def through(codec: Codec, vector: Vector, seed: int) -> Vector:
    sizes = (vector.size - 100, 100)
    return codec.decode(codec.encode(vector, sizes, seed=seed), sizes, seed=seed)


def expected_error(codec: Codec) -> float:
    share = next((stage.share for stage in codec.transforms if hasattr(stage, "share")), 1.0)
    assert isinstance(codec.quantiser, Eden)
    return (1 + ERRORS[codec.quantiser.bits]) / share - 1


@pytest.mark.parametrize(
    ("line", "most"), [("rotate | sample(0.05) | eden", 690), ("extreme", 300), ("stateless", 690)]
)
def test_messages_for_a_hundred_thousand_numbers_are_as_short_as_promised(line: str, most: int) -> None:
    sizes = (784 * 128, 128, 1280, 10)
    message = parse(line).encode(heavy(101_770), sizes, seed=1)
    assert len(message) == parse(line).most_bytes(sizes) <= most


@pytest.mark.parametrize("line", ["eden", "eden(2)", "sample | eden"])
def test_numbers_that_nothing_has_rotated_are_refused(line: str) -> None:
    bits = "(2)" if "2" in line else ""
    with pytest.raises(ConfigError) as refused:
        parse(line)
    assert f"`eden{bits}` takes all numbers to be alike" in str(refused.value)
    assert str(refused.value).endswith(f"write `rotate | eden{bits}`")


@pytest.mark.parametrize("bits", [-1, 0, 5])
def test_bits_that_it_has_no_centroids_for_are_refused(bits: int) -> None:
    with pytest.raises(ConfigError, match=f"eden has no symbols of {bits} bits: choose 1 to 4"):
        Eden(bits)


@pytest.mark.parametrize(
    ("line", "reproducible"),
    [
        ("int8 | lzma", True),
        ("sample | int8", True),
        ("rotate | sample | eden", True),
        ("rotate | eden(4)", True),
        ("rotate(65536) | eden", True),
        ("rotate(8192) | eden(4)", False),
        ("rotate | int8", False),
        ("rotate | rotate | eden", False),
    ],
)
def test_sums_that_are_not_exact_are_owned_up_to(line: str, reproducible: bool) -> None:  # noqa: FBT001 - a table
    assert parse(line).reproducible == reproducible
    assert parse("rotate | eden").unbiased
    assert Rotate().unbiased
