"""The picture of a replay: one curve for each rule, accuracy where there is data to judge by, else distance."""

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

    from fedmq.replay.course import Course, Point

# Okabe and Ito's palette, which colour-blind readers can tell apart; the recorded course is black.
COLOURS: Final = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")
DASHES: Final = ("-", "--", ":", "-.")
GREY: Final = "#555555"


def draw(path: Path, title: str, courses: Sequence[Course], note: str) -> None:
    """Write the picture as PNG to `path`, with a note below it."""
    judged = any(point.accuracy is not None for course in courses for point in course.points)
    with plt.rc_context({"font.size": 10.5, "axes.spines.top": False, "axes.spines.right": False}):
        figure, axes = plt.subplots(figsize=(9.5, 5.0), layout="constrained")
        figure.suptitle(title, x=0.01, ha="left", fontsize=12.5, fontweight="bold")
        for index, course in enumerate(courses):
            _curve(axes, course, index, judged=judged)
        _finish(axes, judged=judged)
        figure.text(0.01, -0.03, note, color=GREY, fontsize=9)
        figure.savefig(path, dpi=130, bbox_inches="tight")
        plt.close(figure)


def _curve(axes: Axes, course: Course, index: int, *, judged: bool) -> None:
    points = [
        (point.round, value) for point in course.points if (value := _value(point, judged=judged)) is not None
    ]
    if not points:
        return
    rounds, values = zip(*points, strict=True)
    last = f"{values[-1]:.1%}" if judged else f"{values[-1]:.3g}"
    axes.plot(
        rounds,
        values,
        color=COLOURS[index % len(COLOURS)],
        ls=DASHES[index // len(COLOURS) % len(DASHES)],
        lw=2.6 if index == 0 else 1.9,
        marker="o" if len(points) == 1 else None,
        label=f"{course.name}  {last}",
        zorder=2.5 if index == 0 else 3,
    )


def _value(point: Point, *, judged: bool) -> float | None:
    return point.accuracy if judged else point.distance


def _finish(axes: Axes, *, judged: bool) -> None:
    what = "accuracy on everyone's held-out data" if judged else "L2 distance from the recorded model"
    axes.set_title(what, loc="left", color=GREY, fontsize=10.5)
    axes.set_xlabel("round")
    if judged:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color="#dddddd", lw=0.8)
    axes.set_axisbelow(True)
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0), title="last value")
