"""Whole files and model files."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest

from fedmq.errors import StoreError
from fedmq.store.files import make_folder, remove, rename, slot_file, whole_file, write_whole
from fedmq.store.modelfile import StoredModel, load_model, save_model
from fedmq.vectors import Layout, Variable

LAYOUT = Layout(
    (Variable("w", (2, 3)), Variable("mean", (3,), "statistic"), Variable("head", (4,), scope="personal"))
)
MODEL = StoredModel(LAYOUT, np.arange(9, dtype=np.float32), {"version": 3, "federation": "watch"})


def test_a_failed_write_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_whole(path, b"old")
    with pytest.raises(RuntimeError), whole_file(path) as file:
        _write_half(file)
    assert path.read_bytes() == b"old"
    write_whole(path, b"new")
    assert path.read_bytes() == b"new"


def _write_half(file: BinaryIO) -> None:
    file.write(b"ne")
    raise RuntimeError


def test_a_slot_is_written_in_place(tmp_path: Path) -> None:
    for content in (b"first", b"the second", b"third"):
        with slot_file(tmp_path / "slot") as file:
            file.write(content)
        assert (tmp_path / "slot").read_bytes() == content


def test_new_folders_are_synced_into_the_ones_above(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr("fedmq.store.files.sync_folder", synced.append)
    make_folder(tmp_path / "one" / "two")
    assert synced == [tmp_path, tmp_path / "one"]
    make_folder(tmp_path / "one" / "two")
    assert len(synced) == 2


def test_a_slot_that_is_new_is_whole_or_not_there(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), slot_file(tmp_path / "slot") as file:
        _write_half(file)
    assert not (tmp_path / "slot").exists()


def test_removing_what_is_not_there_is_fine(tmp_path: Path) -> None:
    remove(tmp_path / "nothing")


@pytest.mark.parametrize(
    "act", [lambda path: write_whole(path / "x" / "y", b""), lambda path: make_folder(path / "f" / "g")]
)
def test_the_disk_s_refusal_is_one_sentence(tmp_path: Path, act: object) -> None:
    (tmp_path / "f").write_text("a file where a folder is wanted")
    with pytest.raises(StoreError, match=r"cannot .*check the disk and its permissions"):
        act(tmp_path)  # type: ignore[operator]


def test_a_model_file_comes_back_as_it_was(tmp_path: Path) -> None:
    save_model(tmp_path / "model.fedmq", MODEL)
    found = load_model(tmp_path / "model.fedmq")
    assert found.layout == LAYOUT
    assert found.layout.digest == LAYOUT.digest
    assert dict(found.facts) == dict(MODEL.facts)
    np.testing.assert_array_equal(found.vector, MODEL.vector)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "not a fedmq model file"),
        (b"\x93\x01\x02\x03", "not a fedmq model file"),
        (b"\x96" + b"\x01" * 6, "format 1"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "model.fedmq"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=sentence):
        load_model(path)


def test_a_damaged_model_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "model.fedmq"
    save_model(path, MODEL)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(StoreError, match="damaged"):
        load_model(path)


def test_a_missing_model_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="No such file"):
        load_model(tmp_path / "nothing.fedmq")


def test_a_renaming_that_could_not_be_synced_may_be_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: Path) -> None:
        raise OSError("the disk is full")

    old, new = tmp_path / "old", tmp_path / "new"
    write_whole(old, b"content")
    with monkeypatch.context() as broken:
        broken.setattr("fedmq.store.files.sync_folder", full)
        with pytest.raises(StoreError):
            rename(old, new)
    rename(old, new)
    assert new.read_bytes() == b"content"
    assert not old.exists()


def test_a_file_that_is_nowhere_cannot_be_renamed(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        rename(tmp_path / "old", tmp_path / "new")
