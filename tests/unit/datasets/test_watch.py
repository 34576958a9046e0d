"""The smart-watch recordings and the windows cut from them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest

from fedmq.datasets import Dataset, smartwatch
from fedmq.datasets.watch import EXERCISES, PERSONS, RATE_HZ, UNITS, recordings
from fedmq.errors import MisuseError

if TYPE_CHECKING:
    from numpy.typing import NDArray

SCALE = np.array(UNITS, np.float32)
# The first sample of the first recording in the source: person 7, pendulum, right arm.
FIRST = (-1.083608, -0.018609, -0.02726, 0.41141, -1.603097, -2.488642)


@pytest.fixture(scope="module")
def data() -> Dataset:
    """The windows one gets without asking for anything else."""
    return smartwatch()


def test_holds_every_sample_of_the_source() -> None:
    everyone = [recording for person in range(PERSONS) for recording in recordings(person)]
    assert sum(len(recording.signal) for recording in everyone) == 244_102
    assert Counter((r.person, r.exercise, r.right) for r in everyone) == Counter(
        (person, exercise, right) for person in range(10) for exercise in range(7) for right in (False, True)
    )


def test_the_first_samples_are_those_of_the_source() -> None:
    first = next(r for r in recordings(6) if r.exercise == 0 and r.right)
    assert len(first.signal) == 1333
    np.testing.assert_allclose(first.signal[0], FIRST, atol=5.1e-4)
    np.testing.assert_allclose(first.signal[0, :3], FIRST[:3], atol=1.01e-4)


def test_a_wrist_feels_about_one_g_and_turns_both_ways() -> None:
    for person in range(PERSONS):
        signal = np.concatenate([recording.signal for recording in recordings(person)])
        assert 0.9 < np.median(np.linalg.norm(signal[:, :3], axis=1)) < 1.3
        assert (np.abs(signal[:, 3:].mean(0)) < 0.2).all()


@pytest.mark.parametrize("person", [-1, 10])
def test_refuses_a_person_who_is_not_there(person: int) -> None:
    with pytest.raises(MisuseError, match=f"no person {person}"):
        recordings(person)


def test_default_windows(data: Dataset) -> None:
    assert (data.x.shape, data.x_test.shape) == ((3455, 100, 6), (1010, 100, 6))
    assert [str(array.dtype) for array in (data.x, data.y, data.y_test)] == ["float32", "int64", "int64"]
    assert data.owner is not None
    assert data.owner_test is not None
    assert {*data.owner} == {*data.owner_test} == {*range(10)}
    assert {*data.y} == {*data.y_test} == {*range(7)}
    assert (data.classes, len(data.owners)) == (EXERCISES, 10)
    assert data.x.flags.c_contiguous


@pytest.mark.parametrize(("window_s", "overlap", "test_fraction"), [(2.0, 0.5, 0.25), (0.5, 0.0, 0.5)])
def test_no_sample_is_on_both_sides_of_the_split(
    window_s: float, overlap: float, test_fraction: float
) -> None:
    """Each sample's six values name it; those of no held-out window turn up in a window to train on."""
    data = smartwatch(window_s=window_s, overlap=overlap, test_fraction=test_fraction)
    assert data.x.shape[1] == round(window_s * RATE_HZ)
    assert not _names(data.x) & _names(data.x_test)
    assert len(data.x_test) / (len(data.x) + len(data.x_test)) == pytest.approx(test_fraction, rel=0.15)


def test_the_held_out_part_comes_later(data: Dataset) -> None:
    first = recordings(0)[0]
    before, after = data.x[0], data.x_test[0]
    np.testing.assert_array_equal(before, first.signal[:100] / SCALE)
    start = round(0.75 * len(first.signal))
    np.testing.assert_array_equal(after, first.signal[start : start + 100] / SCALE)


def test_neighbours_share_the_overlap() -> None:
    data = smartwatch(window_s=1.0, overlap=0.8)
    np.testing.assert_array_equal(data.x[0, 10:], data.x[1, :40])


def test_scaling_does_not_look_at_the_data() -> None:
    """The same seconds give the same numbers wherever the split is."""
    np.testing.assert_array_equal(smartwatch(test_fraction=0.2).x[0], smartwatch(test_fraction=0.6).x[0])


def test_labels_belong_to_their_windows(data: Dataset) -> None:
    """The nearest mean of averages and spreads names a good part of the windows; by luck it is one in seven."""
    train, held = (np.concatenate([x.mean(1), x.std(1)], axis=1) for x in (data.x, data.x_test))
    means = np.stack([train[data.y == label].mean(0) for label in range(7)])
    assert (((held[:, None] - means) ** 2).sum(-1).argmin(1) == data.y_test).mean() > 0.4


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"window_s": 0.0}, r"window_s is 0\.0: a window holds one sample at least"),
        ({"overlap": 1.0}, r"overlap is 1\.0: give 0 or more"),
        ({"overlap": -0.1}, r"overlap is -0\.1"),
        ({"test_fraction": 0.0}, r"test_fraction is 0\.0"),
        ({"test_fraction": 1.0}, r"test_fraction is 1\.0"),
        ({"window_s": 10.0}, r"a window of 10\.0 s is longer than the shortest part of a recording, 4\.74 s"),
    ],
)
def test_refuses_windows_that_cannot_be_cut(settings: dict[str, float], sentence: str) -> None:
    with pytest.raises(MisuseError, match=sentence):
        smartwatch(**settings)


def _names(windows: NDArray[np.float32]) -> set[bytes]:
    return {sample.tobytes() for sample in windows.reshape(-1, windows.shape[-1])}
