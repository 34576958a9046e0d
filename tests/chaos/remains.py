"""What a power cut may leave of a recorded disk, at any moment.

By "All file systems are not created equal" (Pillai et al., OSDI 2014), at its worst, not what one of them does today:

- What was written to a file and not synced is there or not, each sector of 512 bytes by itself, whatever the order in
  which it was written; the file's length is any that it had since. A sector that never came reads as zeros, or as
  whatever stood there before it was this file's.
- A name that was made, changed or removed without a sync of its folder is there or not, each by itself; a change of a
  name is one step. That a file was synced says nothing about its name.
- What was synced is there.

A disk that lies about a sync is not in this model: nothing helps against it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from tests.chaos.disk import ROOT, Named, Names, Resized, Synced, Written

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from random import Random

    from tests.chaos.disk import Operation

SECTOR: Final = 512
_ZEROS: Final = 0.7
"""Share of the sectors that never came which read as zeros."""


@dataclass(frozen=True, slots=True)
class Luck:
    """How much of what was not synced is there: `names` and `sectors` are chances from 0 to 1."""

    names: float
    sectors: float


NOTHING: Final = Luck(0.0, 0.0)
EVERYTHING: Final = Luck(1.0, 1.0)
NAMES_ONLY: Final = Luck(1.0, 0.0)
CONTENT_ONLY: Final = Luck(0.0, 1.0)
MIXED: Final = Luck(0.5, 0.5)
LUCKS: Final = (NOTHING, EVERYTHING, NAMES_ONLY, CONTENT_ONLY, MIXED)


@dataclass
class Remains:
    """A folder as a power cut leaves it: contents by path relative to the root; folders have None."""

    files: dict[str, bytes | None] = field(default_factory=dict)

    def put(self, root: Path) -> None:
        """Write it into an empty folder."""
        for name, content in self.files.items():
            path = root / name
            if content is None:
                path.mkdir()
            else:
                path.write_bytes(content)


def cut(log: Sequence[Operation], folders: set[int], luck: Luck, random: Random) -> Remains:
    """Return what may be left when the power goes after the last operation of `log`."""
    synced: dict[int, int] = {}
    for index, operation in enumerate(log):
        if isinstance(operation, Synced):
            synced[operation.what] = index
    contents = _contents(log, synced, luck, random)
    names = _names(log, synced, luck, random)
    remains = Remains()
    _fill(remains, names, contents, folders, ROOT, "")
    return remains


def _names(log: Sequence[Operation], synced: dict[int, int], luck: Luck, random: Random) -> Names:
    names: Names = {}
    for index, operation in enumerate(log):
        if isinstance(operation, Named):
            durable = any(synced.get(folder, -1) > index for folder, _, _ in operation.names)
            if durable or random.random() < luck.names:
                for folder, name, number in operation.names:
                    if number is None:
                        names.pop((folder, name), None)
                    else:
                        names[folder, name] = number
    return names


def _contents(
    log: Sequence[Operation], synced: dict[int, int], luck: Luck, random: Random
) -> dict[int, bytes]:
    durable: dict[int, bytearray] = {}
    pending: dict[int, list[bytes]] = {}
    for index, operation in enumerate(log):
        if not isinstance(operation, Written | Resized):
            continue
        if index < synced.get(operation.file, -1):
            _apply(durable.setdefault(operation.file, bytearray()), operation)
        else:
            versions = pending.setdefault(operation.file, [bytes(durable.get(operation.file, b""))])
            after = bytearray(versions[-1])
            _apply(after, operation)
            versions.append(bytes(after))
    contents = {number: bytes(content) for number, content in durable.items()}
    return contents | {number: _torn(versions, luck, random) for number, versions in pending.items()}


def _apply(content: bytearray, operation: Written | Resized) -> None:
    if isinstance(operation, Resized):
        content[:] = content[: operation.size].ljust(operation.size, b"\0")
    else:
        if len(content) < operation.at:
            content.extend(bytes(operation.at - len(content)))
        content[operation.at : operation.at + len(operation.data)] = operation.data


def _torn(versions: Sequence[bytes], luck: Luck, random: Random) -> bytes:
    """Return a content of which each sector, and the length, is of one version or another."""
    if luck.sectors in {0.0, 1.0}:
        return versions[-1 if luck.sectors else 0]

    def some() -> bytes:
        return versions[-1] if random.random() < luck.sectors else random.choice(versions)

    size = len(some())
    return b"".join(_sector(some(), at, random) for at in range(0, size, SECTOR))[:size]


def _sector(content: bytes, at: int, random: Random) -> bytes:
    there = content[at : at + SECTOR]
    missing = SECTOR - len(there)
    return there + (bytes(missing) if random.random() < _ZEROS else random.randbytes(missing))


def _fill(
    remains: Remains, names: Names, contents: dict[int, bytes], folders: set[int], folder: int, path: str
) -> None:
    for (where, name), number in names.items():
        if where == folder:
            here = f"{path}{name}"
            if number in folders:
                remains.files[here] = None
                _fill(remains, names, contents, folders, number, f"{here}/")
            else:
                remains.files[here] = contents.get(number, b"")
