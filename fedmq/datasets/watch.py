"""Smart-watch recordings of shoulder exercises: ten people, seven exercises, either arm.

Source: D. Burns, N. Leung, M. Hardisty, C. Whyne, P. Henry and S. McLachlin, "Shoulder Physiotherapy Exercise
Recognition: Machine Learning the Inertial Signals from a Smartwatch", 2018, https://arxiv.org/abs/1802.01489.
`smartwatch/PROVENANCE.md` says how the files were made and under which licence they stand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fedmq.datasets.dataset import Dataset
from fedmq.datasets.files import read
from fedmq.errors import MisuseError

if TYPE_CHECKING:
    from numpy.typing import NDArray

PERSONS = 10
RATE_HZ = 50
CHANNELS = ("ax", "ay", "az", "wx", "wy", "wz")
"""Acceleration in g with gravity in it, then rate of turn in rad/s, along the watch's own axes."""

EXERCISES = (
    "pendulum",
    "abduction",
    "forward elevation",
    "internal rotation",
    "external rotation",
    "trapezius extension",
    "upright row",
)
UNITS = (1.0, 1.0, 1.0, 2.0, 2.0, 2.0)
"""What counts as 1.0 in a window, for each channel: 1 g, and 2 rad/s.

Fixed round numbers near the spread of such signals. A mean and deviation taken from the data would need everyone's
recordings in one place, which is what a federation is there to avoid.
"""


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """One exercise done with one arm without a pause: `signal` has shape (samples, 6), in the units of `CHANNELS`."""

    person: int
    exercise: int
    right: bool
    signal: NDArray[np.float32]


def recordings(person: int) -> tuple[Recording, ...]:
    """Return the fourteen recordings of `person` (0 to 9), by exercise and then left arm before right.

    Raises `MisuseError` for any other person and `StoreError` when the file is damaged.
    """
    if not 0 <= person < PERSONS:
        raise MisuseError(f"there is no person {person}: the recordings are of persons 0 to {PERSONS - 1}")
    stored = read(f"smartwatch/person-{person + 1:02}.npz")
    # Differences of int16 wrap around, and so does their sum: the pair is exact.
    steps = np.cumsum(stored["deltas"], axis=1, dtype=np.int16).T
    signals = np.split(steps * stored["scale"], np.cumsum(stored["lengths"])[:-1])
    facts = zip(stored["exercise"].tolist(), stored["right"].tolist(), signals, strict=True)
    return tuple(Recording(person, exercise, right, signal) for exercise, right, signal in facts)


def smartwatch(*, window_s: float = 2.0, overlap: float = 0.5, test_fraction: float = 0.25) -> Dataset:
    """Return windows of `window_s` seconds at 50 Hz, labelled by exercise and owned by the person who did it.

    `x` has shape (windows, samples in a window, 6), in `UNITS`. Neighbouring windows share the fraction `overlap`
    of their samples. The last `test_fraction` of every recording is held out: windows are cut on either side of that
    moment, so that none has samples from both. Windows stand in the order of person, exercise, arm and time.

    Raises `MisuseError` for a fraction outside its range or a window that does not fit into the shortest part, and
    `StoreError` when a file is damaged.
    """
    size, step = _geometry(window_s, overlap)
    if not 0 < test_fraction < 1:
        raise MisuseError(f"test_fraction is {test_fraction}: give a fraction above 0 and below 1")
    everyone = [recording for person in range(PERSONS) for recording in recordings(person)]
    halves = [_halves(recording.signal, test_fraction) for recording in everyone]
    x, y, owner = _windows(everyone, [before for before, _ in halves], size, step)
    x_test, y_test, owner_test = _windows(everyone, [after for _, after in halves], size, step)
    names = tuple(f"person-{person + 1:02}" for person in range(PERSONS))
    return Dataset(x, y, owner, x_test, y_test, owner_test, classes=EXERCISES, owners=names)


def _geometry(window_s: float, overlap: float) -> tuple[int, int]:
    size = round(window_s * RATE_HZ)
    if size < 1:
        raise MisuseError(f"window_s is {window_s}: a window holds one sample at least, {1 / RATE_HZ} s")
    if not 0 <= overlap < 1:
        raise MisuseError(f"overlap is {overlap}: give 0 or more, and less than 1")
    return size, max(1, round(size * (1 - overlap)))


def _halves(
    signal: NDArray[np.float32], test_fraction: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    moment = round(len(signal) * (1 - test_fraction))
    return signal[:moment], signal[moment:]


def _windows(
    of: list[Recording], parts: list[NDArray[np.float32]], size: int, step: int
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    shortest = min(map(len, parts))
    if size > shortest:
        raise MisuseError(
            f"a window of {size / RATE_HZ} s is longer than the shortest part of a recording, {shortest / RATE_HZ} s: "
            "shorten window_s or move test_fraction"
        )
    cuts = [np.lib.stride_tricks.sliding_window_view(part, size, axis=0)[::step] for part in parts]
    counts = [len(cut) for cut in cuts]
    x = np.concatenate(cuts).swapaxes(1, 2) / np.array(UNITS, np.float32)
    y = np.repeat([recording.exercise for recording in of], counts)
    owner = np.repeat([recording.person for recording in of], counts)
    return np.ascontiguousarray(x), y, owner
