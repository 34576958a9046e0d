"""The picture of a comparison of codecs: bytes against error, alone and in the mean of many."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import matplotlib as mpl

mpl.use("Agg")  # no screen is needed, and none may be asked for in a service

import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter

from fedmq.inspection.comparing import TOGETHER
from fedmq.protocol.quantities import spell_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from fedmq.inspection.comparing import Row

# Okabe and Ito's palette, which colour-blind readers can tell apart.
COLOURS: Final = {"all": "#0072B2", "most": "#009E73", "averages": "#D55E00"}
GREY: Final = "#555555"
LEAST: Final = 1e-5
"""Error at which exact codecs are drawn: a logarithmic axis has no zero."""


def draw(path: Path, title: str, rows: Sequence[Row]) -> None:
    """Write the picture as PNG to `path`."""
    with plt.rc_context({"font.size": 10.5, "axes.spines.top": False, "axes.spines.right": False}):
        figure, axes = plt.subplots(figsize=(9.5, 5.5), layout="constrained")
        figure.suptitle(title, x=0.01, ha="left", fontsize=12.5, fontweight="bold")
        shown = sorted((row for row in rows if not row.refused), key=lambda row: row.nbytes)
        for place, row in enumerate(shown):
            _point(axes, row, above=place % 2 == 0)  # neighbours' names do not cover one another
        _finish(axes)
        figure.savefig(path, dpi=130)
        plt.close(figure)


def _point(axes: Axes, row: Row, *, above: bool) -> None:
    colour, error, together = COLOURS[row.rules], max(row.error, LEAST), max(row.error_together, LEAST)
    axes.plot([row.nbytes] * 2, [error, together], color=colour, lw=1, alpha=0.5)
    axes.plot(row.nbytes, together, "o", mfc="white", mec=colour, ms=7)
    axes.plot(row.nbytes, error, "o", color=colour, ms=7)
    offset = (7, 5 if above else -13)
    name = row.name if row.error else f"{row.name}: no error"
    axes.annotate(name, (row.nbytes, error), xytext=offset, textcoords="offset points", fontsize=9.5)


def _finish(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.margins(x=0.12, y=0.1)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda count, _: spell_bytes(count)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))
    axes.set_xlabel("bytes of one update")
    axes.set_title("error, of the update's length", loc="left", color=GREY, fontsize=10.5)
    axes.grid(color="#dddddd", lw=0.8)
    axes.set_axisbelow(True)
    for name, words in (
        ("all", "for all rules"),
        ("most", "for most rules"),
        ("averages", "for rules that average"),
    ):
        axes.plot([], [], "o", color=COLOURS[name], label=words)
    axes.plot([], [], "o", mfc="white", mec=GREY, label=f"the mean of {TOGETHER}")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
