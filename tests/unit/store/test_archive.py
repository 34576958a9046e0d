"""The archive of kept updates: whole files, no gaps, bounded; damage is named."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from fedmq.errors import ConfigError, StoreError
from fedmq.store.archive import Archive, KeepUpdates, KeptRound, read_archive
from fedmq.store.checkpoint import State, Weights
from fedmq.store.journal import Piece
from fedmq.vectors import Layout, Variable

if TYPE_CHECKING:
    from pathlib import Path

LAYOUT = Layout((Variable("w", (3,)),))
STATE = State(run=b"12345678", seed=b"x" * 16, layout=LAYOUT.digest)


def weights(version: int) -> Weights:
    vector = np.full(3, version, np.float32)
    return Weights(version, vector, vector)


def kept(round_: int, base: int | None = None) -> KeptRound:
    before = round_ if base is None else base
    return KeptRound(round_, before, before + 1, b"m" * 32, 2, 5, b"task", "{}")


PIECES = [Piece("a", None, b"one"), Piece("b", 0, b"two"), Piece("b", 1, b"three")]


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    made = Archive(tmp_path, "{}", 10_000)
    made.begin(STATE, LAYOUT, weights(1))
    return made


def test_what_was_kept_is_read_again(archive: Archive) -> None:
    assert archive.keep(kept(1), PIECES)
    assert archive.keep(kept(2), PIECES[:1])
    found = read_archive(archive.folder)
    assert found.rounds == (kept(1), kept(2))
    assert list(found.pieces(found.rounds[0])) == PIECES
    assert (found.state.run, found.weights.version, found.layout) == (STATE.run, 1, LAYOUT)
    assert found.bytes == sum(found.path(each).stat().st_size for each in found.rounds)


def test_a_second_begin_goes_on(archive: Archive) -> None:
    archive.keep(kept(1), PIECES)
    again = Archive(archive.folder, "{}", 10_000)
    again.begin(STATE, LAYOUT, weights(2))
    assert again.keep(kept(2), PIECES)
    assert not again.keep(kept(4), PIECES), "round 3 is missing"


def test_many_pieces_are_written_in_groups(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedmq.store.archive._GROUP_BYTES", 4)
    assert archive.keep(kept(1), iter(PIECES))
    found = read_archive(archive.folder)
    assert list(found.pieces(found.rounds[0])) == PIECES


def test_a_round_that_does_not_fit_is_not_written_to_its_end(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedmq.store.archive._GROUP_BYTES", 4)
    written = []

    def pieces() -> object:
        for number in range(1000):
            written.append(number)
            yield Piece("a", number, bytes(1000))

    assert not archive.keep(kept(1), pieces())  # type: ignore[arg-type]
    assert len(written) < 20
    assert [path.name for path in archive.folder.iterdir()] == ["start"]
    assert not archive.keep(kept(2), PIECES), "without the first one, the second is of no use"


def test_half_written_files_are_passed_over(archive: Archive) -> None:
    archive.keep(kept(1), PIECES)
    (archive.folder / "round-0000000002.updates.new").write_bytes(b"half")
    assert len(read_archive(archive.folder).rounds) == 1


def test_a_gap_is_named(archive: Archive) -> None:
    for number in (1, 2, 3):
        archive.keep(kept(number), PIECES)
    (archive.folder / "round-0000000002.updates").unlink()
    with pytest.raises(StoreError, match="lacks the updates between models 2 and 3"):
        read_archive(archive.folder)


@pytest.mark.parametrize("content", [b"", b"something else", b"fedmq-journal-1\n"])
def test_a_file_that_is_none_is_named(archive: Archive, content: bytes) -> None:
    archive.keep(kept(1), PIECES)
    (archive.folder / "round-0000000001.updates").write_bytes(content)
    with pytest.raises(StoreError, match=r"round-0000000001\.updates"):
        read_archive(archive.folder)


@pytest.mark.parametrize("opening", [b"", b"\xc1", b"\x93\x01\x02\x03", b"\x92\xadfedmq-updates\x02"])
def test_another_opening_is_no_kept_round(opening: bytes) -> None:
    assert KeptRound.decode(opening) is None
    assert KeptRound.decode(kept(7).encode()) == kept(7)


def test_a_folder_without_updates_says_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="keep_updates = true"):
        read_archive(tmp_path)


def test_a_start_without_a_checkpoint_is_named(archive: Archive) -> None:
    for path in (archive.folder / "start").glob("checkpoint-?.npz"):
        path.unlink()
    with pytest.raises(StoreError, match="holds no checkpoint"):
        read_archive(archive.folder)


def test_a_limit_has_to_be_one() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        KeepUpdates(keep_bytes=0)
