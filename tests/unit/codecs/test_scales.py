import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedmq.codecs.scales import Binary32, Octets


def near(scales: list[float], draw: float = 0.0) -> list[float]:
    rounded: list[float] = (
        Octets().near(np.array(scales), np.full(len(scales), draw, dtype=np.float32)).tolist()
    )
    return rounded


def test_binary32_is_four_bytes_a_scale() -> None:
    scales = np.array([1, 0, 2.5], dtype=np.float32)
    assert Binary32().size(3) == 12 == len(Binary32().write(scales))
    assert np.array_equal(Binary32().read(Binary32().write(scales)), scales)


@pytest.mark.parametrize(
    ("scales", "data"),
    [
        ([], ""),
        ([0.0], "0000"),
        ([0.0, 0.0], "000000"),
        ([31.0], "87ff"),  # 31 · 2^14 units of 2^(135 - 149)
        ([32.0], "88f0"),  # one more is 16 · 2^15 with the next unit, and 32 · 2^14 is not sayable
        ([1.0, 2.0, 0.9375], "84e0f0de"),
    ],
)
def test_octets_are_a_unit_and_a_byte_each(scales: list[float], data: str) -> None:
    written = Octets().write(np.array(scales, dtype=np.float32))
    assert written.hex() == data
    assert len(written) == Octets().size(len(scales))
    assert Octets().read(written).tolist() == scales


def test_scales_are_rounded_to_five_significant_bits_down_or_up() -> None:
    scales = [32.0, 33.0, 36.5, 62.0, 63.0, 1.03, 2.0**-40]
    assert near(scales, 0.0) == [32, 32, 36, 62, 62, 1, 0]
    assert near(scales, 1 - 2.0**-24) == [32, 34, 38, 62, 64, 1.0625, 0]


def test_small_scales_are_whole_units_and_the_mean_over_draws_is_the_scale() -> None:
    draws = ((np.arange(1000) + 0.5) / 1000).astype(np.float32)
    for scale in (1.0, 1.03, 1.9, 0.3, 1e-4, 1e-9):
        means = [
            Octets().near(np.array([scale, 1.99]), np.array([d, d])).astype(np.float64)[0] for d in draws
        ]
        assert np.mean(means) == pytest.approx(scale, abs=0.001 * (scale / 16 + 2.0**-17))


scale_arrays = hnp.arrays(np.float64, st.integers(0, 30), elements=st.floats(0, 2.0**120))


@given(scales=scale_arrays, draw=st.floats(0, 1 - 2.0**-24, width=32))
def test_what_is_rounded_is_near_and_reads_back_exactly(scales: np.ndarray, draw: float) -> None:
    rounded = Octets().near(scales, np.full(scales.size, draw, dtype=np.float32))
    assert rounded.dtype == np.float32
    assert np.array_equal(Octets().read(Octets().write(rounded)), rounded)
    unit = scales.max(initial=0.0) * 2.0**-18 + 2.0**-149
    assert np.all(np.abs(rounded - scales) <= np.maximum(scales / 16, unit))


@given(data=st.binary(min_size=2, max_size=20))
def test_any_bytes_are_scales(data: bytes) -> None:
    scales = Octets().read(data)
    assert scales.shape == (len(data) - 1,)
    assert np.isfinite(scales).all()
    assert not np.signbit(scales).any()
    assert np.array_equal(Octets().read(Octets().write(scales)), scales)


@given(data=st.data(), count=st.integers(1, 5), length=st.integers(0, 4))
def test_several_rows_are_each_as_alone(data: st.DataObject, count: int, length: int) -> None:
    """Also where the largest of one is just not sayable in its unit, and that of another is."""
    some = st.one_of(
        st.floats(0, 2.0**120), st.sampled_from((31.0, 31.5, 2.5 * 2.0**-14, 32.0, 2.0**-149, 0.0))
    )
    scales = data.draw(hnp.arrays(np.float64, (count, length), elements=some))
    rounded = Octets().near(scales, np.full((count, length), 0.5, dtype=np.float32))
    alone = [Octets().near(row, np.full(length, 0.5, dtype=np.float32)) for row in scales]
    assert [row.tolist() for row in rounded] == [row.tolist() for row in alone]
    written = Octets().write_all(list(rounded))
    assert written == [Octets().write(row) for row in alone]
    assert [row.tolist() for row in Octets().read_all(written)] == [row.tolist() for row in alone]
