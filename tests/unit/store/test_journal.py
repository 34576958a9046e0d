"""The journal: what was appended is there after any cut, what was not whole is gone."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedmq.errors import StoreError
from fedmq.store.journal import RECENT_BYTES, Journal, Piece, Spot, read_journal

PIECES = [
    Piece("device-1", None, b"whole"),
    Piece("device-2", 0, b"x" * 5000),
    Piece("device-2", 1, b"", 2**48),
]


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal.create(tmp_path / "round-a.journal", b"the task")


def test_what_was_appended_can_be_read_at_its_place(journal: Journal) -> None:
    spots = journal.append(PIECES)
    assert [journal.read(spot) for spot in spots] == PIECES


def test_a_resumed_journal_holds_everything_and_goes_on(journal: Journal) -> None:
    journal.append(PIECES[:1])
    journal.append(PIECES[1:])
    journal.close()
    resumed = Journal.resume(journal.path)
    assert resumed is not None
    again, found = resumed
    assert again.opening == b"the task"
    assert [piece for piece, _ in found] == PIECES
    assert [again.read(spot) for _, spot in found] == PIECES
    (spot,) = again.append([Piece("late", None, b"one more")])
    assert again.read(spot).payload == b"one more"
    assert read_journal(journal.path) == (b"the task", [*PIECES, Piece("late", None, b"one more")])


def test_what_was_just_written_is_read_from_memory_once(journal: Journal) -> None:
    spots = journal.append(PIECES)
    os.truncate(journal.path, 0)
    assert [journal.read(spot) for spot in spots] == PIECES
    with pytest.raises(StoreError, match="ends early"):
        journal.read(spots[0])


def test_memory_is_bounded_and_the_rest_is_in_the_file(journal: Journal) -> None:
    half = RECENT_BYTES // 2
    pieces = [Piece(f"device-{number}", None, bytes([number]) * half) for number in range(4)]
    spots = [spot for piece in pieces for spot in journal.append([piece])]
    assert [journal.read(spot) for spot in spots] == pieces
    (spot,) = journal.append(pieces[:1])  # all has been read, so there is room again
    os.truncate(journal.path, 0)
    assert journal.read(spot) == pieces[0]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(cut=st.integers(0, 6000))
def test_a_file_cut_anywhere_gives_a_prefix(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "cut.journal"
    journal = Journal.create(path, b"the task")
    journal.append(PIECES)
    journal.close()
    os.truncate(path, min(cut, path.stat().st_size))
    resumed = Journal.resume(path)
    if resumed is not None:
        again, found = resumed
        pieces = [piece for piece, _ in found]
        assert pieces == PIECES[: len(pieces)]
        again.append([PIECES[0]])
        again.close()
        assert read_journal(path)[1] == [*pieces, PIECES[0]]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(at=st.integers(0, 5100), bit=st.integers(0, 7))
def test_a_flipped_bit_never_gives_a_changed_piece(tmp_path: Path, at: int, bit: int) -> None:
    path = tmp_path / "flipped.journal"
    journal = Journal.create(path, b"the task")
    journal.append(PIECES)
    journal.close()
    content = bytearray(path.read_bytes())
    content[at % len(content)] ^= 1 << bit
    path.write_bytes(content)
    resumed = Journal.resume(path)
    if resumed is not None:
        pieces = [piece for piece, _ in resumed[1]]
        assert pieces == PIECES[: len(pieces)]
        assert len(pieces) < len(PIECES)
        resumed[0].close()


def test_a_discarded_journal_is_no_journal(journal: Journal) -> None:
    journal.append(PIECES)
    journal.discard()
    assert Journal.resume(journal.path) is None
    journal.discard()  # twice does no harm


def test_no_file_is_no_journal(tmp_path: Path) -> None:
    assert Journal.resume(tmp_path / "nothing") is None


def test_another_file_is_named_as_no_journal(tmp_path: Path) -> None:
    path = tmp_path / "letter.txt"
    path.write_text("Dear Sir or Madam")
    with pytest.raises(StoreError, match="no journal"):
        read_journal(path)


def test_a_full_disk_leaves_the_durable_part(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    journal.append(PIECES[:1])

    def full(_: int, views: list[memoryview]) -> int:
        os.write(journal._handle, bytes(views[0])[:3])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "writev", full)
        with pytest.raises(StoreError, match="No space left on device"):
            journal.append(PIECES[1:])
    (spot,) = journal.append([PIECES[2]])
    assert journal.read(spot) == PIECES[2]
    journal.close()
    assert read_journal(journal.path)[1] == [PIECES[0], PIECES[2]]


def test_a_system_that_takes_a_byte_at_a_time_gets_everything(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        os, "writev", lambda handle, views: os.write(handle, bytes(views[0])[:7]) if len(views[0]) else 0
    )
    spots = journal.append(PIECES[:2])
    assert [journal.read(spot) for spot in spots] == PIECES[:2]


def test_a_closed_journal_reads_nothing_of_anyone_else(journal: Journal, tmp_path: Path) -> None:
    (spot,) = journal.append(PIECES[:1])
    journal.close()
    with (tmp_path / "other").open("wb+"), pytest.raises(StoreError):
        journal.read(spot)


# --- disks that fail, and cuts ----------------------------------------------------------------------------------------


def test_zeros_behind_the_last_record_are_no_records(journal: Journal) -> None:
    journal.append(PIECES)
    journal.close()
    with journal.path.open("ab") as file:
        file.write(bytes(3000))
    assert [piece for piece, _ in entries(journal.path)] == PIECES


def entries(path: Path) -> list[tuple[Piece, Spot]]:
    resumed = Journal.resume(path)
    assert resumed is not None
    resumed[0].close()
    return resumed[1]


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_journal_that_cannot_be_begun_leaves_neither_name_nor_handle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that stands is taken for a durable one by the next try; and there is a try each second."""
    handles, path = len(list(Path("/dev/fd").iterdir())), tmp_path / "round-a.journal"
    with monkeypatch.context() as patch:
        patch.setattr(os, "writev", full)
        with pytest.raises(StoreError, match="No space"):
            Journal.create(path, b"the task")
    assert not path.exists()
    assert len(list(Path("/dev/fd").iterdir())) == handles


def test_a_journal_that_cannot_be_emptied_can_be_emptied_later(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "ftruncate", full)
        with pytest.raises(StoreError, match="cannot empty the journal"):
            journal.discard()
    journal.discard()
    assert journal.path.stat().st_size == 0


def test_a_half_record_that_could_not_be_cut_off_is_written_over(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = os.writev
    with monkeypatch.context() as patch:
        patch.setattr(
            os, "writev", lambda handle, buffers: full() if whole(handle, [b"half a record"]) else 0
        )
        patch.setattr(os, "ftruncate", full)
        with pytest.raises(StoreError, match="No space"):
            journal.append(PIECES)
    journal.append(PIECES)
    journal.close()
    assert [piece for piece, _ in entries(journal.path)] == PIECES
