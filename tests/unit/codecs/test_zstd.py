import importlib

import numpy as np
import pytest
import zstandard

from fedmq.codecs import parse
from fedmq.codecs.zstd import Zstd, _library
from fedmq.errors import ConfigError, DecodeError

BODY = b"weights " * 40


def frame(body: bytes, level: int = 3, **options: int) -> bytes:
    """What another encoder may make of `body`, without the magic number."""
    parameters = zstandard.ZstdCompressionParameters.from_level(
        level, format=zstandard.FORMAT_ZSTD1_MAGICLESS, **{"write_content_size": 0, **options}
    )
    return zstandard.ZstdCompressor(compression_params=parameters).compress(body)


@pytest.mark.parametrize("size", [0, 1, 1023, 1024, 1025, 70_000, 1_100_000])
@pytest.mark.parametrize("level", [1, 3])
def test_what_is_encoded_reads_back_and_keeps_to_its_bound(size: int, level: int) -> None:
    chance = np.random.default_rng(size)
    for body in (bytes(size), chance.bytes(size), chance.integers(0, 5, size).astype("u1").tobytes()):
        data = Zstd(level).encode(body)
        assert len(data) <= Zstd(level).most_bytes(size)
        assert Zstd().decode(data, size) == body
        assert Zstd().decode(data, 2 * size + 1) == body


def test_frames_of_other_encoders_are_read() -> None:
    assert Zstd().decode(frame(BODY, 19, window_log=10), len(BODY)) == BODY
    assert Zstd().decode(frame(BODY, -5, window_log=10), len(BODY)) == BODY


def test_a_higher_level_searches_longer() -> None:
    body = np.random.default_rng(0).integers(0, 3, 5000).astype("u1").tobytes() * 2
    assert len(Zstd(19).encode(body)) < len(Zstd(1).encode(body))


def test_a_frame_that_holds_more_is_refused() -> None:
    data = Zstd().encode(BODY)
    for most in (0, 1, len(BODY) - 1):
        with pytest.raises(DecodeError, match="data"):
            Zstd().decode(data, most)
    with pytest.raises(DecodeError, match="data holds more than the 0 bytes that the model has"):
        Zstd().decode(Zstd().encode(b"x"), 0)


def test_a_content_size_in_the_header_is_refused_before_the_library_believes_it() -> None:
    bomb = frame(bytes(64 << 20), write_content_size=1)
    with pytest.raises(DecodeError, match="data does not begin like a plain Zstandard frame"):
        Zstd().decode(bomb, 1 << 20)


def test_a_window_beyond_the_models_is_refused() -> None:
    with pytest.raises(DecodeError, match="Frame requires too much memory"):
        Zstd().decode(frame(bytes(8 << 20), window_log=23), 1 << 20)


@pytest.mark.parametrize("options", [{"write_checksum": 1}, {"write_content_size": 1}])
def test_other_headers_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(DecodeError, match="data does not begin like a plain Zstandard frame"):
        Zstd().decode(frame(BODY, **options), len(BODY))


@pytest.mark.parametrize("body", [BODY, bytes(300), b"", bytes(range(256))])
def test_every_cut_and_addition_is_refused(body: bytes) -> None:
    data = Zstd().encode(body)
    for damaged in (
        *(data[:length] for length in range(len(data))),
        data + b"\0",
        data + data,
        data + data[2:],
    ):
        with pytest.raises(DecodeError):
            Zstd().decode(damaged, len(body))


def test_blocks_of_the_reserved_kind_are_refused() -> None:
    with pytest.raises(DecodeError, match="data is no Zstandard frame of at most 9 bytes"):
        Zstd().decode(bytes([0, 0, 0b0000_1111, 0, 0, 7]), 9)


@pytest.mark.parametrize("level", ["0", "-1", "20"])
def test_a_level_that_there_is_not_is_refused(level: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"zstd has no level {level}: choose one from 1 \(fast\) to 19 \(small\)"
    ):
        parse(f"int8 | zstd({level})")


def test_without_its_library_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    _library.cache_clear()
    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(
        ConfigError, match=r"zstd needs the package zstandard: install fedmq\[zstd\], or take"
    ):
        parse("int8 | zstd")
