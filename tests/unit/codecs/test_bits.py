import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmq.codecs.bits import BitReader, fields, pack, read_rice, write_rice
from fedmq.errors import DecodeError


def array(*numbers: int) -> np.ndarray:
    return np.array(numbers, dtype=np.int64)


def test_fields_stand_with_their_least_bit_first_and_fill_bytes_from_the_lowest_bit_up() -> None:
    assert fields(array(1, 6), 3).tolist() == [1, 0, 0, 0, 1, 1]
    assert pack([fields(array(1, 6), 3), fields(array(1), 4)]).hex() == "7100"
    assert pack([fields(array(), 5), fields(array(3, 4), 0)]) == b""


def test_a_reader_reads_fields_across_bytes_and_stops_at_the_end() -> None:
    reader = BitReader(bytes.fromhex("7100"))
    assert reader.numbers(2, 3).tolist() == [1, 6]
    assert reader.numbers(3, 0).tolist() == [0, 0, 0]
    assert reader.numbers(1, 4).tolist() == [1]
    assert reader.left == 6
    with pytest.raises(DecodeError, match="data has 6 bits where 7 must follow"):
        reader.bits(7)
    assert reader.rest() == b""


def test_what_fills_the_last_byte_is_zero_and_whole_bytes_may_follow() -> None:
    reader = BitReader(bytes.fromhex("0f0f2a"))
    assert reader.bits(4).tolist() == [1, 1, 1, 1]
    assert reader.rest() == bytes.fromhex("0f2a")
    reader = BitReader(bytes.fromhex("1f"))
    reader.bits(4)
    with pytest.raises(DecodeError, match="bits set where an encoder leaves zeros"):
        reader.rest()


def test_unary_numbers_are_zeros_and_a_one() -> None:
    reader = BitReader(bytes([0b0100_1101, 0b10]))
    assert reader.unary(4, most=9).tolist() == [0, 1, 0, 2]
    assert reader.unary(0, most=9).tolist() == []
    assert reader.unary(1, most=9).tolist() == [2]
    assert reader.left == 6


@pytest.mark.parametrize(("count", "most"), [(6, 99), (5, 4), (1, 0)])
def test_unary_numbers_that_are_missing_or_beyond_their_sum_are_refused(count: int, most: int) -> None:
    data = bytes([0b0110_1010, 0b10])  # 1, 1, 0, 0 is within 8 bits, the fifth number is 2
    with pytest.raises(DecodeError, match=f"data ends or strays within {count} runs"):
        BitReader(data).unary(count, most)


def test_a_rice_code_has_its_form_and_parameters_then_quotients_then_low_bits() -> None:
    assert write_rice(array()) == []
    # one segment: e = 0, k = 0; 0, 1 and 0 in unary
    assert pack(write_rice(array(0, 1, 0))).hex() == "000d"
    # k = 2: quotients 2, 2, 2, then low bits 1, 2, 3
    bits = "".join(str(bit) for piece in write_rice(array(9, 10, 11)) for bit in piece)
    assert bits == "00000100001001001100111"
    # k = 0 and k = 2 in two segments: low bits of the second only
    bits = "".join(str(bit) for piece in write_rice(array(*[0] * 16, 5, 9, 9)) for bit in piece)
    assert bits == "000000000100" + "1" * 16 + "01001001" + "101010"


def test_each_segment_has_the_parameter_that_suits_it() -> None:
    numbers = array(*[0] * 16, *[1000] * 16, *[3] * 5)
    pieces = write_rice(numbers)
    assert pieces[1].reshape(3, 4).tolist() == [[0, 0, 0, 0], [1, 0, 0, 1], [1, 0, 0, 0]]  # k = 0, 9, 1
    assert read_rice(BitReader(pack(pieces)), 37, int(numbers.sum())).tolist() == numbers.tolist()


def test_even_numbers_share_one_parameter() -> None:
    pieces = write_rice(array(*[5] * 700))
    assert pieces[0].tolist() == [0, 1, 1, 0]  # 16 · 2⁶ numbers in a segment
    assert len(pieces[1]) == 4


def cost(numbers: np.ndarray, form: int) -> int:
    segments = [numbers[start : start + (16 << form)] for start in range(0, len(numbers), 16 << form)]
    return 4 + sum(4 + min(sum((int(v) >> k) + 1 + k for v in part) for k in range(16)) for part in segments)


@settings(max_examples=40)
@given(st.lists(st.integers(0, 40) | st.integers(0, 2**20), min_size=1, max_size=100))
def test_a_rice_code_reads_back_and_no_other_takes_fewer_bits(numbers: list[int]) -> None:
    coded = np.concatenate(write_rice(array(*numbers)))
    assert coded.size == min(cost(array(*numbers), form) for form in range(16))
    reader = BitReader(pack([coded]))
    assert read_rice(reader, len(numbers), sum(numbers)).tolist() == numbers
    assert reader.left < 8


def test_no_numbers_take_no_bits() -> None:
    reader = BitReader(b"")
    assert read_rice(reader, 0, 0).tolist() == []


def test_the_longest_segment_is_one_that_four_bits_can_name() -> None:
    numbers = np.full(16 << 16, 1, dtype=np.int64)
    pieces = write_rice(numbers)
    assert pieces[0].tolist() == [1, 1, 1, 1]
    assert np.array_equal(read_rice(BitReader(pack(pieces)), numbers.size, numbers.size), numbers)
