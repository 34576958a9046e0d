"""Checkpoints: the newest whole one counts, whatever happened to the other."""

from __future__ import annotations

import errno
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

import numpy as np
import pytest

from fedmq.errors import MisuseError, StoreError
from fedmq.protocol.frames import Step
from fedmq.protocol.messages import Verdict
from fedmq.protocol.progress import Opened, Progress
from fedmq.store.checkpoint import CheckpointFolder, Encoded, State, Weights, ledger_of

if TYPE_CHECKING:
    from pathlib import Path

FRAMES = (
    Encoded(Step(3, key=True), "half", b"key", b"k" * 8),
    Encoded(Step(4), "int8 | lzma", b"body", b"d" * 8),
)
GONE = ((Step(1, key=True), 400), (Step(2), 40))


def state(version: int) -> State:
    verdicts = {
        7: {
            "device-1": (b"update-1", Verdict.ACCEPTED, ""),
            "device-2": (b"update-2", Verdict.REJECTED, "NaN"),
        }
    }
    recent = (Opened(5, 1, b"salt", 0.5), Opened(6, 2, b"more salt"))
    progress = Progress(version + 4, version, version, best=0.5, stale=1, abandoned=2, recent=recent)
    return State(b"run-run-", b"s" * 16, b"layout-1", 2, progress, verdicts)


def weights(version: int) -> Weights:
    vector = np.arange(5, dtype=np.float32) * version
    return Weights(version, vector, vector + 1, {"velocity": vector * 2}, b"replica_", FRAMES, GONE)


def check(found: tuple[State, Weights] | None, version: int) -> None:
    assert found is not None
    kept, arrays = found
    assert kept.progress == state(version).progress
    assert kept.verdicts == state(version).verdicts
    assert arrays.version == version
    np.testing.assert_array_equal(arrays.vector, weights(version).vector)
    np.testing.assert_array_equal(arrays.replica, weights(version).replica)
    np.testing.assert_array_equal(arrays.memory["velocity"], weights(version).memory["velocity"])
    assert (arrays.digest, arrays.frames, arrays.gone) == (b"replica_", FRAMES, GONE)


def test_a_new_folder_holds_nothing(tmp_path: Path) -> None:
    assert CheckpointFolder(tmp_path / "new").load() is None


