import numpy as np
import pytest

from fedmq.codecs import parse
from fedmq.codecs.sparse import Deadzone, Ternary, root_mean_square
from fedmq.errors import ConfigError
from fedmq.vectors import Vector

FLOAT_MAX = float(np.finfo(np.float32).max)
TINY = 2.0**-149


def vector(*values: float) -> Vector:
    return np.array(values, dtype=np.float32)


def levels(line: str, numbers: Vector) -> list[int]:
    found: list[int] = parse(line).quantiser.encode(numbers, (numbers.size,), 0).symbols.tolist()
    return found


def through(line: str, numbers: Vector) -> Vector:
    codec = parse(line)
    return codec.decode(codec.encode(numbers, (numbers.size,)), (numbers.size,))


@pytest.mark.parametrize(
    ("values", "expected"),
    [((), 0.0), ((0, 0), 0.0), ((3, -4), 12.5**0.5), ((FLOAT_MAX, FLOAT_MAX), FLOAT_MAX)],
)
def test_root_mean_square(values: tuple[float, ...], expected: float) -> None:
    assert root_mean_square(vector(*values)) == pytest.approx(expected, rel=1e-12)


def test_deadzone_counts_steps_from_the_threshold_on() -> None:
    numbers = vector(*[0.0] * 24, 6.9, -7.1, 14.1, -16.2, 28, *[0] * 71)
    assert root_mean_square(numbers) == pytest.approx(3.665, abs=0.001)
    assert levels("deadzone(1.9)", numbers)[24:29] == [0, -1, 2, -2, 4]
    assert levels("deadzone(1.9, step=2)", numbers)[24:29] == [0, -1, 1, -1, 2]
    assert levels("deadzone(4)", numbers)[24:29] == [0, 0, 0, -1, 1]
    assert not np.any(levels("deadzone(8)", numbers))


def test_deadzone_places_numbers_at_their_mean_in_a_step_so_that_the_sum_of_magnitudes_is_kept() -> None:
    numbers = np.random.default_rng(1).standard_t(3, 5000).astype(np.float32)
    sent = through("deadzone(2)", numbers)
    kept = np.abs(numbers)[sent != 0].sum(dtype=np.float64)
    assert 0 < np.count_nonzero(sent) < 500
    assert np.abs(sent).sum(dtype=np.float64) == pytest.approx(kept, rel=1e-6)
    assert np.array_equal(np.sign(sent[sent != 0]), np.sign(numbers[sent != 0]))


def test_deadzone_sends_its_step_and_its_first_level() -> None:
    numbers = vector(*[0] * 98, 4, -7)
    quantised = Deadzone(4.0, step=0.5).encode(numbers, (50, 50), 0)
    threshold = np.float32(4 * root_mean_square(numbers))
    step = np.float32(0.5) * threshold
    assert quantised.symbols[-2:].tolist() == [1, -3]
    assert quantised.scales.tolist() == [step, np.float32((4 + 7 - 2 * float(step)) / 2)]
    assert len(parse("deadzone").encode(numbers, (50, 50))) == 8 + 100


def test_what_lies_beyond_the_last_step_is_cut_off_and_leaves_the_mean_alone() -> None:
    numbers = vector(*[1e-3] * 99_999, 1000)
    decoded = through("deadzone(0.01, step=1)", numbers)
    threshold = float(np.float32(0.01 * root_mean_square(numbers)))
    assert decoded[0] == 0
    assert decoded[-1] == pytest.approx(127.5 * threshold, rel=1e-5)  # no number but this one: half a step
    mixed = vector(*[0.0] * 99_998, 0.04, 1000)
    assert through("deadzone(0.01)", mixed)[-2:].tolist() == pytest.approx(
        [0.04, 0.04 + 126 * threshold], rel=1e-5
    )


