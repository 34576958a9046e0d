import numpy as np
import pytest

from fedmq.codecs.layout import Dense, Planes
from fedmq.codecs.stages import Alphabet
from fedmq.errors import DecodeError

FLOAT = Alphabet("<f4")


def test_dense_is_little_endian_in_order() -> None:
    assert Dense().encode(np.array([1, -2], dtype="<f4"), (2,)).hex() == "0000803f000000c0"


def test_planes_put_equal_places_together_least_significant_first() -> None:
    symbols = np.frombuffer(bytes.fromhex("010203041112131421222324"), dtype="<f4")
    assert Planes().encode(symbols, (3,)).hex() == "011121021222031323041424"


@pytest.mark.parametrize("layout", [Dense(), Planes()])
@pytest.mark.parametrize("length", [0, 11, 13, 24])
def test_another_length_is_refused(layout: Dense | Planes, length: int) -> None:
    with pytest.raises(DecodeError, match=rf"data holds {length} bytes of symbols, the model has 12"):
        layout.decode(bytes(length), (1, 2), FLOAT)


def test_planes_are_for_symbols_of_several_bytes() -> None:
    assert Planes().accepts(FLOAT)
    assert not Planes().accepts(Alphabet("i1", 127))
