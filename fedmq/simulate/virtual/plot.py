"""The picture of runs in virtual time: accuracy by the simulated hour, who took part, and what went over the air."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Final

import matplotlib as mpl

mpl.use("Agg")  # no screen is needed, and none may be asked for in a service

import matplotlib.pyplot as plt
from matplotlib.ticker import PercentFormatter

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from fedmq.simulate.virtual.rows import VirtualRow

# Okabe and Ito's palette, which colour-blind readers can tell apart.
COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
GREY: Final = "#555555"
_UNITS: Final = (("days", 24.0), ("hours", 1.0), ("minutes", 1 / 60), ("seconds", 1 / 3600))


def draw(
    path: Path, title: str, runs: Mapping[str, Sequence[VirtualRow]], target: float | None = None
) -> None:
    """Write the picture of several runs in one world as PNG to `path`; a `target` accuracy is drawn as a line."""
    with plt.rc_context({"font.size": 10.5, "axes.spines.top": False, "axes.spines.right": False}):
        figure, (left, middle, right) = plt.subplots(
            1, 3, figsize=(13.5, 4.4), width_ratios=(2, 1, 1), layout="constrained"
        )
        figure.suptitle(title, x=0.01, ha="left", fontsize=12.5, fontweight="bold")
        last = max((rows[-1].hours for rows in runs.values() if rows), default=1.0)
        unit, hours = next(((name, hours) for name, hours in _UNITS if last >= 2 * hours), _UNITS[-1])
        for colour, (name, rows) in zip(COLOURS, runs.items(), strict=False):
            _run(left, middle, right, rows, colour=colour, name=name, unit=hours)
        _finish(left, middle, right, unit=unit, target=target)
        figure.savefig(path, dpi=110)
        plt.close(figure)


def _run(  # noqa: PLR0913 - what one run puts where
    left: Axes, middle: Axes, right: Axes, rows: Sequence[VirtualRow], *, colour: str, name: str, unit: float
) -> None:
    known = [row for row in rows if row.accuracy is not None]
    style = {"color": colour, "linewidth": 1.8}
    left.plot([row.hours / unit for row in known], [row.accuracy for row in known], label=name, **style)  # type: ignore[arg-type]
    counted = [row.accepted / max(1, row.trained) for row in rows]
    middle.plot([row.hours / unit for row in rows], counted, ".", color=colour, markersize=4)
    total = list(accumulate((row.bytes_up + row.bytes_down) / 1e6 for row in rows))
    right.plot([row.hours / unit for row in rows], total, **style)  # type: ignore[arg-type]


def _finish(left: Axes, middle: Axes, right: Axes, *, unit: str, target: float | None) -> None:
    if target is not None:
        left.axhline(target, color=GREY, linewidth=0.8, linestyle=":")
    left.yaxis.set_major_formatter(PercentFormatter(1.0))
    left.legend(frameon=False, loc="lower right", fontsize=9.5)
    middle.yaxis.set_major_formatter(PercentFormatter(1.0))
    middle.set_ylim(0, 1.04)
    right.set_ylim(bottom=0)
    titles = ("accuracy on held-out examples", "trainings that counted", "MB over the air, all devices")
    for axes, text in zip((left, middle, right), titles, strict=True):
        axes.set_title(text, loc="left", color=GREY, fontsize=10.5)
        axes.set_xlabel(f"simulated {unit}")
        axes.grid(axis="y", color="#e5e5e5", linewidth=0.7)
