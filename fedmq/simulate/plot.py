"""The picture of a run: accuracy by round against training without federation, and what went over the air."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import matplotlib as mpl

mpl.use("Agg")  # no screen is needed, and none may be asked for in a service

import matplotlib.pyplot as plt
from matplotlib.ticker import MaxNLocator, PercentFormatter

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from fedmq.simulate.baselines import Curve
    from fedmq.simulate.runfolder import RoundRow

# Okabe and Ito's palette, which colour-blind readers can tell apart.
FEDERATED: Final = "#0072B2"
BASELINES: Final = {"pooled": "#009E73", "local only": "#D55E00"}
UP: Final = "#56B4E9"
DOWN: Final = "#E69F00"
GREY: Final = "#555555"


def draw(path: Path, title: str, rows: Sequence[RoundRow], curves: Sequence[Curve], judged: str) -> None:
    """Write the picture as PNG to `path`; `judged` says what the accuracy is of."""
    with plt.rc_context({"font.size": 10.5, "axes.spines.top": False, "axes.spines.right": False}):
        figure, (left, right) = plt.subplots(
            1, 2, figsize=(11.5, 4.6), width_ratios=(2, 1), layout="constrained"
        )
        figure.suptitle(title, x=0.01, ha="left", fontsize=12.5, fontweight="bold")
        _accuracy(left, rows, curves)
        left.set_title(judged, loc="left", color=GREY, fontsize=10.5)
        _traffic(right, rows)
        figure.savefig(path, dpi=130)
        plt.close(figure)


def _accuracy(axes: Axes, rows: Sequence[RoundRow], curves: Sequence[Curve]) -> None:
    known = [(row.round, row.accuracy) for row in rows if row.accuracy is not None]
    for curve in curves:
        colour = BASELINES.get(curve.name, GREY)
        axes.plot(*zip(*curve.points, strict=True), color=colour, lw=1.6, ls="--", marker="o", ms=3.5)
    if known:
        axes.plot(*zip(*known, strict=True), color=FEDERATED, lw=2.4)
    ends = [(curve.last, curve.name, BASELINES.get(curve.name, GREY)) for curve in curves]
    ends += [(known[-1][1], "federated", FEDERATED)] if known else []
    _label_ends(axes, sorted(ends), max(row.round for row in rows) if rows else 1)
    axes.set_xlabel("round (for the others: as much training)")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color="#dddddd", lw=0.8)
    axes.set_axisbelow(True)


def _label_ends(axes: Axes, ends: Sequence[tuple[float, str, str]], last: int) -> None:
    """Write each curve's name and final value beside its end, moved apart where they would overlap."""
    lowest, highest = axes.get_ylim()
    gap, below = 0.065 * (highest - lowest), float("-inf")
    for value, name, colour in ends:
        at = max(value, below + gap)
        axes.annotate(f"  {name} {value:.1%}", (last, at), color=colour, va="center", annotation_clip=False)
        below = at


def _traffic(axes: Axes, rows: Sequence[RoundRow]) -> None:
    rounds = [row.round for row in rows]
    up = [row.bytes_up / 1e3 for row in rows]
    down = [row.bytes_down / 1e3 for row in rows]
    axes.bar(rounds, down, color=DOWN, label="down", width=0.8)
    axes.bar(rounds, up, bottom=down, color=UP, label="up", width=0.8)
    axes.set_title("kB a round, whole fleet", loc="left", color=GREY, fontsize=10.5)
    axes.set_xlabel("round")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
