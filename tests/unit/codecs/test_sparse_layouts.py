import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmq.codecs.layout import Auto, Dense, Packed
from fedmq.codecs.sparse_layouts import Bitmap, Gaps
from fedmq.codecs.stages import Alphabet, SymbolLayout
from fedmq.errors import DecodeError

TERNARY = Alphabet("i1", -1, 1)
SEVEN = Alphabet("i1", -7, 7)
INT8 = Alphabet("i1", -127, 127)
WIDE = Alphabet("<i2", -300, 300)
HALF = Alphabet("<f2")
FLOAT = Alphabet("<f4")
ALPHABETS = (TERNARY, SEVEN, INT8, WIDE, HALF, FLOAT)


def octets(*pieces: str) -> str:
    """Bits in the order in which they stand, as bytes in hex; digits beyond the last whole bytes are filled up."""
    bits = "".join(pieces).replace(" ", "")
    return bytes(int(bits[at : at + 8][::-1], 2) for at in range(0, len(bits), 8)).hex()


every_layout = pytest.mark.parametrize("layout", [Bitmap(), Gaps(), Auto()], ids=lambda layout: layout.name)


def symbols(alphabet: Alphabet, *values: float) -> np.ndarray:
    return np.array(values, dtype=alphabet.dtype)


@pytest.mark.parametrize(
    ("layout", "alphabet", "values", "body"),
    [
        (Bitmap(), TERNARY, [0, 1, 0, 0, -1], "1202"),
        (Bitmap(), HALF, [0, -0.0, 1], "060000803c"),  # all first bytes, then all second ones
        # how many; e and k; gaps of 1 and 2; signs
        (Gaps(), TERNARY, [0, 1, 0, 0, -1], octets("010", "0000 0000", "01 001", "0 1")),
        # how many; e and k; a gap of 1; the number in its own bytes
        (Gaps(), HALF, [0, 1], octets("10", "0000 0000", "01") + "003c"),
        # how many; e and k; no gaps; signs; one is above 1, after one that is not; it is 3 more than 2 (k = 1)
        (Gaps(), SEVEN, [1, -5],
         octets("01", "0000 0000", "1 1", "0 1", "10", "0000 0000", "01", "0000 1000", "01", "1")),
    ],
)  # fmt: skip
def test_bytes_are_as_the_page_says(
    layout: SymbolLayout, alphabet: Alphabet, values: list[float], body: str
) -> None:
    given = symbols(alphabet, *values)
    found = layout.encode(given, (len(values),), alphabet)
    assert found.hex() == body
    assert layout.decode(found, (len(values),), alphabet).tobytes() == given.tobytes()


@every_layout
@settings(max_examples=40)
@given(data=st.data(), alphabet=st.sampled_from(ALPHABETS), zeros=st.sampled_from([0, 1, 9]))
def test_symbols_read_back_from_no_more_bytes_than_announced(
    layout: SymbolLayout, data: st.DataObject, alphabet: Alphabet, zeros: int
) -> None:
    low, high = alphabet.low or -100, alphabet.high or 100
    values = data.draw(st.lists(st.integers(low, high) | st.sampled_from([0] * zeros or [1]), max_size=60))
    spread = symbols(alphabet, *values)
    sizes = (spread.size // 2, spread.size - spread.size // 2)
    body = layout.encode(spread, sizes, alphabet)
    assert len(body) <= layout.most_bytes(sizes, alphabet)
    decoded = layout.decode(body, sizes, alphabet)
    assert decoded.dtype == np.dtype(alphabet.dtype)
    assert decoded.tobytes() == spread.tobytes()


@every_layout
@pytest.mark.parametrize("alphabet", ALPHABETS, ids=lambda alphabet: f"{alphabet.dtype} {alphabet.high}")
@pytest.mark.parametrize("fill", [0.0, 1.0])
@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 1000])
def test_the_emptiest_and_the_fullest_vectors_are_within_their_bound(
    layout: SymbolLayout, alphabet: Alphabet, fill: float, size: int
) -> None:
    full = symbols(alphabet, *[fill * (alphabet.high or 1e4)] * size)
    body = layout.encode(full, (size,), alphabet)
    assert len(body) <= layout.most_bytes((size,), alphabet)
    assert layout.decode(body, (size,), alphabet).tobytes() == full.tobytes()


def test_random_places_take_little_more_than_their_entropy() -> None:
    size, share = 100_000, 0.02
    chance = np.random.default_rng(1)
    spread = ((chance.random(size) < share) * chance.choice([-1, 1], size)).astype(np.int8)
    share = np.count_nonzero(spread) / size
    entropy = size * (-share * math.log2(share) - (1 - share) * math.log2(1 - share) + share) / 8
    assert entropy < len(Gaps().encode(spread, (size,), TERNARY)) < 1.04 * entropy


