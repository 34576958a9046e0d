"""What error feedback costs a device: bytes written, for an update that counts and one that does not, and time.

The update is that of `benchmarks.codecs`: an MLP of 101,770 parameters. Bytes are the sizes of the files that are
written; times are CPU time, the least of several, with the syncs of the disk at hand.

    python -m benchmarks.feedback --json
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from benchmarks.codecs import least_ms, real_update
from benchmarks.report import Goal, report
from fedmq.codecs import parse
from fedmq.device.keepsakes import DiskKeepsakes
from fedmq.device.kept import End, Origin
from fedmq.device.residual import Whole

if TYPE_CHECKING:
    from fedmq.device.residual import Residual
    from fedmq.vectors import Layout, Vector

LINES: Final = {
    "float32": "feedback | float32",
    "int8": "feedback | int8 | huffman",
    "deadzone": "feedback | deadzone(3) | auto | lzma",
    "topk": "feedback | topk(0.01) | float16 | auto",
}
RUN, UPDATE = b"run-0001", b"update-1"
GOAL_VECTORS: Final = 1.05


def residual_of(line: str, delta: Vector, layout: Layout) -> tuple[int, Residual]:
    """Return the encoded update's length, and what it leaves behind."""
    codec = parse(line)
    data = codec.encode(delta, layout.sizes)
    return len(data), Whole.of(delta, [], 1, 1.0, None).after(codec.decode(data, layout.sizes))


def one_round(residual: Residual, end: End) -> int:
    """Return the bytes written for one round."""
    with TemporaryDirectory() as name:
        keepsakes = DiskKeepsakes(Path(name))
        keepsakes.put(Origin(RUN, 1, 1), UPDATE, {}, residual)
        written = sum(path.stat().st_size for path in Path(name).iterdir())
        before = {path: path.stat().st_ino for path in Path(name).iterdir()}
        keepsakes.settle(UPDATE, end)
        for path in Path(name).iterdir():
            if path.stat().st_ino not in before.values():
                written += path.stat().st_size
        return written


def figures_of(name: str, delta: Vector, layout: Layout, times: int) -> dict[str, float]:
    """Measure one codec."""
    update, residual = residual_of(LINES[name], delta, layout)
    return {
        f"{name}_update_bytes": update,
        f"{name}_written_counted": one_round(residual, End.MOVED),
        f"{name}_written_late": one_round(residual, End.RETURNED),
        f"{name}_ms": least_ms(lambda: one_round(residual, End.MOVED), times),
    }


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="fewer runs for each time")
    options.add_argument("--json", action="store_true", help="one line of JSON instead of a table")
    given = options.parse_args()
    delta, layout = real_update()
    figures: dict[str, float] = {"vector_bytes": 4 * delta.size}
    for name in LINES:
        figures |= figures_of(name, delta, layout, 3 if given.quick else 20)
    worst = max(figures[f"{name}_written_counted"] for name in ("deadzone", "topk")) / figures["vector_bytes"]
    goal = Goal("written a round, in vectors, with codecs that want feedback", worst, "<=", GOAL_VECTORS)
    report(figures, [goal], given.json)


if __name__ == "__main__":
    main()
