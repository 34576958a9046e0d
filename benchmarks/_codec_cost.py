"""What a codec costs a device: milliseconds on this machine, instructions, and what these come to on a small board.

Instructions are counted by valgrind's callgrind, with every vector instruction wider than four numbers switched off:
ARM's take four as well. A board's time is instructions by clock by an assumed number of instructions per cycle; it is
an estimate, no measurement.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from benchmarks._networks import Perceptron
from benchmarks.codecs import least_times, real_update
from fedmq.codecs import parse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fedmq.vectors import Vector

BOARDS: Final = {"Pi 5": 2.4e9 * 1.5, "Pi Zero 2 W": 1.0e9 * 0.5}
"""Instructions a second: clock times instructions per cycle, 1.5 for a Cortex-A76 (out of order) and 0.5 for a
Cortex-A53 (in order, small caches), both on the careful side for loops over arrays."""
_NARROW: Final = {
    "NPY_DISABLE_CPU_FEATURES": "AVX2 FMA3 AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL X86_V3 X86_V4",
    "OPENBLAS_CORETYPE": "Nehalem",
    "OPENBLAS_NUM_THREADS": "1",
}
_MARK: Final = "getppid"
"""A function of the C library that nothing else calls: callgrind writes down what it has counted at each call."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one codec: CPU time here in milliseconds, and instructions, both to encode and to decode a real update."""

    encode_ms: float
    decode_ms: float
    encode_count: float | None = None
    decode_count: float | None = None

    @property
    def both_ms(self) -> float:
        """Encode and decode."""
        return self.encode_ms + self.decode_ms

    def on(self, board: str) -> float | None:
        """Return the milliseconds that both would take there, by the number of instructions; None where not counted."""
        if self.encode_count is None or self.decode_count is None:
            return None
        return 1000 * (self.encode_count + self.decode_count) / BOARDS[board]


def costs_of(lines: Sequence[str], times: int, *, count: bool) -> dict[str, Cost]:
    """Measure codecs on a real update of 101,770 numbers: the least of so many times; with `count`, instructions."""
    delta, layout = real_update()
    counted = instructions(lines, delta) if count else {}
    spent = least_times(lines, delta, layout.sizes, times)
    return {
        line: Cost(spent[line].encode_ms, spent[line].decode_ms, *counted.get(line, ())) for line in lines
    }


def instructions(lines: Sequence[str], delta: Vector) -> dict[str, tuple[float, float]]:
    """Return the instructions of encoding and of decoding an update, for each line; nothing without valgrind."""
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/update.npy", delta)
        tool = ["--tool=callgrind", f"--dump-before={_MARK}", f"--callgrind-out-file={folder}/counts"]
        command = [valgrind, *tool, sys.executable, "-m", __name__, f"{folder}/update.npy", *lines]
        subprocess.run(command, env={**os.environ, **_NARROW}, capture_output=True, check=True)
        counts = [_count(Path(f"{folder}/counts.{number}")) for number in range(2, 2 + 2 * len(lines))]
    return dict(zip(lines, zip(counts[::2], counts[1::2], strict=True), strict=True))


def _count(path: Path) -> float:
    return float(re.findall(r"^(?:totals|summary): (\d+)", path.read_text(encoding="utf-8"), re.MULTILINE)[0])


def _work(path: str, lines: Sequence[str]) -> None:
    """Encode and decode with each line, twice, the second time between two marks; what valgrind counts."""
    delta, sizes = np.load(path), Perceptron().layout.sizes
    for codec in map(parse, lines):
        codec.decode(codec.encode(delta, sizes, seed=1), sizes, seed=1)
    for codec in map(parse, lines):
        os.getppid()
        data = codec.encode(delta, sizes, seed=1)
        os.getppid()
        codec.decode(data, sizes, seed=1)
    os.getppid()


if __name__ == "__main__":
    _work(sys.argv[1], sys.argv[2:])