def test_gaps_follow_where_a_vector_is_full_and_where_it_is_empty() -> None:
    chance = np.random.default_rng(2)
    even = (chance.random(40_000) < 0.02).astype(np.int8)
    lumpy = np.zeros(40_000, dtype=np.int8)
    lumpy[:4000] = chance.random(4000) < 0.2
    ratio = len(Gaps().encode(lumpy, (40_000,), TERNARY)) / len(Gaps().encode(even, (40_000,), TERNARY))
    assert ratio < 0.7


def test_only_symbols_with_a_zero_in_their_middle_are_accepted() -> None:
    for layout in (Bitmap(), Gaps(), Auto()):
        assert all(layout.accepts(alphabet) for alphabet in ALPHABETS)
        assert not layout.accepts(Alphabet("u1", 0, 3))
        assert not layout.accepts(Alphabet("i1", -4, 3))


REFUSED = [
    (Bitmap(), TERNARY, (9,), "01", "data has 8 bits where 9 must follow"),
    (Bitmap(), TERNARY, (5,), "3202", "bits set where an encoder leaves zeros"),
    (Bitmap(), TERNARY, (5,), "12", "data has 0 bits where 2 must follow"),
    (Bitmap(), TERNARY, (5,), "120200", "data goes on for 1 bytes after its last symbol"),
    (Bitmap(), HALF, (3,), "060080003c00", "data holds 5 bytes of symbols, 4 must follow"),
    (Bitmap(), HALF, (3,), "060000003c", "data holds a zero among the symbols that are not"),
    (Gaps(), TERNARY, (4,), octets("101"), "data has 5 symbols, the model has 4 numbers"),
    (Gaps(), TERNARY, (5,), "", "data has 0 bits where 3 must follow"),
    (Gaps(), TERNARY, (5,), octets("010", "0000 0000", "01 0"), "data ends or strays within 2 runs"),
    (Gaps(), TERNARY, (5,), octets("010", "0000 0000", "01 0001"), "data ends or strays within 2 runs"),
    (Gaps(), TERNARY, (5,), octets("100", "0000 1100", "1", "111"), "data puts a symbol at 7, the model has 5"),
    (Gaps(), TERNARY, (5,), octets("100", "0000 1100", "1", "101"), "data puts a symbol at 5, the model has 5"),
    (Gaps(), TERNARY, (5,), octets("000", "0 1"), "bits set where an encoder leaves zeros"),
    (Gaps(), SEVEN, (1,), octets("1", "0000 0000", "1", "0", "1", "0000 0000", "1", "0000 1100", "1", "011"),
     "data holds a symbol beyond 7"),
    (Auto(), TERNARY, (5,), "", "data does not begin with a layout's number below 3"),
    (Auto(), TERNARY, (5,), "0300", "data does not begin with a layout's number below 3"),
    (Auto(), TERNARY, (5,), "011202ff", "data goes on for 1 bytes"),
]  # fmt: skip


@pytest.mark.parametrize(("layout", "alphabet", "sizes", "body", "sentence"), REFUSED)
def test_what_no_encoder_makes_is_refused(
    layout: SymbolLayout, alphabet: Alphabet, sizes: tuple[int, ...], body: str, sentence: str
) -> None:
    with pytest.raises(DecodeError, match=sentence):
        layout.decode(bytes.fromhex(body), sizes, alphabet)


def test_auto_takes_the_smallest_and_says_which() -> None:
    few, some, many = (np.zeros(400, dtype=np.int8) for _ in range(3))
    few[::90], some[::2], many[:] = 1, 1, np.tile([-1, 1], 200)
    usual: dict[Alphabet, SymbolLayout] = {TERNARY: Packed(), INT8: Dense()}
    for alphabet, plain in usual.items():
        for spread in (few, some, many):
            choices: tuple[SymbolLayout, ...] = (plain, Bitmap(), Gaps())
            bodies = [layout.encode(spread, (400,), alphabet) for layout in choices]
            found = Auto().encode(spread, (400,), alphabet)
            assert len(found) == 1 + min(map(len, bodies))
            assert found[1:] == bodies[found[0]]
    assert Auto().encode(few, (400,), TERNARY)[0] == 2
    assert Auto().encode(some, (400,), TERNARY)[0] == 1
    assert Auto().encode(many, (400,), TERNARY)[0] == 0
