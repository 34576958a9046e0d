"""The device's own labelled recordings of an inertial sensor, read from CSV files: the data of `sensor*.py`.

A folder for each exercise holds one CSV file for each recording of it::

    /var/lib/fedmq/recordings/
        pendulum/2026-03-01.csv
        forward-elevation/monday.csv
        …

A file has the header ``t,ax,ay,az,wx,wy,wz`` and 50 rows a second: seconds, acceleration in g (gravity included), rate
of turn in rad/s. ``FEDMQ_RECORDINGS`` in the environment names another folder. Where that folder does not exist, data()
falls back to one of the ten persons whose recordings come with fedmq, so that a device without a sensor can try it out:
the number in the device's name says which.
"""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from fedmq.datasets import smartwatch
from fedmq.datasets.watch import CHANNELS, EXERCISES, RATE_HZ, UNITS
from fedmq.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_log = logging.getLogger(__name__)

FOLDER: Final = "/var/lib/fedmq/recordings"
LABELS: Final = tuple(exercise.replace(" ", "-") for exercise in EXERCISES)
HEADER: Final = ",".join(("t", *CHANNELS))
WINDOW: Final = 2 * RATE_HZ
"""Samples in a window of 2 s; neighbouring windows share half of them."""
HELD_OUT: Final = 0.25
"""The last part of each recording, which is never trained on."""
RATE_TOLERANCE: Final = 0.1
LONGEST_GAP_S: Final = 0.1


class Share(NamedTuple):
    """Windows of shape (windows, 100, 6), in units of 1 g and 2 rad/s, and the number of each one's exercise."""

    x: NDArray[np.float32]
    y: NDArray[np.int64]


def data(device: str) -> tuple[Share, Share] | Share:
    """Return what there is to train on and, where recordings are long enough, what is held out. Raises ConfigError."""
    folder = Path(os.environ.get("FEDMQ_RECORDINGS", FOLDER))
    if folder.is_dir():
        return own(folder)
    person = _person(device)
    _log.warning(
        "there is no folder %s: %s trains on person %d of the shipped recordings", folder, device, person + 1
    )
    return shipped(person)


def own(folder: Path) -> tuple[Share, Share] | Share:
    """Return the windows of all recordings in the folder. Raises ConfigError naming the file that cannot be used."""
    train, held_out = [], []
    for label, path in _files(folder):
        signal = read(path)
        moment = round(len(signal) * (1 - HELD_OUT))
        train.append((label, cut(signal[:moment])))
        held_out.append((label, cut(signal[moment:])))
    trained, tested = _share(train), _share(held_out)
    if not len(trained.y):
        raise ConfigError(
            f"{folder} holds no recording of {WINDOW / RATE_HZ / (1 - HELD_OUT):.1f} s or longer: put CSV files into "
            f"folders named {', '.join(LABELS)}"
        )
    return (trained, tested) if len(tested.y) else trained


def shipped(person: int) -> tuple[Share, Share]:
    """Return the windows of one of the ten persons (0 to 9) whose recordings come with fedmq."""
    everyone = smartwatch()
    mine, held_out = everyone.owner == person, everyone.owner_test == person
    return Share(everyone.x[mine], everyone.y[mine]), Share(
        everyone.x_test[held_out], everyone.y_test[held_out]
    )


def read(path: Path) -> NDArray[np.float32]:
    """Return a recording's samples, of shape (samples, 6), in windows' units. Raises ConfigError."""
    header, *rows = path.read_text(encoding="utf-8", errors="replace").splitlines() or [""]
    if header.strip() != HEADER:
        raise ConfigError(f"{path} begins with {header[:60]!r}: its first line must be {HEADER!r}")
    if len(rows) < WINDOW:
        raise ConfigError(
            f"{path} holds {len(rows)} rows: {WINDOW} make one window; take it away, or record longer"
        )
    table = _table(path, rows)
    _check_clock(path, table[:, 0])
    return np.asarray(table[:, 1:] / np.array(UNITS), np.float32)


def _table(path: Path, rows: list[str]) -> NDArray[np.float64]:
    try:
        table = np.loadtxt(rows, delimiter=",", ndmin=2)
    except ValueError as error:
        raise ConfigError(
            f"{path} cannot be read as numbers ({str(error).splitlines()[0]}): fix that row"
        ) from None
    if table.shape[1] != len(CHANNELS) + 1:
        raise ConfigError(
            f"{path} holds {table.shape[1]} numbers a row: it needs {len(CHANNELS) + 1}, as its header says"
        )
    if not np.isfinite(table).all():
        raise ConfigError(
            f"{path} holds numbers that are not finite: take those rows out, or record it again"
        )
    return table


def _check_clock(path: Path, seconds: NDArray[np.float64]) -> None:
    steps = np.diff(seconds)
    if steps.min() <= 0 or steps.max() > LONGEST_GAP_S:
        worst = int(np.argmax(np.where(steps <= 0, np.inf, steps)))
        raise ConfigError(
            f"{path} jumps from {seconds[worst]:.2f} s to {seconds[worst + 1]:.2f} s in row {worst + 3}: split it there"
        )
    rate = 1 / steps.mean()
    if abs(rate / RATE_HZ - 1) > RATE_TOLERANCE:
        raise ConfigError(f"{path} was recorded at {rate:.1f} Hz: record at {RATE_HZ} Hz, or resample it")


def cut(signal: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return half-overlapping windows of shape (windows, 100, 6); none where the signal is shorter than one."""
    if len(signal) < WINDOW:
        return np.empty((0, WINDOW, len(CHANNELS)), np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(signal, WINDOW, axis=0)[:: WINDOW // 2]
    return np.ascontiguousarray(windows.swapaxes(1, 2))


def _files(folder: Path) -> Iterator[tuple[int, Path]]:
    """Yield every recording with its label's number, in a fixed order."""
    for labelled in sorted(path for path in folder.iterdir() if path.is_dir()):
        if labelled.name not in LABELS:
            raise ConfigError(f"{labelled} is no known exercise: name the folder one of {', '.join(LABELS)}")
        for path in sorted(labelled.glob("*.csv")):
            yield LABELS.index(labelled.name), path


def _share(parts: list[tuple[int, NDArray[np.float32]]]) -> Share:
    windows = [part for _, part in parts] or [np.empty((0, WINDOW, len(CHANNELS)), np.float32)]
    labels = [np.full(len(part), label, np.int64) for label, part in parts] or [np.empty(0, np.int64)]
    return Share(np.concatenate(windows), np.concatenate(labels))


def _person(device: str) -> int:
    digits = re.findall(r"\d+", device)
    return (int(digits[-1]) - 1) % 10 if digits else 0
