"""devices/raspberry_pi/recordings.py: the device's own CSV files, and the person that stands in without them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from devices.raspberry_pi import recordings
from fedmq.datasets import smartwatch
from fedmq.datasets.watch import RATE_HZ
from fedmq.datasets.watch import recordings as shipped
from fedmq.errors import ConfigError

SECONDS_20 = 1_000


def write(path: Path, rows: int = SECONDS_20, *, rate: float = 50.0, header: str = recordings.HEADER) -> Path:
    """Write a recording whose channels count up, so that every window can be told from every other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{row / rate:.4f},{row},{row},{row},{2 * row},{2 * row},{2 * row}" for row in range(rows)]
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEDMQ_RECORDINGS", str(tmp_path / "recordings"))
    (tmp_path / "recordings").mkdir()
    return tmp_path / "recordings"


def split(device: str) -> tuple[recordings.Share, recordings.Share]:
    found = recordings.data(device)
    assert not isinstance(found, recordings.Share)
    return found


def test_own_recordings_become_windows_of_two_seconds(folder: Path) -> None:
    write(folder / "pendulum/a.csv")
    write(folder / "upright-row/b.csv")
    train, test = split("pi-01")
    assert train.x.shape == (28, 100, 6)  # 750 rows in steps of 50, twice
    assert test.x.shape == (8, 100, 6)  # 250 rows, twice
    assert (str(train.x.dtype), str(train.y.dtype)) == ("float32", "int64")
    assert train.y.tolist() == [0] * 14 + [6] * 14
    assert test.y.tolist() == [0] * 4 + [6] * 4


def test_windows_hold_what_the_file_says_in_units_of_one_g_and_two_radians(folder: Path) -> None:
    write(folder / "pendulum/a.csv")
    train, _ = split("pi-01")
    for number, window in enumerate(train.x):
        wanted = np.arange(50 * number, 50 * number + 100, dtype=np.float32)
        assert np.array_equal(window, np.tile(wanted[:, None], 6))


def test_nothing_held_out_was_trained_on(folder: Path) -> None:
    write(folder / "pendulum/a.csv")
    train, test = split("pi-01")
    assert train.x.max() < 750 <= test.x.min()


def test_short_recordings_hold_nothing_out(folder: Path) -> None:
    write(folder / "pendulum/a.csv", rows=200)
    share = recordings.data("pi-01")
    assert isinstance(share, recordings.Share)
    assert share.x.shape == (2, 100, 6)


def test_the_windows_are_those_of_the_shipped_set(folder: Path) -> None:
    """A person's recording written as CSV gives the windows that `fedmq.datasets` makes of it."""
    for recording in shipped(3):
        name = recordings.LABELS[recording.exercise]
        seconds = np.arange(len(recording.signal)) / RATE_HZ
        path = folder / name / f"{'right' if recording.right else 'left'}.csv"
        path.parent.mkdir(exist_ok=True)
        table = np.column_stack([seconds, recording.signal])
        np.savetxt(path, table, fmt="%.9g", delimiter=",", header=recordings.HEADER, comments="")
    train, _ = split("pi-01")
    everyone = smartwatch()
    mine = everyone.owner == 3
    assert np.bincount(train.y).tolist() == np.bincount(everyone.y[mine]).tolist()
    order = sorted(range(7), key=lambda label: recordings.LABELS[label])  # folders come by name
    wanted = np.concatenate([everyone.x[mine & (everyone.y == label)] for label in order])
    assert np.allclose(train.x, wanted, atol=1e-6)


@pytest.mark.parametrize(("device", "person"), [("pi-01", 0), ("person-10", 9), ("pi-12", 1), ("kitchen", 0)])
def test_without_a_folder_a_shipped_person_stands_in_and_it_is_said(
    device: str,
    person: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("FEDMQ_RECORDINGS", str(tmp_path / "none"))
    train, test = split(device)
    everyone = smartwatch()
    assert np.array_equal(train.x, everyone.x[everyone.owner == person])
    assert np.array_equal(test.y, everyone.y_test[everyone.owner_test == person])
    assert f"{device} trains on person {person + 1}" in caplog.text


def test_an_empty_folder_never_falls_back(folder: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"holds no recording of 2\.7 s or longer.*named pendulum, abduction"
    ):
        recordings.data("pi-01")


def test_recordings_that_are_all_too_short(folder: Path) -> None:
    write(folder / "pendulum/a.csv", rows=100)
    with pytest.raises(ConfigError, match="holds no recording"):
        recordings.data("pi-01")


def test_an_unknown_exercise(folder: Path) -> None:
    write(folder / "juggling/a.csv")
    with pytest.raises(ConfigError, match=r"juggling is no known exercise: name the folder one of pendulum"):
        recordings.data("pi-01")


def test_another_header(folder: Path) -> None:
    write(folder / "pendulum/a.csv", header="time,ax,ay,az,wx,wy,wz")
    with pytest.raises(ConfigError, match="its first line must be 't,ax,ay,az,wx,wy,wz'"):
        recordings.data("pi-01")


def test_another_rate(folder: Path) -> None:
    write(folder / "pendulum/a.csv", rate=100)
    with pytest.raises(ConfigError, match=r"was recorded at 100\.0 Hz: record at 50 Hz"):
        recordings.data("pi-01")


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ("3.00,1,2,three,4,5,6", "cannot be read as numbers"),
        ("3.00,1,2,3,4,5", "cannot be read as numbers"),
        ("3.00,1,2,nan,4,5,6", "not finite"),
        ("9.00,1,2,3,4,5,6", r"jumps from 2\.98 s to 9\.00 s in row 152: split it there"),
        ("2.98,1,2,3,4,5,6", r"jumps from 2\.98 s to 2\.98 s in row 152"),
    ],
)
def test_a_damaged_row(row: str, sentence: str, folder: Path) -> None:
    path = write(folder / "pendulum/a.csv", rows=150)
    path.write_text(path.read_text() + row + "\n")
    with pytest.raises(ConfigError, match=sentence):
        recordings.data("pi-01")


@pytest.mark.parametrize("rows", [0, 99])
def test_a_file_shorter_than_one_window(rows: int, folder: Path) -> None:
    write(folder / "pendulum/a.csv", rows=rows)
    with pytest.raises(ConfigError, match=rf"a\.csv holds {rows} rows: 100 make one window"):
        recordings.data("pi-01")


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe\x00"])
def test_a_file_that_is_no_recording(content: bytes, folder: Path) -> None:
    write(folder / "pendulum/a.csv").write_bytes(content)
    with pytest.raises(ConfigError, match="its first line must be"):
        recordings.data("pi-01")


def test_rows_of_another_length(folder: Path) -> None:
    path = write(folder / "pendulum/a.csv")
    path.write_text(
        path.read_text().replace("\n", ",0\n").replace(recordings.HEADER + ",0", recordings.HEADER)
    )
    with pytest.raises(ConfigError, match="holds 8 numbers a row: it needs 7"):
        recordings.data("pi-01")
