from __future__ import annotations

import errno
import gc
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedmq.errors import StoreError
from fedmq.rules.robust.spool import Spool


def row(*numbers: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.array(numbers, np.float32)


def read(spool: Spool, index: int, start: int, stop: int) -> list[float]:
    into = np.full(stop - start, np.nan, np.float32)
    spool.read(index, slice(start, stop), into)
    return list(into)


def test_any_columns_of_any_row_come_back(tmp_path: Path) -> None:
    spool = Spool(3, tmp_path)
    assert [spool.append(row(1, 2, 3)), spool.append(row(4, 5, 6))] == [0, 1]
    assert read(spool, 1, 0, 3) == [4, 5, 6]
    assert read(spool, 0, 1, 3) == [2, 3]
    assert read(spool, 0, 2, 2) == []


def test_a_row_may_be_strided() -> None:
    spool = Spool(2)
    spool.append(row(1, 9, 2, 9)[::2])
    assert read(spool, 0, 0, 2) == [1, 2]


def test_rows_without_numbers_are_counted() -> None:
    spool = Spool(0)
    assert [spool.append(row()), spool.append(row())] == [0, 1]
    assert read(spool, 1, 0, 0) == []


def test_the_folder_shows_no_file_and_none_stays_open(tmp_path: Path) -> None:
    spool = Spool(1, tmp_path)
    assert not list(tmp_path.iterdir())
    spool.append(row(1))
    assert not list(tmp_path.iterdir())
    descriptor = spool._opened()
    del spool
    gc.collect()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_a_full_disk_is_said_in_one_sentence_and_leaves_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(2, tmp_path)
    spool.append(row(1, 2))
    write = os.pwrite

    def full(descriptor: int, data: memoryview, start: int) -> int:
        if start > 8:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data[:4], start)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(StoreError, match=rf"{tmp_path} \(No space left on device\): it takes 8e-06 MB"):
            spool.append(row(3, 4))
    assert spool.count == 1
    assert spool.append(row(5, 6)) == 1
    assert read(spool, 0, 0, 2) + read(spool, 1, 0, 2) == [1, 2, 5, 6]


def test_short_writes_and_reads_are_gone_on_with(monkeypatch: pytest.MonkeyPatch) -> None:
    write, take = os.pwrite, os.preadv
    monkeypatch.setattr(os, "pwrite", lambda fd, data, start: write(fd, data[:3], start))
    monkeypatch.setattr(os, "preadv", lambda fd, into, start: take(fd, [into[0][:5]], start))
    spool = Spool(3)
    spool.append(row(1, 2, 3))
    assert read(spool, 0, 0, 3) == [1, 2, 3]


def test_a_file_that_was_cut_is_an_error_of_the_store(tmp_path: Path) -> None:
    spool = Spool(2, tmp_path)
    spool.append(row(1, 2))
    os.ftruncate(spool._opened(), 4)
    with pytest.raises(StoreError, match="was cut: run the round again"):
        read(spool, 0, 0, 2)


def test_a_disk_that_cannot_be_read_is_an_error_of_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(1, tmp_path)
    spool.append(row(1))

    def broken(descriptor: int, into: list[memoryview], start: int) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "preadv", broken)
    with pytest.raises(StoreError, match=r"cannot be read back from .*\(Input/output error\)"):
        read(spool, 0, 0, 1)


def test_a_folder_that_is_missing_is_an_error_of_the_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="choose another folder"):
        Spool(1, tmp_path / "missing").append(row(1))
