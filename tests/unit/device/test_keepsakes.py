"""What a device keeps: changed by accepted updates only, once each, whenever the power goes."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from fedmq.device.keepsakes import MOST_WAITING, NOTED, DiskKeepsakes, Keepsakes, MemoryKeepsakes, Origin
from fedmq.device.outbox import DiskOutbox, Stored
from fedmq.errors import StoreError
from fedmq.vectors import Vector

RUN, OTHER = b"run-0001", b"run-0002"


def update(number: int) -> bytes:
    return number.to_bytes(8, "big")


def origin(number: int, run: bytes = RUN) -> Origin:
    return Origin(run, number, number + 5)


def vector(*numbers: float) -> Vector:
    return np.array(numbers, np.float32)


def values(keepsakes: Keepsakes, run: bytes = RUN) -> dict[str, list[float]]:
    return {name: kept.tolist() for name, kept in keepsakes.kept(run).items()}


@pytest.fixture(params=["memory", "disk", "disk, restarted"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Keepsakes]:
    """Give a function that returns the keepsakes: the same ones, or made anew from the disk at every call."""
    if request.param == "disk, restarted":
        return partial(DiskKeepsakes, tmp_path)
    keepsakes: Keepsakes = MemoryKeepsakes() if request.param == "memory" else DiskKeepsakes(tmp_path)
    return lambda: keepsakes


def test_begins_with_nothing(opened: Callable[[], Keepsakes]) -> None:
    assert values(opened()) == {}
    opened().settle(update(1), added=True)
    assert values(opened()) == {}


def test_only_accepted_changes_are_added(opened: Callable[[], Keepsakes]) -> None:
    opened().put(origin(1), update(1), {"c": vector(1, 2), "residual": vector(5)})
    assert opened().waiting() == {update(1): origin(1)}
    assert values(opened()) == {}
    opened().settle(update(1), added=True)
    assert update(1) not in opened().waiting()
    opened().put(origin(2), update(2), {"c": vector(10, 20)})
    opened().settle(update(2), added=False)
    assert update(2) not in opened().waiting()
    opened().put(origin(3), update(3), {"c": vector(100, 200)})
    opened().settle(update(3), added=True)
    assert values(opened()) == {"c": [101, 202], "residual": [5]}


def test_acceptance_is_noted(opened: Callable[[], Keepsakes]) -> None:
    for number in (1, 2):
        opened().put(origin(number), update(number), {"c": vector(number)})
    for _ in range(2):
        opened().accept(update(1))
    opened().accept(update(3))
    assert opened().waiting() == {update(1): replace(origin(1), accepted=True), update(2): origin(2)}
    assert values(opened()) == {}
    opened().settle(update(1), added=True)
    assert values(opened()) == {"c": [1]}


def test_a_second_receipt_changes_nothing(opened: Callable[[], Keepsakes]) -> None:
    opened().put(origin(1), update(1), {"c": vector(1)})
    for added in (True, True, False):
        opened().settle(update(1), added=added)
    assert values(opened()) == {"c": [1]}


def test_changes_of_several_updates_add_up_in_any_order(opened: Callable[[], Keepsakes]) -> None:
    for number in (1, 2, 3):
        opened().put(origin(number), update(number), {"c": vector(10.0**number)})
    opened().settle(update(3), added=True)
    opened().settle(update(1), added=True)
    assert values(opened()) == {"c": [1010]}


def test_another_run_begins_with_nothing(opened: Callable[[], Keepsakes]) -> None:
    opened().put(origin(1), update(1), {"c": vector(1)})
    opened().settle(update(1), added=True)
    assert values(opened(), OTHER) == {}
    opened().put(origin(2, OTHER), update(2), {"c": vector(7)})
    assert values(opened()) == {"c": [1]}
    opened().settle(update(2), added=True)
    assert values(opened(), OTHER) == {"c": [7]}
    assert values(opened()) == {}


def test_the_oldest_change_gives_way(opened: Callable[[], Keepsakes]) -> None:
    for number in range(MOST_WAITING + 2):
        opened().put(origin(number), update(number), {"c": vector(1)})
    assert sorted(opened().waiting()) == [update(number) for number in range(2, MOST_WAITING + 2)]


def test_vectors_of_a_new_length_begin_anew(opened: Callable[[], Keepsakes]) -> None:
    for number, change in enumerate((vector(1), vector(2, 3))):
        opened().put(origin(number), update(number), {"c": change})
        opened().settle(update(number), added=True)
    assert values(opened()) == {"c": [2, 3]}


def test_what_was_settled_is_noted_for_long_enough(tmp_path: Path) -> None:
    keepsakes = DiskKeepsakes(tmp_path)
    for number in range(NOTED + 5):
        keepsakes.put(origin(number), update(number), {"c": vector(1)})
        keepsakes.settle(update(number), added=True)
    assert keepsakes._keepsake.settled == tuple(map(update, range(5, NOTED + 5)))
    assert DiskKeepsakes(tmp_path)._keepsake.settled == keepsakes._keepsake.settled


# --- power cuts


class PowerCutError(BaseException):
    """Nothing catches it."""


class Power:
    """Fails before, or right after, the call number `last` of those that change a disk."""

    CALLS = ("fsync", "replace", "unlink")

    def __init__(self, last: int, *, after: bool) -> None:
        self.left, self.after = last, after

    def install(self, patch: pytest.MonkeyPatch) -> None:
        for name in self.CALLS:
            patch.setattr(os, name, partial(self._call, getattr(os, name)))

    def _call(self, real: Callable[..., object], *arguments: object, **options: object) -> object:
        self.left -= 1
        if self.left == 0 and not self.after:
            raise PowerCutError
        result = real(*arguments, **options)
        if self.left == 0:
            raise PowerCutError
        return result


class Life:
    """One device, and what the aggregator thinks of its updates, of which it refuses the second."""

    def __init__(self, folder: Path, accepted: set[int]) -> None:
        self.outbox, self.keepsakes = DiskOutbox(folder / "outbox"), DiskKeepsakes(folder / "keepsakes")
        self.accepted = accepted

    def answer(self, number: int) -> None:
        self.keepsakes.put(origin(number), update(number), {"c": vector(number)})
        self.outbox.put(Stored(RUN, number, update(number), b"body"))

    def receipts(self) -> None:
        """Send what is in the outbox, and ask about what is not."""
        for known in self.outbox.entries():
            number = int.from_bytes(known, "big")
            self.accepted |= {number} - {2}
            self._judge(known, accepted=number in self.accepted)
            self.outbox.forget(known)
        for known, origin_ in self.keepsakes.waiting().items():
            if not origin_.accepted:
                self._judge(known, accepted=int.from_bytes(known, "big") in self.accepted)
        for known in self.keepsakes.waiting():
            self.keepsakes.settle(known, added=True)

    def _judge(self, known: bytes, *, accepted: bool) -> None:
        if accepted:
            self.keepsakes.accept(known)
        else:
            self.keepsakes.settle(known, added=False)


def live(folder: Path, sent: set[int], accepted: set[int]) -> None:
    life = Life(folder, accepted)
    life.receipts()
    for number in (1, 2, 4):
        if number not in sent:
            life.answer(number)
            sent.add(number)
        life.receipts()


@pytest.mark.parametrize("after", [False, True])
def test_every_power_cut_leaves_each_accepted_change_in_once(tmp_path: Path, after: bool) -> None:  # noqa: FBT001
    """Cut at the first disk operation, at the second, and so on until none is left to cut."""
    cuts = 0
    for last in range(1, 200):
        folder, sent, accepted = tmp_path / f"{after}-{last}", set[int](), set[int]()
        with pytest.MonkeyPatch.context() as patch:
            Power(last, after=after).install(patch)
            try:
                live(folder, sent, accepted)
            except PowerCutError:
                cuts += 1
            else:
                break
        left = {int.from_bytes(known, "big") for known in DiskOutbox(folder / "outbox").entries()}
        done = sent | left  # what reached the outbox before the cut will not be trained again
        live(folder, done, accepted)
        assert values(Life(folder, accepted).keepsakes) == {"c": [5]}
        assert sorted(path.name for path in (folder / "keepsakes").iterdir() if path.suffix != ".new") == [
            "keepsakes.npz"
        ]
        assert not DiskOutbox(folder / "outbox").entries()
    assert cuts > 20


def test_damaged_files_are_told_of_and_cost_what_was_in_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keepsakes = DiskKeepsakes(tmp_path)
    for number in (1, 2):
        keepsakes.put(origin(number), update(number), {"c": vector(1)})
    keepsakes.settle(update(1), added=True)
    path, pending = tmp_path / "keepsakes.npz", tmp_path / f"2-7-{RUN.hex()}-{update(2).hex()}.change"
    for content in (b"", b"PK\x03\x04 no archive", path.read_bytes()[:-40], np.arange(3).tobytes()):
        path.write_bytes(content)
        caplog.clear()
        assert values(DiskKeepsakes(tmp_path)) == {}
        assert "is damaged" in caplog.text
    pending.write_bytes(b"x")
    again = DiskKeepsakes(tmp_path)
    again.settle(update(2), added=True)
    assert values(again) == {}
    assert not pending.exists()


def test_no_pickle_is_read(tmp_path: Path) -> None:
    with (tmp_path / "keepsakes.npz").open("wb") as file:
        np.savez(file, run=np.array([{}], dtype=object), settled=np.zeros(0, np.uint8))
    assert values(DiskKeepsakes(tmp_path)) == {}


def test_a_strangers_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "mine.change").write_bytes(b"")
    with pytest.raises(StoreError, match="mine"):
        DiskKeepsakes(tmp_path)


def test_a_full_disk_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keepsakes = DiskKeepsakes(tmp_path)
    keepsakes.put(origin(1), update(1), {"c": vector(1)})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StoreError, match="No space left"):
            keepsakes.settle(update(1), added=True)
    assert values(keepsakes) == {}
    keepsakes.settle(update(1), added=True)
    assert values(keepsakes) == {"c": [1]}