def test_what_was_saved_comes_back_in_another_process(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    for version in (1, 2, 3):
        folder.save(state(version), weights(version))
        check(CheckpointFolder(tmp_path).load(), version)


def test_a_state_alone_keeps_the_arrays(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save(state(1), weights(1))
    reopened = CheckpointFolder(tmp_path)
    reopened.load()
    reopened.save(State(b"run-run-", b"s" * 16, b"layout-1", epoch=9))
    found = CheckpointFolder(tmp_path).load()
    assert found is not None
    assert found[0].epoch == 9
    assert found[1].version == 1


@pytest.mark.parametrize("left", [0, 1, 100, 900])
def test_a_crash_while_writing_leaves_the_one_before(tmp_path: Path, left: int) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save(state(1), weights(1))
    folder.save(state(2), weights(2))
    newest = folder._checkpoint_path(2)
    newest.write_bytes(newest.read_bytes()[:left])
    check(CheckpointFolder(tmp_path).load(), 1)


@pytest.mark.parametrize("first", ["new", "old"])
def test_a_crash_while_writing_over_an_old_one_leaves_the_one_before(tmp_path: Path, first: str) -> None:
    """Whatever part of the file has reached the disk: its beginning, or what was written after it."""
    folder = CheckpointFolder(tmp_path)
    folder.save(state(1), weights(1))
    path = folder.folder / "checkpoint-b.npz"
    old = path.read_bytes()
    folder.save(state(2), weights(2))
    folder.save(state(3), weights(3))
    new = path.read_bytes()
    assert len(old) == len(new)
    versions = []
    for cut in range(0, len(new) + 1, 16):
        path.write_bytes(new[:cut] + old[cut:] if first == "new" else old[:cut] + new[cut:])
        found = CheckpointFolder(tmp_path).load()
        versions.append(found[1].version if found else 0)
        check(found, versions[-1])  # all of it is of one version
    assert set(versions) == {2, 3}


def test_a_frame_that_is_the_vector_is_written_once(tmp_path: Path) -> None:
    vector = np.arange(10_000, dtype=np.float32)
    frames = tuple(replace(FRAMES[0], body=b"head" + part.tobytes()) for part in (vector, vector[::-1]))
    CheckpointFolder(tmp_path / "once").save(state(1), Weights(1, vector, vector, frames=frames[:1]))
    CheckpointFolder(tmp_path / "both").save(state(1), Weights(1, vector, vector, frames=frames))
    sizes = [next((tmp_path / name).glob("*.npz")).stat().st_size for name in ("once", "both")]
    assert vector.nbytes < sizes[0] < 1.1 * vector.nbytes
    assert sizes[1] > 2 * vector.nbytes
    for name, wanted in (("once", frames[:1]), ("both", frames)):
        found = CheckpointFolder(tmp_path / name).load()
        assert found is not None
        assert found[1].frames == wanted


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save(state(1), weights(1))
    folder.save(state(2), weights(2))
    newest = folder._checkpoint_path(2)
    content = bytearray(newest.read_bytes())
    content[content.index(weights(2).vector.tobytes()) + 5] ^= 1
    newest.write_bytes(content)
    check(CheckpointFolder(tmp_path).load(), 1)


@pytest.mark.parametrize("seed", range(60))
def test_whatever_a_damaged_checkpoint_holds_the_one_before_counts(tmp_path: Path, seed: int) -> None:
    folder, random = CheckpointFolder(tmp_path), Random(seed)
    folder.save(state(1), weights(1))
    folder.save(state(2), weights(2))
    path = folder._checkpoint_path(2)
    content = bytearray(path.read_bytes())
    # Near the end stands what zipfile goes by.
    at = random.randrange(len(content)) if seed % 2 else random.randrange(len(content) - 500, len(content))
    content[at : at + random.choice((1, 4, 60))] = random.randbytes(random.choice((1, 4, 60)))
    path.write_bytes(content)
    found = CheckpointFolder(tmp_path).load()
    assert found is not None
    check(found, found[0].serial)


def test_an_array_that_claims_to_be_shorter_is_damage(tmp_path: Path) -> None:
    """NumPy reads as far as an array's head says, and zipfile checks the sum where it comes to the end: not here."""
    folder = CheckpointFolder(tmp_path)
    folder.save(state(1), weights(1))
    vector = np.arange(90_000, dtype=np.float32)
    folder.save(state(2), replace(weights(2), vector=vector, replica=vector))
    path = folder._checkpoint_path(2)
    content, shape = path.read_bytes(), b"'shape': (90000,)"
    assert content.count(shape) == 1
    path.write_bytes(content.replace(shape, b"'shape': (10000,)"))
    check(CheckpointFolder(tmp_path).load(), 1)


def test_a_disk_that_cannot_be_read_is_not_taken_for_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save(state(1), weights(1))

    def fails(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(np, "load", fails)
    with pytest.raises(StoreError, match="Input/output error"):
        folder.load()


def test_a_folder_in_which_nothing_can_be_read_says_so(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-a.npz").write_bytes(b"not a checkpoint")
    with pytest.raises(StoreError, match="restore the folder from a backup"):
        CheckpointFolder(tmp_path).load()


def test_another_format_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("fedmq.store.checkpoint._FORMAT", 1)
        CheckpointFolder(tmp_path).save(state(1), weights(1))
    with pytest.raises(
        StoreError, match="is of format 1, this fedmq reads 2: go on with the fedmq that wrote it"
    ):
        CheckpointFolder(tmp_path).load()


def test_pickled_arrays_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "checkpoint-a.npz", state=np.array([{"a": 1}], dtype=object))
    with pytest.raises(StoreError):
        CheckpointFolder(tmp_path).load()


def test_the_first_checkpoint_needs_weights(tmp_path: Path) -> None:
    with pytest.raises(MisuseError, match="needs weights"):
        CheckpointFolder(tmp_path).save(state(1))


def test_the_ledger_remembers_the_verdicts() -> None:
    entry = ledger_of(state(1)).remembered(7, "device-2")
    assert entry is not None
    assert (entry.update, entry.verdict, entry.reason) == (b"update-2", Verdict.REJECTED, "NaN")


def test_two_journals_take_turns(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.begin_journal(4, b"four").close()
    folder.begin_journal(5, b"five").close()
    assert [journal.opening for journal, _ in folder.journals()] == [b"four", b"five"]
    folder.begin_journal(6, b"six").discard()
    assert [journal.opening for journal, _ in folder.journals()] == [b"five"]
