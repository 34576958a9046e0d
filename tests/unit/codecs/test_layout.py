import numpy as np
import pytest

from fedmq.codecs.layout import Dense, Packed, Planes, usual_layout
from fedmq.codecs.stages import Alphabet
from fedmq.errors import DecodeError

FLOAT = Alphabet("<f4")


def test_dense_is_little_endian_in_order() -> None:
    assert Dense().encode(np.array([1, -2], dtype="<f4"), (2,), FLOAT).hex() == "0000803f000000c0"


def test_planes_put_equal_places_together_least_significant_first() -> None:
    symbols = np.frombuffer(bytes.fromhex("010203041112131421222324"), dtype="<f4")
    assert Planes().encode(symbols, (3,), FLOAT).hex() == "011121021222031323041424"


@pytest.mark.parametrize("layout", [Dense(), Planes()])
@pytest.mark.parametrize("length", [0, 11, 13, 24])
def test_another_length_is_refused(layout: Dense | Planes, length: int) -> None:
    with pytest.raises(DecodeError, match=rf"data holds {length} bytes of symbols, the model has 12"):
        layout.decode(bytes(length), (1, 2), FLOAT)


def test_planes_are_for_symbols_of_several_bytes() -> None:
    assert Planes().accepts(FLOAT)
    assert not Planes().accepts(Alphabet("i1", -127, 127))


def test_packed_counts_from_the_lowest_symbol_and_fills_bytes_from_their_lowest_bit() -> None:
    ternary = Alphabet("i1", -1, 1)
    symbols = np.array([-1, 0, 1, 1, 0], dtype="i1")
    assert Packed().encode(symbols, (5,), ternary).hex() == "a401"  # 00 01 10 10 and 01, from the right
    assert Packed().encode(symbols.astype("<i2"), (5,), Alphabet("<i2", -1, 1)).hex() == "a401"
    assert Packed().encode(np.array([5, 1, 7], dtype="u1"), (3,), Alphabet("u1", 0, 7)).hex() == "cd01"


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 1000])
@pytest.mark.parametrize(
    ("low", "high", "dtype"),
    [(0, 1, "u1"), (-1, 1, "i1"), (-4, 3, "i1"), (-7, 7, "i1"), (-50, 77, "i1"), (200, 201, "u1"),
     (-2047, 2047, "<i2"), (-30000, -29990, "<i2"), (0, 511, "<u2")],
)  # fmt: skip
def test_packed_gives_the_symbols_back_from_no_more_bits_than_they_need(
    low: int, high: int, dtype: str, count: int
) -> None:
    alphabet = Alphabet(dtype, low, high)
    symbols = np.random.default_rng(count).integers(low, high, count, endpoint=True).astype(dtype)
    body = Packed().encode(symbols, (count,), alphabet)
    assert len(body) == -(-count * alphabet.bits // 8) == Packed().most_bytes((count,), alphabet)
    decoded = Packed().decode(body, (count,), alphabet)
    assert decoded.dtype == np.dtype(dtype)
    assert np.array_equal(decoded, symbols)


def test_packed_decodes_symbols_that_the_codec_then_refuses() -> None:
    ternary = Alphabet("i1", -1, 1)
    assert not ternary.holds(Packed().decode(b"\3", (1,), ternary))


@pytest.mark.parametrize("body", ["", "ff", "ffffff"])
def test_packed_of_another_length_is_refused(body: str) -> None:
    with pytest.raises(DecodeError, match=rf"data holds {len(body) // 2} bytes of symbols, the model has 2"):
        Packed().decode(bytes.fromhex(body), (4, 5), Alphabet("u1", 0, 1))


@pytest.mark.parametrize("last", [2, 4, 0x80])
def test_bits_behind_the_last_symbol_are_refused(last: int) -> None:
    with pytest.raises(DecodeError, match="data has bits behind its last symbol"):
        Packed().decode(bytes([0, last]), (4, 5), Alphabet("u1", 0, 1))


def test_what_needs_fewer_bits_than_its_bytes_have_is_packed_unless_a_line_says_otherwise() -> None:
    assert usual_layout(Alphabet("i1", -7, 7)) == Packed()
    assert usual_layout(Alphabet("i1", -127, 127)) == usual_layout(FLOAT) == Dense()
