"""`fedmq replay`: a record, the rules to compare, the table as it grows, and the files that are left behind."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from fedmq.algorithms import Algorithm
from fedmq.replay import telling
from fedmq.replay.candidates import candidates
from fedmq.replay.course import Replay
from fedmq.replay.record import open_record
from fedmq.store.files import make_folder, write_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from fedmq.replay.course import Judge
    from fedmq.replay.record import Record

FOLDER: Final = "replay"
"""Where figures and picture go, in the folder that was replayed."""


def play(  # noqa: PLR0913 - what the command line gives
    path: Path,
    rules: Sequence[str],
    out: Path | None,
    say: Callable[[str], None],
    *,
    as_json: bool,
    anchored: bool = False,
) -> None:
    """Replay the run at `path` under its own rule and each of `rules`, tell of it, and leave the files in `out`.

    For `anchored`, see `Replay`. Raises FedmqError.
    """
    quiet: Callable[[str], None] = (lambda _: None) if as_json else say
    record = open_record(path)
    chosen = candidates(rules)
    judge = _judge(record)
    replay = Replay(record.recording, chosen, judge, anchored=anchored)
    _show(record, replay, quiet, judged=judge is not None)
    data = telling.as_data(record, replay)
    folder = make_folder(out or path / FOLDER)
    write_whole(folder / "replay.json", (json.dumps(data, indent=2) + "\n").encode())
    names = ["replay.json", *_draw(folder, record, replay)]
    quiet(f"{folder}/: {', '.join(names)}")
    if as_json:
        say(json.dumps(data))


def _judge(record: Record) -> Judge | None:
    """Return what evaluates a model as the simulation did; None for a service, which has no data."""
    if record.settings is None:
        return None
    from fedmq.simulate.fleet import build_fleet, build_judge  # noqa: PLC0415 - data sets, frameworks: only where needed
    from fedmq.simulate.judging import Judge  # noqa: PLC0415 - as above

    table, algorithm = record.settings.fleet, record.settings.algorithm
    if type(algorithm).apart is not Algorithm.apart:
        fleet = build_fleet(table)
        return Judge(algorithm, fleet.trainers, fleet.pooled)
    pooled = build_judge(table)
    return Judge(algorithm, {}, pooled) if pooled is not None else None


def _show(record: Record, replay: Replay, say: Callable[[str], None], *, judged: bool) -> None:
    for text in telling.introduction(record, replay):
        say(text)
    say("")
    for text in telling.heading(replay.courses, judged=judged):
        say(text)
    for points in replay.run():
        say(telling.row(points, replay.courses, judged=judged))
    for text in telling.closing(replay, judged=judged):
        say(text)


def _draw(folder: Path, record: Record, replay: Replay) -> list[str]:
    try:
        from fedmq.replay.plot import draw  # noqa: PLC0415 - matplotlib is an extra
    except ImportError:
        return []
    title = f"{record.name}, {'round by round' if replay.anchored else 'replayed'}"
    draw(folder / "replay.png", title, replay.courses, telling.caveat(replay, short=True))
    return ["replay.png"]
