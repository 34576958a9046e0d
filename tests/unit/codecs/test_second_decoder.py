"""A decoder written from the reference page alone, without NumPy and our code, reads the published vectors."""

import json
import lzma
import math
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
import zstandard

from tests.unit.codecs import second_rotation

PUBLISHED: dict[str, Any] = json.loads((Path(__file__).parents[2] / "vectors" / "codecs.json").read_text())
MOST = 3.4028234663852886e38

STEPS = {"int8": 127, "int4": 7, "int2": 1, "qsgd": 1, "ternary": 1, "deadzone": 127}
LETTERS = {"float32": "f", "float16": "e", "bfloat16": "H", **dict.fromkeys(STEPS, "b")}
LAYOUTS = {"dense", "planes", "packed", "bitmap", "gaps", "auto"}
CODERS = {"none", "huffman", "zlib", "lzma", "zstd"}


def fl(number: float) -> float:
    if abs(number) > MOST:
        return math.copysign(math.inf, number) if abs(number) >= MOST * (1 + 2**-25) else number
    rounded: float = struct.unpack("<f", struct.pack("<f", number))[0]
    return rounded


def stream(coder: str, data: bytes) -> bytes:
    if coder == "none":
        return data
    if coder == "lzma":
        filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 65536}]
        return lzma.decompress(data, format=lzma.FORMAT_RAW, filters=filters)
    if coder == "zstd":
        decompressor = zstandard.ZstdDecompressor(format=zstandard.FORMAT_ZSTD1_MAGICLESS)
        return decompressor.decompress(data, max_output_size=100_000)
    return zlib.decompress(data, -15)


