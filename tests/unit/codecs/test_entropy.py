import lzma
import zlib

import numpy as np
import pytest

from fedmq.codecs.entropy import DICTIONARY, Huffman, Lzma, Plain, Zlib
from fedmq.errors import ConfigError, DecodeError

BODY = b"weights " * 40


def deflated(body: bytes) -> bytes:
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    return stream.compress(body) + stream.flush()


def lzma2(body: bytes, **options: int) -> bytes:
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 4096, **options}]
    return lzma.compress(body, format=lzma.FORMAT_RAW, filters=filters)


@pytest.mark.parametrize("coder", [Huffman(), Zlib(), Zlib(1)])
def test_deflate_streams_of_any_encoder_are_read(coder: Huffman | Zlib) -> None:
    assert coder.decode(deflated(BODY), len(BODY)) == BODY
    assert zlib.decompress(coder.encode(BODY), -15) == BODY


def test_lzma2_streams_of_any_encoder_are_read() -> None:
    assert Lzma().decode(lzma2(BODY, lc=3, pb=2), len(BODY)) == BODY
    assert Lzma().decode(lzma2(BODY, preset=1), len(BODY)) == BODY


@pytest.mark.parametrize("length", [0, 1, 4095, 4096, 5000, DICTIONARY, DICTIONARY + 1, 3 * DICTIONARY])
def test_lzma_has_its_dictionary_from_the_length_alone(length: int) -> None:
    body = bytes(n * n % 251 for n in range(length))
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": max(4096, min(length, 65536))}]
    assert lzma.decompress(Lzma().encode(body), format=lzma.FORMAT_RAW, filters=filters) == body
    assert Lzma().decode(Lzma().encode(body), length) == body


def test_lzma_encodes_without_literal_or_position_context() -> None:
    assert Lzma().encode(BODY)[5] == 0  # the property byte of the first chunk, (pb · 5 + lp) · 9 + lc


def test_huffman_finds_runs_and_no_other_match() -> None:
    assert len(Huffman().encode(bytes(10_000))) < 50
    assert len(Huffman().encode(bytes(range(256)) * 8)) > 2000 > len(Zlib().encode(bytes(range(256)) * 8))


def noise(length: int) -> bytes:
    return np.random.default_rng(length).bytes(length)


@pytest.mark.parametrize(
    "pieces",
    [
        [noise(100_000)],
        [noise(40_000), bytes(50_000)],
        [bytes(50_000), noise(40_000)],
        [noise(70_000), bytes(90_000), noise(70_000), BODY * 99],
        [noise(5_000)],
    ],
    ids=["noise", "noise first", "noise last", "in turns", "a short one"],
)
def test_huffman_stores_what_would_not_shrink(pieces: list[bytes]) -> None:
    body = b"".join(pieces)
    data = Huffman().encode(body)
    stream = zlib.compressobj(9, zlib.DEFLATED, -15, 8, zlib.Z_RLE)
    assert zlib.decompress(data, -15) == Huffman().decode(data, len(body)) == body
    assert len(data) <= len(stream.compress(body) + stream.flush()) + 100
    assert (data[0] & 6 == 0 and data[5:105] == body[:100]) == (pieces[0] == noise(len(pieces[0])))


@pytest.mark.parametrize("values", [220, 190], ids=["220 values", "190 values"])
def test_huffman_codes_what_would_shrink(values: int) -> None:
    body = (np.random.default_rng(1).random(1 << 16) * values).astype(np.uint8).tobytes()
    assert (len(Huffman().encode(body)) < len(body)) == (values == 190)


def test_huffman_does_not_judge_by_a_few_bytes() -> None:
    body = b"".join(bytes([n, 0, 0, 0, 0]) for n in range(256))
    assert len(Huffman().encode(body)) < len(body) / 2


@pytest.mark.parametrize("width", [2, 4])
def test_huffman_looks_at_every_byte_of_a_symbol(width: int) -> None:
    spread = np.zeros((1 << 14, width), np.uint8)
    spread[:, 0] = np.frombuffer(noise(1 << 14), np.uint8)
    assert len(Huffman().encode(spread.tobytes())) < 0.8 * spread.size


STREAMS = [(Huffman(), deflated(BODY)), (Zlib(), deflated(BODY)), (Lzma(), lzma2(BODY))]
every_stream = pytest.mark.parametrize(("coder", "data"), STREAMS, ids=["huffman", "zlib", "lzma"])


def test_a_higher_level_of_zlib_searches_longer() -> None:
    body = bytes(n * n % 97 ^ n % 13 for n in range(5000))
    low, middle, high = (len(Zlib(level).encode(body)) for level in (1, 6, 9))
    assert low > middle >= high


@every_stream
def test_a_stream_that_holds_more_is_refused(coder: Huffman | Zlib | Lzma, data: bytes) -> None:
    with pytest.raises(DecodeError, match="data holds more than the 319 bytes of symbols that the model has"):
        coder.decode(data, len(BODY) - 1)
    with pytest.raises(DecodeError, match="data holds more than the 0 bytes"):
        coder.decode(data, 0)


@every_stream
def test_a_stream_cut_short_is_refused(coder: Huffman | Zlib | Lzma, data: bytes) -> None:
    for length in range(len(data)):
        with pytest.raises(DecodeError, match="data ends before its stream does: was it cut"):
            coder.decode(data[:length], len(BODY))


@every_stream
def test_bytes_after_the_stream_are_refused(coder: Huffman | Zlib | Lzma, data: bytes) -> None:
    with pytest.raises(
        DecodeError, match="data goes on for 2 bytes after its stream's end: send the stream alone"
    ):
        coder.decode(data + b"\0\0", len(BODY))


@pytest.mark.parametrize(
    ("coder", "data", "sentence"),
    [(Zlib(), b"\xff", "data is no deflate stream"), (Lzma(), b"\x7f", "data is no LZMA2 stream")],
)
def test_what_is_no_stream_is_refused(coder: Zlib | Lzma, data: bytes, sentence: str) -> None:
    with pytest.raises(DecodeError, match=sentence):
        coder.decode(data, 100)


def test_none_passes_bytes_on_up_to_the_limit() -> None:
    assert Plain().decode(BODY, len(BODY)) == BODY
    with pytest.raises(DecodeError, match="data holds more than the 319 bytes"):
        Plain().decode(BODY, len(BODY) - 1)


@pytest.mark.parametrize("level", [-1, 0, 10])
def test_a_level_that_zlib_lacks_is_refused(level: int) -> None:
    with pytest.raises(ConfigError, match=f"zlib has no level {level}: choose one from 1"):
        Zlib(level)
