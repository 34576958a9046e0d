import numpy as np
import pytest

from fedmq.codecs import Codec, parse
from fedmq.codecs.entropy import Plain
from fedmq.codecs.layout import Planes
from fedmq.codecs.quantise import Float16, Float32, Int8
from fedmq.errors import ConfigError, DecodeError, MisuseError, Refused
from tests.unit.codecs.transforms import Flip, Halve

VECTOR = np.array([3, -1, 0.5, 0, 8, 2, -7], dtype=np.float32)
SIZES = (3, 4)
SCALES = np.array([3, 8], dtype="<f4").tobytes()


@pytest.mark.parametrize(
    ("line", "exact", "unbiased", "error"),
    [
        ("float32", True, True, "none"),
        ("float32 | planes | lzma", True, True, "none"),
        ("float16 | zlib", False, False, "small"),
        ("int8 | lzma", False, False, "small"),
        ("int8(stochastic) | lzma", False, True, "small"),
        ("int4", False, False, "large"),
        ("rotate | int4", False, False, "moderate"),
        ("rotate | int2", False, False, "large"),
        ("lowrank(8) | float32", False, False, "moderate"),
        ("lowrank(8) | int4 | huffman", False, False, "moderate"),
        ("lowrank(8) | int2", False, False, "large"),
        ("sample(0.1) | int8", False, False, "large"),
    ],
)
def test_facts_for_rules(line: str, exact: bool, unbiased: bool, error: str) -> None:  # noqa: FBT001 - a table
    codec = parse(line)
    assert (codec.exact, codec.unbiased, codec.per_update_error) == (exact, unbiased, error)


def test_the_worst_stage_decides_the_facts() -> None:
    assert Codec(Float32(), transforms=(Flip(),)).exact
    rough = Codec(Int8("stochastic"), transforms=(Flip(), Halve()))
    assert (rough.exact, rough.unbiased, rough.per_update_error) == (False, True, "large")
    assert not Codec(Int8(), transforms=(Halve(),)).unbiased


def test_a_layout_that_is_of_no_use_is_refused() -> None:
    with pytest.raises(ConfigError, match="layout `planes` is of no use for the symbols of `int8`"):
        Codec(Int8(), layout=Planes())


def test_transforms_run_forward_and_back_with_their_own_sizes() -> None:
    codec = Codec(Float32(), transforms=(Flip(4.0), Halve(), Flip(0.5)))
    message = codec.encode(VECTOR, SIZES, seed=3)
    assert len(message) == codec.most_bytes(SIZES) == 4 * (2 + 2)
    decoded = codec.decode(message, SIZES, seed=3)
    assert set(decoded - 2 * VECTOR) <= {0, *(-2 * VECTOR)}  # doubled or dropped
    assert np.count_nonzero(decoded) in {2, 3, 4}
    assert not np.array_equal(decoded, codec.decode(message, SIZES, seed=1))


def test_the_longest_message_is_known_before() -> None:
    assert parse("float32").most_bytes(SIZES) == 28
    assert parse("int8").most_bytes(SIZES) == 8 + 7
    assert parse("int8 | lzma").most_bytes(SIZES) == 8 + 7 + 64


@pytest.mark.parametrize("stray", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("line", ["float32", "float16", "int8"])
def test_what_is_not_finite_is_refused(line: str, stray: float) -> None:
    vector = VECTOR.copy()
    vector[[2, 5]] = stray
    for use in (parse(line).encode, parse(line).bound):
        with pytest.raises(
            Refused, match=r"2 of 7 numbers are not finite, none may be sent: did the training diverge"
        ):
            use(vector, SIZES)


def test_what_a_transform_overflows_is_refused_on_both_sides() -> None:
    codec = Codec(Int8(), transforms=(Flip(2.0**100),))
    with pytest.raises(Refused, match="1 of 7 numbers are not finite"):
        codec.encode(np.array([1, 1, 1, 1, 1, 1, 2.0**30], dtype=np.float32), SIZES)
    small = Codec(Int8(), transforms=(Flip(2.0**-100),))
    huge = np.array([2.0**30, 0], dtype="<f4").tobytes()
    with pytest.raises(DecodeError, match="data decodes to NaN or infinity"):
        small.decode(huge + bytes([127, *bytes(6)]), SIZES)


@pytest.mark.parametrize(
    "vector",
    [
        VECTOR[:6],
        np.append(VECTOR, VECTOR),
        VECTOR.astype(np.float64),
        VECTOR.reshape(1, 7),
        VECTOR.astype(np.int8),
    ],
)
def test_a_vector_that_the_sizes_do_not_describe_is_misuse(vector: np.ndarray) -> None:
    with pytest.raises(MisuseError, match=r"the sizes want float32 of \(7,\)"):
        parse("int8").encode(vector, SIZES)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_beyond_64_bits_is_misuse(seed: int) -> None:
    for use in (
        lambda: parse("int8").encode(VECTOR, SIZES, seed=seed),
        lambda: parse("int8").decode(b"", SIZES, seed=seed),
    ):
        with pytest.raises(MisuseError, match=f"seed is {seed}, it must be a whole number"):
            use()


def test_a_negative_size_is_misuse() -> None:
    with pytest.raises(MisuseError, match=r"sizes are \(9, -2\)"):
        parse("int8").encode(VECTOR, (9, -2))


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", r"data has 0 bytes, the model's takes 8 to 15"),
        (SCALES[:7], r"data has 7 bytes, the model's takes 8 to 15"),
        (SCALES + bytes(8), r"data has 16 bytes, the model's takes 8 to 15"),
        (SCALES + bytes(6), r"data holds 6 bytes of symbols, the model has 7"),
        (SCALES + b"\x80" + bytes(6), r"data holds a symbol outside -127 … 127"),
        (b"\0\0\x80\x7f" + bytes(11), r"a scale that is negative or not finite"),
        (b"\0\0\xc0\x7f" + bytes(11), r"a scale that is negative or not finite"),
        (b"\0\0\x80\xbf" + bytes(11), r"a scale that is negative or not finite"),
        (b"\0\0\0\x80" + bytes(11), r"a scale that is negative or not finite"),
    ],
)
def test_what_no_encoder_makes_is_refused(data: bytes, sentence: str) -> None:
    with pytest.raises(DecodeError, match=sentence):
        parse("int8").decode(data, SIZES)


@pytest.mark.parametrize("half", ["007c", "00fc", "017c", "ff7f"])
def test_float16_that_is_not_finite_is_refused(half: str) -> None:
    with pytest.raises(DecodeError, match="data decodes to NaN or infinity, which no encoder sends"):
        parse("float16").decode(bytes.fromhex(half), (1,))


@pytest.mark.parametrize("bits", ["0000c07f", "0100807f", "000080ff"])
def test_float32_gives_back_even_what_encode_would_refuse(bits: str) -> None:
    assert parse("float32").decode(bytes.fromhex(bits), (1,)).tobytes().hex() == bits


def test_numpy_set_to_raise_changes_nothing() -> None:
    vector = np.array([1e-45, 3e38, 1e-30], dtype=np.float32)
    with np.errstate(all="raise"):
        for codec in (Codec(Float16()), Codec(Int8(), entropy=Plain())):
            message = codec.encode(vector, (1, 2))
            assert codec.decode(message, (1, 2)).shape == (3,)
            assert codec.bound(vector, (1, 2)).shape == (3,)