class Bits:
    def __init__(self, data: bytes) -> None:
        self.all = "".join(f"{byte:08b}"[::-1] for byte in data)
        self.at = 0

    def number(self, width: int) -> int:
        self.at += width
        return int("0" + self.all[self.at - width : self.at][::-1], 2)

    def unary(self) -> int:
        start, self.at = self.at, self.all.index("1", self.at) + 1
        return self.at - 1 - start

    def rest(self) -> bytes:
        self.number(-self.at % 8)
        return bytes(self.number(8) for _ in range((len(self.all) - self.at) // 8))

    def rice(self, count: int) -> list[int]:
        if count == 0:
            return []
        segment = 16 << self.number(4)
        parameters = [self.number(4) for _ in range(-(-count // segment))]
        ks = [parameters[index // segment] for index in range(count)]
        numbers = [self.unary() << k for k in ks]
        for k in range(1, 16):
            for index in range(count):
                if ks[index] == k:
                    numbers[index] += self.number(k)
        return numbers

    def places(self, size: int) -> list[int]:
        found, last = [], -1
        for gap in self.rice(self.number(size.bit_length())):
            last += gap + 1
            found.append(last)
        return found


def row_by_row(planes: bytes, count: int, letter: str) -> bytes:
    return bytes(
        planes[plane * count + row] for row in range(count) for plane in range(struct.calcsize(letter))
    )


def values(bits: Bits, count: int, letter: str, high: int) -> list[float]:
    if not high:
        return list(struct.unpack(f"<{count}{letter}", row_by_row(bits.rest(), count, letter)))
    signs = [bits.number(1) for _ in range(count)]
    sizes = [1] * count
    if high > 1:
        larger = bits.places(count)
        for place, more in zip(larger, bits.rice(len(larger)), strict=True):
            sizes[place] = 2 + more
    return [-size if sign else size for sign, size in zip(signs, sizes, strict=True)]


def symbols_of(layout: str, body: bytes, n: int, letter: str, high: int) -> list[float]:
    if layout == "auto":
        layout, body = ["packed" if 0 < high < 127 else "dense", "bitmap", "gaps"][body[0]], body[1:]
    if layout == "packed":
        bits = Bits(body)
        return [bits.number((2 * high).bit_length()) - high for _ in range(n)]
    if layout == "gaps":
        bits = Bits(body)
        where = bits.places(n)
    elif layout == "bitmap":
        bits = Bits(body)
        where = [place for place in range(n) if bits.number(1)]
        bits = Bits(bits.rest())
    else:
        if layout == "planes":
            body = row_by_row(body, n, letter)
        return list(struct.unpack(f"<{n}{letter}", body))
    there = dict(zip(where, values(bits, len(where), letter, high), strict=True))
    return [there.get(place, 0) for place in range(n)]


def grid(symbols: list[float], scales: list[float], sizes: list[int], high: int) -> list[float]:
    blocks = [scale for scale, size in zip(scales, sizes, strict=True) for _ in range(size)]
    return [fl(fl(q / high) * scale) for q, scale in zip(symbols, blocks, strict=True)]


def deadzone(symbols: list[float], step: float, first: float) -> list[float]:
    levels = [0.0] + [min(fl(first + fl(m * step)), MOST) for m in range(127)]
    return [math.copysign(levels[int(abs(q))], q) for q in symbols]


def numbers(
    quantiser: str, symbols: list[float], scales: list[float], blocks: list[int], high: int
) -> list[float]:
    if quantiser == "bfloat16":
        return [struct.unpack("<f", struct.pack("<I", int(q) << 16))[0] for q in symbols]
    if quantiser == "ternary":
        return [fl(q * scales[0]) if q else 0.0 for q in symbols]
    if quantiser == "deadzone":
        return deadzone(symbols, *scales)
    return grid(symbols, scales, blocks, high) if high else symbols


def shape(n: int, following: int) -> tuple[int, int]:
    if 1 < following < n and n % following == 0:
        return n // following, following
    columns = max((c for c in range(1, n + 1) if n % c == 0 and c * c <= n), default=1)
    return n // columns, columns


def factored(sizes: list[int], rank: int) -> list[list[int]]:
    """The blocks that stand for each block."""
    shapes = [shape(n, after) for n, after in zip(sizes, [*sizes, 0][1:], strict=True)]
    return [[r * rank, c * rank] if 2 * (r + c) * rank <= r * c else [r * c] for r, c in shapes]


def multiplied(numbers: list[float], pieces: list[list[int]], rank: int) -> list[float]:
    found: list[float] = []
    for piece in pieces:
        taken, numbers = numbers[: sum(piece)], numbers[sum(piece) :]
        if len(piece) == 1:
            found += taken
            continue
        p, q = (
            [taken[i : i + rank] for i in range(start, stop, rank)]
            for start, stop in ((0, piece[0]), (piece[0], sum(piece)))
        )
        for row in p:
            for column in q:
                total = 0.0
                for left, right in zip(row, column, strict=True):
                    total += left * right
                found.append(fl(max(-MOST, min(total, MOST))))
    return found


def decode(line: str, sizes: list[int], message: bytes, seed: int) -> bytes:
    stages = dict(re.findall(r"([a-z]+\d*)(?:\(([^)]*)\))?", line))
    if "eden" in stages:
        return struct.pack(f"<{sum(sizes)}f", *second_rotation.decode(stages, sizes, message, seed))
    quantiser = next(stage for stage in stages if stage in LETTERS)
    layout = next((stage for stage in stages if stage in LAYOUTS), "")
    coder = next((stage for stage in stages if stage in CODERS), "none")
    rank = int(stages["lowrank"] or 4) if "lowrank" in stages else 0
    pieces = factored(sizes, rank) if rank else [[n] for n in sizes]
    sizes = [n for piece in pieces for n in piece]
    n, letter, high, blocks = sum(sizes), LETTERS[quantiser], STEPS.get(quantiser, 0), sizes
    if quantiser == "qsgd":
        levels, bucket = re.fullmatch(r"(\d*)(?:, bucket=(\d+))?", stages["qsgd"]).groups()  # type: ignore[union-attr]
        high, bucket = int(levels or 1), int(bucket or 512)
        blocks = [min(bucket, n - start) for start in range(0, n, bucket)]
    count = {"ternary": 1, "deadzone": 2}.get(quantiser, len(blocks) if high else 0)
    scales = list(struct.unpack_from(f"<{count}f", message))
    body = stream(coder, message[4 * count :])
    symbols = symbols_of(layout or ("packed" if 0 < high < 127 else "dense"), body, n, letter, high)
    inner = numbers(quantiser, symbols, scales, blocks, high)
    return b"".join(struct.pack("<f", x) for x in (multiplied(inner, pieces, rank) if rank else inner))


@pytest.mark.parametrize("case", PUBLISHED["good"], ids=lambda case: f"{case['codec']}: {case['name']}")
def test_the_page_is_enough(case: dict[str, Any]) -> None:
    message, seed = bytes.fromhex(case["message"]), int(case["seed"], 16)
    assert decode(case["codec"], case["sizes"], message, seed).hex() == case["decoded"]
