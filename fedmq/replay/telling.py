"""A replay for people, as a table, and for programs, as plain data."""

from __future__ import annotations

import textwrap
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from fedmq.replay.course import RECORDED

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fedmq.replay.course import Course, Point, Replay
    from fedmq.replay.record import Record

CAVEAT: Final = "Updates are replayed, devices are not retrained"
"""What a reader of the curves has to know, and what follows from it, as the courses go on by themselves or not."""
_FREE: Final = (
    "each was trained from the model that the recorded rule had made. The further a course moves away from that, the "
    "less its updates suit it, so its curve is no forecast. --each-round begins each round with the recorded model."
)
_ANCHORED: Final = (
    "every round begins with the recorded model, from which its updates were trained, so each figure is what the rule "
    "makes of that one round."
)

_LEAST_COLUMN: Final = 10


def caveat(replay: Replay, *, short: bool = False) -> str:
    """Return in words what the curves cannot say."""
    if short:
        return f"{CAVEAT}{'; each round begins with the recorded model' if replay.anchored else ''}."
    return f"{CAVEAT}: {_ANCHORED if replay.anchored else _FREE}"


def introduction(record: Record, replay: Replay) -> Iterator[str]:
    """Yield what is replayed, and under which rules."""
    recording = record.recording
    updates = sum(kept.updates for kept in recording.rounds)
    first, last = recording.rounds[0].round, recording.rounds[-1].round
    yield f"{record.name}: rounds {first} to {last}, {updates:,} updates, {recording.bytes:,} bytes"
    width = max(len(course.name) for course in replay.courses)
    yield from (f"  {course.name:<{width}}  {course.rule}" for course in replay.courses)


def heading(courses: Sequence[Course], *, judged: bool) -> list[str]:
    """Return the two lines above the table: what the figures are, and whose."""
    what = "accuracy on everyone's held-out data" if judged else "L2 distance from the recorded model"
    return [what, _line("round", [course.name for course in courses], courses)]


def row(points: Sequence[Point], courses: Sequence[Course], *, judged: bool) -> str:
    """Return one round's line, with a mark and a remark where a course's model stayed or updates were refused."""
    figures = [_figure(point, judged=judged) for point in points]
    remarks = [
        remark
        for point, course in zip(points, courses, strict=True)
        for remark in _remarks(point, course.name)
    ]
    return _line(str(points[0].round), figures, courses) + (f"   {'; '.join(remarks)}" if remarks else "")


def _line(first: str, cells: Sequence[str], courses: Sequence[Course]) -> str:
    widths = (max(_LEAST_COLUMN, len(course.name)) for course in courses)
    return f"{first:>7}" + "".join(f"   {cell:>{width}}" for cell, width in zip(cells, widths, strict=True))


def _figure(point: Point, *, judged: bool) -> str:
    if judged:
        return "-" if point.accuracy is None else f"{point.accuracy:.1%}"
    return f"{point.distance:.4g}"


def _remarks(point: Point, name: str) -> Iterator[str]:
    if point.outcome != "stepped":
        yield f"{name} stays: {point.outcome}"
    if point.refused:
        reason = max(point.reasons, key=lambda text: point.reasons[text])
        yield f"{name} refuses {point.refused}: {reason}"


def closing(replay: Replay, *, judged: bool) -> Iterator[str]:
    """Yield the last and best figures, whether the recorded rule gave the run's models again, and the caveat."""
    courses = replay.courses
    if judged:
        yield _line("last", [_figure(course.points[-1], judged=True) for course in courses], courses)
        yield _line("best", [_best(course) for course in courses], courses)
    else:
        yield _line("moved", [f"{course.points[-1].moved:.4g}" for course in courses], courses)
    yield ""
    yield faithfulness(courses[0])
    yield from textwrap.wrap(caveat(replay), 110)


def _best(course: Course) -> str:
    known = [point.accuracy for point in course.points if point.accuracy is not None]
    return f"{max(known):.1%}" if known else "-"


def faithfulness(course: Course) -> str:
    """Return in words whether the recorded rule gave the run's models again."""
    wrong = [point.round for point in course.points if not point.same]
    if not wrong:
        return f"The recorded rule gives each of the run's {len(course.points)} models again, bit for bit."
    return (
        f"The recorded rule gives other bits than the run had from round {wrong[0]} on: was it recorded with another "
        "version of fedmq or NumPy, or on another processor? Curves are still comparable with each other."
    )


def as_data(record: Record, replay: Replay) -> dict[str, Any]:
    """Return everything as plain data, for ``--json`` and replay.json."""
    courses = replay.courses
    return {
        "run": record.recording.state.run.hex(),
        "name": record.name,
        "each_round": replay.anchored,
        "note": caveat(replay),
        "bit_for_bit": next(course.faithful for course in courses if course.name == RECORDED),
        "courses": [
            {
                "name": course.name,
                "rule": course.rule,
                "points": [asdict(point) for point in course.points],
            }
            for course in courses
        ],
    }
