"""Files that are whole or not there: write beside, sync, rename, sync the folder."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

from fedmq.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def disk(what: str, path: Path) -> Iterator[None]:
    """Turn an OSError inside the block into a StoreError that says what could not be done, and why."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"cannot {what} {path}: {error.strerror or error}; check the disk and its permissions"
        ) from error


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Give a file to write; when the block ends well its content stands at `path`, durable, else nothing changed.

    Raises StoreError.
    """
    beside = path.with_name(path.name + ".new")
    with disk("write", path):
        with beside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        sync_folder(path.parent)


def write_whole(path: Path, content: bytes) -> None:
    """Make `content` the file's content, so that a crash leaves the old file or the new one. Raises StoreError."""
    with whole_file(path) as file:
        file.write(content)


def remove(path: Path) -> None:
    """Remove the file if it is there. Raises StoreError."""
    with disk("remove", path):
        path.unlink(missing_ok=True)


def rename(path: Path, other: Path) -> None:
    """Give the file another name in its folder, durably; one that has it already keeps it. Raises StoreError."""
    with disk("rename", path):
        done = other.exists() and not path.exists()  # before, when the folder could not be synced
        if not done:
            path.replace(other)
        sync_folder(path.parent)


def make_folder(path: Path) -> Path:
    """Make the folder and those above it, durably; return it. Raises StoreError."""
    with disk("make the folder", path):
        missing = [each for each in (path, *path.parents) if not each.exists()]
        path.mkdir(parents=True, exist_ok=True)
        for each in reversed(missing):
            sync_folder(each.parent)
    return path


def sync_folder(folder: Path) -> None:
    """Make renames and removals in the folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def slot_file(path: Path) -> Iterator[BinaryIO]:
    """Give a file to write in place; its content is durable when the block ends well, and of no use when it does not.

    For two files that are written in turns: a crash spoils one and leaves the other. That saves the rename, and with it
    half of the waiting for the disk. What stands there is written over, not thrown away first, which saves half of the
    rest; so a crash may leave old and new mixed, and the content needs checksums that tell. Where nothing stands yet,
    the file is written beside and renamed: there may be no other that a crash could leave. Raises StoreError.
    """
    if not path.exists():
        with whole_file(path) as file:
            yield file
        return
    with disk("write", path), path.open("r+b") as file:
        yield file
        file.truncate()
        file.flush()
        os.fsync(file.fileno())
