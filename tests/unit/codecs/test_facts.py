"""Which codecs leave what they have decoded once as it is, so that all devices hold the same bits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedmq.codecs import QUANTISERS, parse
from tests.unit.codecs.transforms import Flip

if TYPE_CHECKING:
    from fedmq.codecs import Codec
    from fedmq.vectors import Vector

SAYING = [line for stage in QUANTISERS.values() if hasattr(stage, "stable") for line in stage.examples]
STABLE = [codec for codec in map(parse, SAYING) if codec.stable]
SIZES = (3, 0, 9)

floats = st.floats(width=32, allow_nan=False, allow_infinity=False)
small = st.integers(-400, 400).map(lambda steps: steps * 2.0**-149)


def test_who_is_stable() -> None:
    assert {"float32", "float16", "int8"} <= set(map(str, STABLE))
    for line in ("int8(stochastic)",):
        assert not parse(line).stable


def test_a_transform_is_none_of_them() -> None:
    codec = parse("float32")
    flipped = type(codec)(codec.quantiser, transforms=(Flip(),))
    assert (codec.stable, flipped.stable) == (True, False)


@pytest.mark.parametrize("codec", STABLE, ids=str)
@given(
    vector=hnp.arrays(np.float32, sum(SIZES), elements=floats)
    | hnp.arrays(np.float32, sum(SIZES), elements=small)
)
def test_what_was_decoded_once_stays_as_it_is(codec: Codec, vector: Vector) -> None:
    once = codec.rounded(vector, SIZES)
    assert codec.rounded(once, SIZES).tobytes() == once.tobytes()
    again = codec.encode(once, SIZES)
    assert codec.decode(again, SIZES).tobytes() == once.tobytes()


@pytest.mark.parametrize("codec", STABLE, ids=str)
def test_every_level_of_any_peak_comes_back(codec: Codec) -> None:
    """Where rounding is most likely to slip: all levels, at peaks of every size down to the smallest number."""
    levels = np.arange(-127, 128, dtype=np.float64) / 127
    for exponent in range(-149, 127, 3):
        for factor in (1.0, 1.1, 4 / 3, 1.99):
            vector = (levels * (factor * 2.0**exponent)).astype(np.float32)
            once = codec.rounded(vector, (vector.size,))
            assert codec.rounded(once, (vector.size,)).tobytes() == once.tobytes()
