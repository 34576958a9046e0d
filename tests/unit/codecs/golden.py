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
    *("bfloat16", "bfloat16 | planes", "int4", "int4(stochastic)", "int2", "int2(stochastic) | gaps | zlib"),
    *("qsgd | gaps", "qsgd(7, bucket=64)", "qsgd(3, bucket=4) | bitmap", "ternary", "ternary | gaps"),
    *(
        "topk | ternary | gaps",
        "topk(0.1) | float16 | bitmap",
        "threshold | int8 | gaps",
        "threshold(1.0) | float32 | gaps",
    ),
    *(
        "deadzone(2.0) | auto",
        "ternary | auto",
        "float32 | auto",
        "int8 | zstd",
        "deadzone | bitmap | zstd(19)",
    ),
    *("lowrank | float32", "lowrank(1) | int8", "lowrank(2) | float32"),
    *(
        "fold | rotate | eden",
        "fold(3) | rotate | eden(2)",
        "rotate | eden",
        "rotate(64) | eden(2)",
        "rotate(2) | sample | eden(3)",
        "rotate | sample(0.5) | eden(4)",
    ),
    *("deadzone", "deadzone(1.5) | gaps", "deadzone(4.0, step=0.25) | bitmap"),
    *("deadzone(0.1, step=0.1) | gaps", "float16 | gaps", "int8 | bitmap", "float32 | bitmap | lzma"),
    *PRESETS.values(),
)
"""Every stage's every example at least once, and the presets."""

UNSTEADY: Final = {"lowrank"}
"""Transforms whose encoders leave it to the machine in which order it adds up."""

VECTORS: Final[dict[str, tuple[list[float], list[int]]]] = {
    "no block": ([], []),
    "an empty block": ([1, -2, 0.5], [2, 0, 1]),
    "ties": ([127, 0.5, 1.5, -2.5, 126.5, -0.5, 64, 0.1, -0.1, 3.3], [7, 3]),
    "edges": ([0.0, -0.0, 2.0**-149, 3 * 2.0**-149, 2.0**-126, 3.4028234663852886e38, -65504, 65520], [5, 3]),
    "a kernel and its bias": ([*range(-7, 17), 0.5, -0.25, 3, 1e-3], [24, 4]),
    "runs": ([*[0.0] * 40, *[-1.5, 0.0, 0.0, 0.75] * 6], [32, 32]),
}


def file() -> dict[str, Any]:
    """Return the file's content."""
    return {"about": ABOUT, "good": [good(line, name) for line, name in pairs()], "bad": bad()}


def pairs() -> list[tuple[str, str]]:
    """Return every line with every vector; those that rotate refuse the largest numbers."""
    return [(line, name) for line in LINES for name in VECTORS if "rotate" not in line or name != "edges"]


def good(line: str, name: str) -> dict[str, Any]:
    """Return one message and what it says."""
    codec, (numbers, sizes) = parse(line), VECTORS[name]
    seed = 0xFEDCBA9876543210 if any(word in line for word in ("stochastic", "qsgd", "rotate")) else 0
    vector = np.array(numbers, dtype=np.float32)
    message = codec.encode(vector, sizes, seed=seed)
    return {
        "codec": line,
        "name": name,
        "sizes": sizes,
        "seed": f"{seed:016x}",
        "vector": hexed(vector),
        "message": message.hex(),
        "decoded": hexed(codec.decode(message, sizes, seed=seed)),
        "canonical": canonical(codec),
    }


def canonical(codec: Codec) -> bool:
    """Tell whether all encoders make the same bytes: compressors may differ from version to version."""
    return codec.entropy == ENTROPY["none"]() and steady(codec)


def steady(codec: Codec) -> bool:
    """Tell whether all encoders make the same numbers: products of matrices may differ in their last bits."""
    return not any(stage.name in UNSTEADY for stage in codec.transforms)


def bad() -> list[dict[str, Any]]:
    """Return messages that a decoder must refuse, each for the reason in `why`."""
    deflated, lzma2 = (
        parse(f"int8 | {name}").encode(np.ones(9, dtype=np.float32), (9,)) for name in ("huffman", "lzma")
    )
    rows: list[tuple[str, list[int], str, str]] = [
        ("float32", [2], "0000803f0000", "ends in the middle of a number"),
        ("float32", [1], "0000803f00", "a byte too many"),
        ("rotate | eden(4)", [2], "ffffff", "numbers that become infinite"),
        ("rotate | eden", [2], "000004", "a bit behind the last symbol"),
        ("rotate | eden", [2], "0000", "no symbols"),
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
        ("int8 | zstd", [1], "0000803f200109000001", "a Zstandard frame that says its content's size"),
        ("bfloat16", [1], "807f", "infinity"),
        ("int4", [1], "0000803f0f", "the step 8"),
        ("deadzone", [1], "0000803f0000803f80", "the step -128"),
        ("ternary | bitmap", [5], "0000803f3202", "a bit behind the last number's"),
        ("ternary | bitmap", [5], "0000803f120200", "a byte behind the last symbol"),
        ("ternary | gaps", [4], "0000803f05", "five symbols, the model has four numbers"),
        ("ternary | gaps", [5], "0000803f8159", "a symbol in the sixth place of five"),
        ("float16 | gaps", [2], "01080000", "a zero among the symbols that are not"),
        ("ternary | auto", [5], "0000803f03", "an unknown layout"),
    ]
    return [dict(zip(("codec", "sizes", "message", "why"), row, strict=True)) for row in rows]


def hexed(vector: Vector) -> str:
    """Return a vector as the file has it."""
    return vector.astype("<f4").tobytes().hex()


if __name__ == "__main__":
    FILE.write_text(json.dumps(file(), indent=1) + "\n")
