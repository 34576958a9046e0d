"""The codecs' test vectors, for whoever writes a decoder elsewhere; run as a module, it writes the file anew.

    python -m tests.unit.codecs.golden

A change of what stands in the file is a change of the wire.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fedmq.codecs import ENTROPY, PRESETS, Codec, parse

if TYPE_CHECKING:
    from fedmq.vectors import Vector

FILE: Final = Path(__file__).parents[2] / "vectors" / "codecs.json"

ABOUT: Final = (
    "Vectors are little-endian float32 in hex. `good`: `message` decodes to `decoded`, bit by bit; where `canonical` "
    "is true, encoding `vector` gives `message`, else any message that decodes to `decoded`. `bad`: refused. "
    "The format is specified in docs/reference/codecs.md."
)

LINES: Final = (
    *("float32", "float32 | planes", "float16", "float16 | planes", "int8", "int8(stochastic)"),
    *(
        "float32 | huffman",
        "float16 | zlib",
        "float32 | zlib(1)",
        "int8 | zlib(9)",
        "int8(stochastic) | lzma",
    ),
    *("feedback | int8", "feedback(0.9) | int8"),
    *PRESETS.values(),
)
"""Every stage's every example at least once, and the presets."""

VECTORS: Final[dict[str, tuple[list[float], list[int]]]] = {
    "no block": ([], []),
    "an empty block": ([1, -2, 0.5], [2, 0, 1]),
    "ties": ([127, 0.5, 1.5, -2.5, 126.5, -0.5, 64, 0.1, -0.1, 3.3], [7, 3]),
    "edges": ([0.0, -0.0, 2.0**-149, 3 * 2.0**-149, 2.0**-126, 3.4028234663852886e38, -65504, 65520], [5, 3]),
    "runs": ([*[0.0] * 40, *[-1.5, 0.0, 0.0, 0.75] * 6], [32, 32]),
}


def file() -> dict[str, Any]:
    """Return the file's content."""
    return {"about": ABOUT, "good": [good(line, name) for line in LINES for name in VECTORS], "bad": bad()}


def good(line: str, name: str) -> dict[str, Any]:
    """Return one message and what it says."""
    codec, (numbers, sizes) = parse(line), VECTORS[name]
    seed = 0xFEDCBA9876543210 if "stochastic" in line else 0
    vector = np.array(numbers, dtype=np.float32)
    message = codec.encode(vector, sizes, seed=seed)
    return {
        "codec": line,
        "name": name,
        "sizes": sizes,
        "seed": f"{seed:016x}",
        "vector": hexed(vector),
        "message": message.hex(),
        "decoded": hexed(codec.decode(message, sizes)),
        "canonical": canonical(codec),
    }


def canonical(codec: Codec) -> bool:
    """Tell whether all encoders make the same bytes: compressors may differ from version to version."""
    return codec.entropy == ENTROPY["none"]()


def bad() -> list[dict[str, Any]]:
    """Return messages that a decoder must refuse, each for the reason in `why`."""
    deflated, lzma2 = (
        parse(f"int8 | {name}").encode(np.ones(9, dtype=np.float32), (9,)) for name in ("huffman", "lzma")
    )
    rows: list[tuple[str, list[int], str, str]] = [
        ("float32", [2], "0000803f0000", "ends in the middle of a number"),
        ("float32", [1], "0000803f00", "a byte too many"),
        ("float16", [1], "007c", "infinity"),
        ("float16", [1], "ff7f", "NaN"),
        ("int8", [1, 1], "0000803f0000803f01", "one symbol of two"),
        ("int8", [1], "0000803f80", "the symbol -128"),
        ("int8", [1], "0000807f01", "an infinite scale"),
        ("int8", [1], "0000c07f01", "a scale that is NaN"),
        ("int8", [1], "000080bf01", "a negative scale"),
        ("int8", [1], "0000008000", "a scale of minus zero"),
        ("int8 | huffman", [9], deflated[:-1].hex(), "the deflate stream does not end"),
        ("int8 | huffman", [9], f"{deflated.hex()}00", "a byte after the deflate stream"),
        ("int8 | huffman", [8], deflated.hex(), "nine symbols, the model has eight"),
        ("int8 | huffman", [10], deflated.hex(), "nine symbols, the model has ten"),
        ("int8 | zlib", [9], f"{deflated[:4].hex()}07", "a reserved deflate block type"),
        ("int8 | lzma", [9], lzma2[:-1].hex(), "the LZMA2 stream does not end"),
        ("int8 | lzma", [9], f"{lzma2.hex()}00", "a byte after the LZMA2 stream"),
        ("int8 | lzma", [8], lzma2.hex(), "nine symbols, the model has eight"),
        ("int8 | lzma", [9], f"{lzma2[:4].hex()}03", "a reserved LZMA2 control byte"),
    ]
    return [dict(zip(("codec", "sizes", "message", "why"), row, strict=True)) for row in rows]


def hexed(vector: Vector) -> str:
    """Return a vector as the file has it."""
    return vector.astype("<f4").tobytes().hex()


if __name__ == "__main__":
    FILE.write_text(json.dumps(file(), indent=1) + "\n")
