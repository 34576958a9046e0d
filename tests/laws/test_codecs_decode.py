"""Laws of decoding: whatever the bytes, a vector of the right shape or DecodeError, in memory that the model bounds."""

from __future__ import annotations

import lzma
import tracemalloc
import zlib
from functools import cache
from random import Random
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fedmq.codecs import Codec, parse
from fedmq.errors import DecodeError
from tests.fuzz.decoders import mutated
from tests.laws.test_codecs import CODECS, every_codec, heavy

if TYPE_CHECKING:
    from collections.abc import Callable

SIZES = (30, 0, 1, 20)
SEED = 9
MESSAGES = {codec: codec.encode(heavy(51), SIZES, seed=SEED) for codec in CODECS}


def decodes(codec: Codec, data: bytes, sizes: tuple[int, ...] = SIZES) -> bool:
    """Tell whether `data` decodes; any answer but a good vector or DecodeError fails the test."""
    try:
        decoded = codec.decode(data, sizes, seed=SEED)
    except DecodeError:
        return False
    assert decoded.shape == (sum(sizes),)
    assert decoded.dtype == np.float32
    assert codec.exact or np.isfinite(decoded).all()
    return True


@st.composite
def damage(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """Flip bits, then cut, insert or append."""
    flips = draw(st.lists(st.tuples(st.integers(0, 400), st.integers(1, 255)), max_size=6))
    start, stop = draw(st.integers(0, 300)), draw(st.integers(0, 300))
    filling, tail = draw(st.binary(max_size=12)), draw(st.binary(max_size=6))

    def apply(message: bytes) -> bytes:
        damaged = bytearray(message)
        for place, mask in flips:
            damaged[place % len(damaged)] ^= mask
        return bytes(damaged[:start] + filling + damaged[stop:] + tail)

    return apply


@every_codec
@settings(max_examples=12, deadline=None)
@given(apply=damage())
def test_a_damaged_message_is_a_vector_or_refused(codec: Codec, apply: Callable[[bytes], bytes]) -> None:
    decodes(codec, apply(MESSAGES[codec]))


@every_codec
@settings(max_examples=8, deadline=None)
@given(data=st.binary(max_size=300))
@example(data=b"")
def test_random_bytes_are_a_vector_or_refused(codec: Codec, data: bytes) -> None:
    decodes(codec, data)
    decodes(codec, MESSAGES[codec][:16] + data)  # past the scales of the real message


@every_codec
def test_three_hundred_mutations_are_vectors_or_refused(codec: Codec) -> None:
    random = Random(str(codec))
    outcomes = {decodes(codec, mutated(MESSAGES[codec], random)) for _ in range(300)}
    assert False in outcomes


@pytest.mark.slow
@every_codec
def test_sixteen_thousand_mutations_are_vectors_or_refused(codec: Codec) -> None:
    """All codecs together take a million; `make fuzz` goes on for as long as one likes."""
    random = Random(f"{codec} at length")
    for _ in range(16_000):
        decodes(codec, mutated(MESSAGES[codec], random))


@every_codec
def test_every_cut_and_every_addition_is_refused(codec: Codec) -> None:
    message = MESSAGES[codec]
    assert decodes(codec, message)
    assert not any(decodes(codec, message[:length]) for length in range(len(message)))
    assert not any(decodes(codec, message + tail) for tail in (b"\0", b"\xff", message, bytes(1000)))


@every_codec
def test_every_flipped_bit_is_a_vector_or_refused(codec: Codec) -> None:
    message = MESSAGES[codec]
    for place in range(8 * len(message)):
        damaged = bytearray(message)
        damaged[place // 8] ^= 1 << place % 8
        decodes(codec, bytes(damaged))


@every_codec
@pytest.mark.parametrize("sizes", [(), (0,), (51,), (30, 0, 1, 19), (30, 0, 1, 21), (1, 1), (5000,)])
def test_a_message_for_another_model_is_a_vector_or_refused(codec: Codec, sizes: tuple[int, ...]) -> None:
    decodes(codec, MESSAGES[codec], sizes)


def scale_bytes(codec: Codec, count: int) -> int:
    """Return how many bytes of a message come before its stream."""
    sizes: tuple[int, ...] = (count,)
    for stage in codec.transforms:
        sizes = stage.sizes(sizes)
    return codec.quantiser.scale_form.size(codec.quantiser.scales(sizes))


@cache
def deflate_bomb(size: int) -> bytes:
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    return stream.compress(bytes(size)) + stream.flush()


@cache
def lzma_bomb(size: int) -> bytes:
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 16}]
    return lzma.compress(bytes(size), format=lzma.FORMAT_RAW, filters=filters)


COUNT, FULL = 20_000, 1_000_000
BOMBED = [codec for codec in CODECS if codec.entropy.name != "none" and codec.most_bytes((COUNT,)) > 1200]


@pytest.mark.parametrize("codec", BOMBED, ids=str)
@pytest.mark.parametrize("bomb", [deflate_bomb, lzma_bomb])
def test_a_bomb_is_refused_in_memory_that_the_model_bounds(
    codec: Codec, bomb: Callable[[int], bytes]
) -> None:
    count = COUNT
    data = codec.encode(np.zeros(count, dtype=np.float32), (count,))[: scale_bytes(codec, count)] + bomb(FULL)
    assert len(data) <= codec.most_bytes((count,)), (
        "a longer bomb is refused by its length, which shows nothing"
    )
    tracemalloc.start()
    refused = not decodes(codec, data, (count,))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert refused
    assert peak < 4 * count * 4 + 300_000  # the vector's bytes, a few times, and the decoder's own state


def test_a_message_beyond_the_longest_is_refused_unread() -> None:
    codec = parse("int8 | lzma")
    with pytest.raises(DecodeError, match=r"data has 10000000 bytes, the model's takes 4 to 188"):
        codec.decode(bytes(10_000_000), (107,))
