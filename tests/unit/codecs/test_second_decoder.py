"""A decoder written from the reference page alone, without NumPy and our code, reads the published vectors."""

import json
import lzma
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest

PUBLISHED: dict[str, Any] = json.loads((Path(__file__).parents[2] / "vectors" / "codecs.json").read_text())


def fl(number: float) -> float:
    rounded: float = struct.unpack("<f", struct.pack("<f", number))[0]
    return rounded


def stream(coder: str, data: bytes, length: int) -> bytes:
    if coder == "none":
        return data
    if coder == "lzma":
        filters = [{"id": lzma.FILTER_LZMA2, "dict_size": max(4096, min(length, 65536))}]
        return lzma.decompress(data, format=lzma.FORMAT_RAW, filters=filters)
    return zlib.decompress(data, -15)


def decode(line: str, sizes: list[int], message: bytes) -> bytes:
    stages = [part.partition("(")[0] for part in line.split(" | ")]
    quantiser, *rest = (stage for stage in stages if stage != "feedback")
    scales = [0.0] * len(sizes)
    if quantiser == "int8":
        scales = list(struct.unpack_from(f"<{len(sizes)}f", message))
        message = message[4 * len(sizes) :]
    n, letter = sum(sizes), {"float32": "f", "float16": "e", "int8": "b"}[quantiser]
    width = struct.calcsize(letter)
    body = stream(([part for part in rest if part != "planes"] or ["none"])[0], message, n * width)
    if "planes" in rest:
        body = bytes(body[plane * n + index] for index in range(n) for plane in range(width))
    symbols = struct.unpack(f"<{n}{letter}", body)
    if quantiser == "int8":
        blocks = [scale for scale, size in zip(scales, sizes, strict=True) for _ in range(size)]
        symbols = tuple(fl(fl(q / 127) * scale) for q, scale in zip(symbols, blocks, strict=True))
    return struct.pack(f"<{n}f", *symbols)


@pytest.mark.parametrize("case", PUBLISHED["good"], ids=lambda case: f"{case['codec']}: {case['name']}")
def test_the_page_is_enough(case: dict[str, Any]) -> None:
    assert decode(case["codec"], case["sizes"], bytes.fromhex(case["message"])).hex() == case["decoded"]