@pytest.mark.parametrize("line", ["deadzone", "deadzone(0.001)", "deadzone(0.1, step=0.001)", "ternary"])
@pytest.mark.parametrize("values", [(), (0,), (0, 0, -0.0), (TINY,), (TINY, 0, -5 * TINY)])
def test_zeros_stay_zeros_and_the_smallest_numbers_do_no_harm(line: str, values: tuple[float, ...]) -> None:
    decoded = through(line, vector(*values))
    assert np.all(decoded[vector(*values) == 0] == 0)
    assert np.all(np.abs(decoded) <= 8 * TINY)


def test_the_largest_numbers_stay_finite() -> None:
    numbers = vector(FLOAT_MAX, -FLOAT_MAX, FLOAT_MAX / 2, 1)
    assert np.abs(through("deadzone(0.3)", numbers)).max() <= FLOAT_MAX
    assert np.abs(through("deadzone(1000)", numbers)).max() <= FLOAT_MAX
    assert through("ternary", vector(FLOAT_MAX, -FLOAT_MAX)).tolist() == [FLOAT_MAX, -FLOAT_MAX]


def test_levels_that_a_hostile_device_sends_are_cut_to_finite_numbers() -> None:
    scales = np.array([FLOAT_MAX, FLOAT_MAX], dtype="<f4").tobytes()
    decoded = parse("deadzone").decode(scales + bytes([127, 0x81, 0]), (3,))
    assert decoded.tolist() == [FLOAT_MAX, -FLOAT_MAX, 0]


@pytest.mark.parametrize("threshold", ["0", "-1", "1001"])
def test_a_threshold_that_makes_no_sense_is_refused(threshold: str) -> None:
    with pytest.raises(ConfigError, match=r"root mean squares: choose above 0, up to 1000"):
        parse(f"deadzone({threshold})")


@pytest.mark.parametrize("step", ["0", "0.0001", "1001"])
def test_a_step_that_makes_no_sense_is_refused(step: str) -> None:
    with pytest.raises(ConfigError, match=r"deadzone's step is .* thresholds: choose one from 0.001 to 1000"):
        parse(f"deadzone(2, step={step})")


def test_ternary_is_signs_times_the_mean_magnitude_of_what_is_not_zero() -> None:
    numbers = vector(0, 1, -4, 0, 4)
    assert Ternary().encode(numbers, (5,), 0).symbols.tolist() == [0, 1, -1, 0, 1]
    assert through("ternary", numbers).tolist() == [0, 3, -3, 0, 3]
    assert Ternary().bound(numbers, (5,)) == pytest.approx([0, 2, 1, 0, 1], abs=1e-5)
    assert parse("ternary").encode(numbers, (2, 3)).hex() == "000040404902"  # 1 2 0 1 2 in two bits each


def test_sparse_ternary_compression_is_a_chain() -> None:
    numbers = vector(0.1, 5, -0.2, 0.3, -3, 0, 0, 0, 0, 0)
    assert through("topk(0.2) | ternary | gaps", numbers).tolist() == [0, 4, 0, 0, -4, 0, 0, 0, 0, 0]


def test_the_error_of_deadzone_is_what_the_page_says() -> None:
    numbers = vector(*[0] * 97, 0.5, 4, -7)
    threshold = 4 * root_mean_square(numbers)
    bound = Deadzone(4.0, step=0.5).bound(numbers, (100,))
    assert bound[0] == pytest.approx(0)
    assert bound[-3:].tolist() == pytest.approx([0.5, threshold / 2, threshold / 2], rel=1e-5)
    beyond = vector(*[0.0] * 99_999, 1000)
    last = root_mean_square(beyond) * 0.01 * 127
    assert Deadzone(0.01).bound(beyond, (100_000,))[-1] == pytest.approx(1000 - last, rel=1e-4)
    decoded = through("deadzone(4, step=0.5)", numbers)
    assert np.all(np.abs(decoded.astype(np.float64) - numbers) <= bound)
