"""What a device keeps: changed by accepted updates only, once each, whenever the power goes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from fedmq.device.keepsakes import DiskKeepsakes, Keepsakes, MemoryKeepsakes
from fedmq.device.kept import MOST_WAITING, NOTED, End, Origin
from fedmq.device.outbox import DiskOutbox, Stored
from fedmq.device.residual import Residual
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
    opened().settle(update(1), End.MOVED)
    assert values(opened()) == {}


def test_only_accepted_changes_are_added(opened: Callable[[], Keepsakes]) -> None:
    opened().put(origin(1), update(1), {"c": vector(1, 2), "residual": vector(5)})
    assert opened().waiting() == {update(1): origin(1)}
    assert values(opened()) == {}
    opened().settle(update(1), End.MOVED)
    assert update(1) not in opened().waiting()
    opened().put(origin(2), update(2), {"c": vector(10, 20)})
    opened().settle(update(2), End.RETURNED)
    assert update(2) not in opened().waiting()
    opened().put(origin(3), update(3), {"c": vector(100, 200)})
    opened().settle(update(3), End.MOVED)
    assert values(opened()) == {"c": [101, 202], "residual": [5]}


def test_acceptance_is_noted(opened: Callable[[], Keepsakes]) -> None:
    for number in (1, 2):
        opened().put(origin(number), update(number), {"c": vector(number)})
    for _ in range(2):
        opened().accept(update(1))
    opened().accept(update(3))
    assert opened().waiting() == {update(1): replace(origin(1), accepted=True), update(2): origin(2)}
    assert values(opened()) == {}
    opened().settle(update(1), End.MOVED)
    assert values(opened()) == {"c": [1]}


def test_a_second_receipt_changes_nothing(opened: Callable[[], Keepsakes]) -> None:
    opened().put(origin(1), update(1), {"c": vector(1)})
    for end in (End.MOVED, End.MOVED, End.RETURNED):
        opened().settle(update(1), end)
    assert values(opened()) == {"c": [1]}


def test_changes_of_several_updates_add_up_in_any_order(opened: Callable[[], Keepsakes]) -> None:
    for number in (1, 2, 3):
        opened().put(origin(number), update(number), {"c": vector(10.0**number)})
    opened().settle(update(3), End.MOVED)
    opened().settle(update(1), End.MOVED)
    assert values(opened()) == {"c": [1010]}


def test_another_run_begins_with_nothing(opened: Callable[[], Keepsakes]) -> None:
    opened().put(origin(1), update(1), {"c": vector(1)})
    opened().settle(update(1), End.MOVED)
    assert values(opened(), OTHER) == {}
    opened().put(origin(2, OTHER), update(2), {"c": vector(7)})
    assert values(opened()) == {"c": [1]}
    opened().settle(update(2), End.MOVED)
    assert values(opened(), OTHER) == {"c": [7]}
    assert values(opened()) == {}


def test_the_oldest_change_gives_way(opened: Callable[[], Keepsakes]) -> None:
    for number in range(MOST_WAITING + 2):
        opened().put(origin(number), update(number), {"c": vector(1)})
    assert sorted(opened().waiting()) == [update(number) for number in range(2, MOST_WAITING + 2)]


def test_vectors_of_a_new_length_begin_anew(opened: Callable[[], Keepsakes]) -> None:
    for number, change in enumerate((vector(1), vector(2, 3))):
        opened().put(origin(number), update(number), {"c": change})
        opened().settle(update(number), End.MOVED)
    assert values(opened()) == {"c": [2, 3]}


def test_what_was_settled_is_noted_for_long_enough(tmp_path: Path) -> None:
    keepsakes = DiskKeepsakes(tmp_path)
    for number in range(NOTED + 5):
        keepsakes.put(origin(number), update(number), {"c": vector(1)})
        keepsakes.settle(update(number), End.MOVED)
    assert keepsakes._keepsake.settled == tuple(map(update, range(5, NOTED + 5)))
    assert DiskKeepsakes(tmp_path)._keepsake.settled == keepsakes._keepsake.settled


# --- what error feedback keeps


def sent(
    keepsakes: Keepsakes,
    number: int,
    left: float,
    back: float,
    *,
    taken: Sequence[int] = (),
    run: bytes = RUN,
) -> None:
    """Keep what an update leaves behind; it would bring `back` back."""
    residual = Residual(vector(left), vector(back), tuple(map(update, taken)))
    keepsakes.put(origin(number, run), update(number), {}, residual)


def owed(keepsakes: Keepsakes, run: bytes = RUN) -> list[tuple[int, float, int]]:
    """Return round, number and update of each piece."""
    return [
        (piece.round, float(piece.vector[0]), int.from_bytes(piece.update, "big"))
        for piece in keepsakes.owed(run)
    ]


def test_the_residual_is_what_the_last_update_left(opened: Callable[[], Keepsakes]) -> None:
    assert owed(opened()) == []
    sent(opened(), 1, left=5, back=50)
    assert owed(opened()) == [(1, 5, 0)]
    sent(opened(), 2, left=7, back=70)
    assert owed(opened()) == [(2, 7, 0)]
    opened().settle(update(1), End.MOVED)
    assert owed(opened()) == [(2, 7, 0)]
    assert opened().waiting() == {update(2): origin(2)}


def test_what_did_not_count_comes_back_until_it_is_taken_along(opened: Callable[[], Keepsakes]) -> None:
    sent(opened(), 1, left=5, back=50)
    opened().accept(update(1))
    opened().settle(update(1), End.RETURNED)
    assert not opened().waiting()
    assert owed(opened()) == [(1, 5, 0), (1, 50, 1)]
    sent(opened(), 2, left=6, back=60)
    assert owed(opened()) == [(2, 6, 0), (1, 50, 1)]
    sent(opened(), 3, left=7, back=70, taken=[1])
    assert owed(opened()) == [(3, 7, 0)]


def test_a_refused_update_takes_the_residual_with_it(opened: Callable[[], Keepsakes]) -> None:
    sent(opened(), 1, left=5, back=50)
    opened().settle(update(1), End.REFUSED)
    assert owed(opened()) == []
    assert not opened().waiting()
    sent(opened(), 2, left=6, back=60, run=OTHER)
    opened().put(origin(3), update(3), {"c": vector(1)})
    opened().settle(update(3), End.REFUSED)
    assert owed(opened(), OTHER) == [(2, 6, 0)]


def test_changes_and_residual_do_not_mix(opened: Callable[[], Keepsakes]) -> None:
    opened().put(origin(1), update(1), {"c": vector(1, 2)}, Residual(vector(5), vector(50)))
    assert values(opened()) == {"feedback.residual": [5]}
    opened().settle(update(1), End.MOVED)
    assert values(opened()) == {"feedback.residual": [5], "c": [1, 2]}
    opened().put(origin(2), update(2), {"c": vector(1, 2)}, Residual(vector(6), vector(60)))
    opened().settle(update(2), End.REFUSED)
    assert values(opened()) == {"c": [1, 2]}


def test_another_run_owes_nothing(opened: Callable[[], Keepsakes]) -> None:
    for number in (1, 2):
        sent(opened(), number, left=5, back=50)
        opened().settle(update(number), End.DROPPED if number == 1 else End.RETURNED)
    assert owed(opened()) == [(2, 5, 0), (2, 50, 2)]
    sent(opened(), 3, left=7, back=70, run=OTHER)
    assert owed(opened()) == []
    assert owed(opened(), OTHER) == [(3, 7, 0)]


def test_the_oldest_of_too_many_come_back(opened: Callable[[], Keepsakes]) -> None:
    for number in range(1, MOST_WAITING + 2):
        sent(opened(), number, left=number, back=10 * number)
    assert owed(opened()) == [(MOST_WAITING + 1, MOST_WAITING + 1, 0), (1, 10, 1)]


def test_what_a_round_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One residual and one update, nothing when it is accepted; the figures are those of error-feedback.md."""
    written: list[int] = []
    beside = Path.replace

    def replaced(self: Path, target: Path) -> Path:
        if self.suffix == ".new":
            written.append(self.stat().st_size)
        return beside(self, target)

    monkeypatch.setattr(Path, "replace", replaced)
    chance, size = np.random.default_rng(1), 100_000
    lost = chance.normal(size=size).astype(np.float32)
    kept = DiskKeepsakes(tmp_path)
    delivered = np.where(chance.random(size) < 0.01, np.float32(0.25), np.float32(0))
    kept.put(origin(1), update(1), {}, Residual(lost, delivered))
    small, large = sorted(written)
    assert large < 4 * size + 2000
    assert small < 4000
    kept.accept(update(1))
    kept.settle(update(1), End.MOVED)
    assert len(written) == 2


