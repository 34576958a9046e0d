"""A disk that remembers every operation: real files in a real folder, and beside them a log of what was done to them.

`tests.chaos.remains` says what a power cut could have left of it at any moment.
"""

from __future__ import annotations

import io
import os
import pathlib
import threading
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from unittest.mock import patch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

ROOT: Final = 0


@dataclass(frozen=True, slots=True)
class Written:
    """Bytes at a place of a file."""

    file: int
    at: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Resized:
    """A file's length set."""

    file: int
    size: int


@dataclass(frozen=True, slots=True)
class Named:
    """Names given or taken away, all at once: folder, name, and what it names from now on (None: nothing)."""

    names: tuple[tuple[int, str, int | None], ...]


@dataclass(frozen=True, slots=True)
class Synced:
    """A file's content, or a folder's names, made durable."""

    what: int


@dataclass(frozen=True, slots=True)
class Said:
    """Not the disk's: something that was told to somebody outside, who will rely on it."""

    what: Any


Operation: TypeAlias = Written | Resized | Named | Synced | Said
Names: TypeAlias = dict[tuple[int, str], int]


class Recorder:
    """Records what is done below `root` between `recording` and its end; from any thread."""

    def __init__(self, root: Path) -> None:
        """Watch a folder; what is in it already is durable."""
        self.root = root.absolute()
        self.log: list[Operation] = []
        self.folders: set[int] = {ROOT}
        self._names: Names = {}
        self._handles: dict[int, int] = {}
        self._numbers = count(1)
        self._lock = threading.RLock()
        for path in sorted(self.root.rglob("*")):
            self._find(path)
        self.found = len(self.log)

    def say(self, what: object) -> None:
        """Note, in the order of things, what somebody outside was told."""
        with self._lock:
            self.log.append(Said(what))

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Have all operations below the root go by here."""
        stand_ins: dict[str, Callable[..., Any]] = {
            "open": self._open,
            "close": self._close,
            "write": self._write,
            "writev": self._writev,
            "pwrite": self._pwrite,
            "ftruncate": self._ftruncate,
            "fsync": self._sync,
            "fdatasync": self._sync,
            "replace": self._replace,
            "rename": self._replace,
            "unlink": self._unlink,
            "remove": self._unlink,
            "mkdir": self._mkdir,
            "rmdir": self._unlink,
        }
        self._os = {name: getattr(os, name) for name in stand_ins}
        open_file, recorder = pathlib.Path.open, self

        def path_open(path: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:  # noqa: ANN401
            if recorder._place(path) is None or mode in {"r", "rb"}:
                return open_file(path, mode, *arguments, **options)
            raw = _RawFile(recorder, path, mode)
            return io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)

        with ExitStack() as patches:
            for name, stand_in in stand_ins.items():
                patches.enter_context(patch.object(os, name, stand_in))
            patches.enter_context(patch.object(pathlib.Path, "open", path_open))
            yield

    # --- the live folder ----------------------------------------------------------------------------------------------

    def _place(self, path: Any) -> tuple[int, str] | None:  # noqa: ANN401 - what os takes for a path
        """Return the folder and the name below the root; None for what is elsewhere."""
        if not isinstance(path, (str, os.PathLike)):
            return None
        absolute = Path(os.fspath(path)).absolute()
        if not absolute.is_relative_to(self.root):
            return None
        *above, name = absolute.relative_to(self.root).parts or (os.curdir,)
        at = ROOT
        for part in above:
            at = self._names[at, part]
        return at, name

    def _find(self, path: Path) -> None:
        """Note what was there from the beginning."""
        place, number = self._place(path), next(self._numbers)
        assert place is not None
        self._name((*place, number))
        if path.is_dir():
            self.folders.add(number)
        else:
            self.log += [Written(number, 0, path.read_bytes()), Synced(number)]
        self.log.append(Synced(place[0]))

    def _known(self, place: tuple[int, str]) -> int | None:
        return ROOT if place == (ROOT, os.curdir) else self._names.get(place)

    def _name(self, *names: tuple[int, str, int | None]) -> None:
        self.log.append(Named(names))
        for folder, name, number in names:
            if number is None:
                self._names.pop((folder, name), None)
            else:
                self._names[folder, name] = number

    # --- what stands in for `os` --------------------------------------------------------------------------------------

    def _open(self, path: Any, flags: int, *arguments: Any, **options: Any) -> int:  # noqa: ANN401
        with self._lock:
            place = None if flags & getattr(os, "O_TMPFILE", 0) == os.O_TMPFILE else self._place(path)
            handle: int = self._os["open"](path, flags, *arguments, **options)
            if place is not None:
                self._opened(handle, place, truncated=bool(flags & os.O_TRUNC))
            return handle

    def _opened(self, handle: int, place: tuple[int, str], *, truncated: bool) -> None:
        number = self._known(place)
        if number is None:
            number = next(self._numbers)
            self._name((*place, number))
        elif truncated:
            self.log.append(Resized(number, 0))
        self._handles[handle] = number

    def _close(self, handle: int) -> None:
        with self._lock:
            self._handles.pop(handle, None)
            self._os["close"](handle)

    def _write(self, handle: int, data: Any) -> int:  # noqa: ANN401
        return self._writev(handle, [data])

    def _writev(self, handle: int, buffers: Sequence[Any]) -> int:
        with self._lock:
            number = self._handles.get(handle)
            at = os.lseek(handle, 0, os.SEEK_CUR) if number is not None else 0
            done: int = self._os["writev"](handle, buffers)
            if number is not None:
                self.log.append(Written(number, at, b"".join(map(bytes, buffers))[:done]))
            return done

    def _pwrite(self, handle: int, data: Any, at: int) -> int:  # noqa: ANN401
        with self._lock:
            done: int = self._os["pwrite"](handle, data, at)
            if handle in self._handles:
                self.log.append(Written(self._handles[handle], at, bytes(data)[:done]))
            return done

    def _ftruncate(self, handle: int, size: int) -> None:
        with self._lock:
            self._os["ftruncate"](handle, size)
            if handle in self._handles:
                self.log.append(Resized(self._handles[handle], size))

    def _sync(self, handle: int) -> None:
        # Not synced really: these tests would wait for the disk, and it is the log that counts.
        with self._lock:
            if handle in self._handles:
                self.log.append(Synced(self._handles[handle]))

    def _replace(self, old: Any, new: Any, **options: Any) -> None:  # noqa: ANN401
        with self._lock:
            before, after = self._place(old), self._place(new)
            self._os["replace"](old, new, **options)
            if before is not None and after is not None:
                self._name((*after, self._names[before]), (*before, None))

    def _unlink(self, path: Any, **options: Any) -> None:  # noqa: ANN401
        with self._lock:
            place = self._place(path) if not options.get("dir_fd") else None
            self._os["rmdir" if Path(path).is_dir() else "unlink"](path, **options)
            if place is not None:
                self._name((*place, None))

    def _mkdir(self, path: Any, *arguments: Any, **options: Any) -> None:  # noqa: ANN401
        with self._lock:
            self._os["mkdir"](path, *arguments, **options)
            place = self._place(path)
            if place is not None:
                number = next(self._numbers)
                self.folders.add(number)
                self._name((*place, number))


class _RawFile(io.FileIO):
    """A file that tells the recorder what is written to it."""

    def __init__(self, recorder: Recorder, path: Path, mode: str) -> None:
        self._recorder = recorder
        with recorder._lock:
            place = recorder._place(path)
            assert place is not None
            super().__init__(path, mode)
            recorder._opened(self.fileno(), place, truncated="w" in mode)

    def write(self, data: Any, /) -> int:  # noqa: ANN401
        with self._recorder._lock:
            at = self.tell()
            done = super().write(data)
            self._recorder.log.append(Written(self._recorder._handles[self.fileno()], at, bytes(data)[:done]))
            return done

    def truncate(self, size: int | None = None, /) -> int:
        with self._recorder._lock:
            done = super().truncate(size)
            self._recorder.log.append(Resized(self._recorder._handles[self.fileno()], done))
            return done

    def close(self) -> None:
        with self._recorder._lock:
            if not self.closed:
                self._recorder._handles.pop(self.fileno(), None)
            super().close()