def test_files_of_an_older_fedmq_are_read(tmp_path: Path) -> None:
    with (tmp_path / "keepsakes.npz").open("wb") as file:
        run, settled = np.frombuffer(RUN, np.uint8), np.frombuffer(update(1), np.uint8)
        np.savez(file, run=run, settled=settled, **{"vector/c": vector(3)})  # type: ignore[arg-type]
    keepsakes = DiskKeepsakes(tmp_path)
    assert values(keepsakes) == {"c": [3]}
    assert owed(keepsakes) == []


def test_a_damaged_change_brings_nothing_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    keepsakes = DiskKeepsakes(tmp_path)
    for number in (1, 2):
        sent(keepsakes, number, left=5, back=50)
        keepsakes.settle(update(number), End.RETURNED)
    (path,) = tmp_path.glob("1-*.returned")
    path.write_bytes(path.read_bytes()[:-30])
    assert owed(DiskKeepsakes(tmp_path)) == [(2, 5, 0), (2, 50, 2)]
    assert "is damaged" in caplog.text


def test_any_damage_is_told_of_and_stops_nobody(tmp_path: Path) -> None:
    """One byte wrong, at every place of both files: they are read as they were, or not at all."""
    folder = tmp_path / "k"
    keepsakes = DiskKeepsakes(folder)
    sent(keepsakes, 1, left=5, back=50)
    keepsakes.settle(update(1), End.RETURNED)
    for path in sorted(folder.iterdir()):
        whole = path.read_bytes()
        for place in range(0, len(whole), 3):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x41]) + whole[place + 1 :])
            found = owed(DiskKeepsakes(folder))
            assert all(number in (5, 50) for _, number, _ in found)
            if not path.exists():
                break
        path.write_bytes(whole)


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
        if self.left < 0 or (self.left == 0 and not self.after):
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
            self.keepsakes.settle(known, End.MOVED)

    def _judge(self, known: bytes, *, accepted: bool) -> None:
        if accepted:
            self.keepsakes.accept(known)
        else:
            self.keepsakes.settle(known, End.RETURNED)


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
    keepsakes.settle(update(1), End.MOVED)
    path, pending = tmp_path / "keepsakes.npz", tmp_path / f"2-7-{RUN.hex()}-{update(2).hex()}.change"
    for content in (b"", b"PK\x03\x04 no archive", path.read_bytes()[:-40], np.arange(3).tobytes()):
        path.write_bytes(content)
        caplog.clear()
        assert values(DiskKeepsakes(tmp_path)) == {}
        assert "is damaged" in caplog.text
    pending.write_bytes(b"x")
    again = DiskKeepsakes(tmp_path)
    again.settle(update(2), End.MOVED)
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
            keepsakes.settle(update(1), End.MOVED)
    assert values(keepsakes) == {}
    keepsakes.settle(update(1), End.MOVED)
    assert values(keepsakes) == {"c": [1]}
