"""Whatever a power cut leaves of the disks, what was promised is there: a few hundred of the states that may be left.

`make chaos` tries thousands, and starts the federation again from hundreds of them.
"""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

import pytest

from fedmq.store.files import remove, sync_folder, write_whole
from tests.chaos import belongings, mutants, powercut, site
from tests.chaos.disk import Recorder
from tests.chaos.remains import CONTENT_ONLY, EVERYTHING, LUCKS, MIXED, NAMES_ONLY, NOTHING, Luck, cut

STATES = 110


def left(recorder: Recorder, luck: Luck, seed: int = 0) -> dict[str, bytes | None]:
    return cut(recorder.log, recorder.folders, luck, Random(seed)).files


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    return Recorder(tmp_path)


# --- the disk ---------------------------------------------------------------------------------------------------------


def test_what_is_not_synced_may_be_gone_or_there(recorder: Recorder) -> None:
    with recorder.recording(), (recorder.root / "file").open("wb") as file:
        file.write(b"content")
    assert left(recorder, NOTHING) == {}
    assert left(recorder, NAMES_ONLY) == {"file": b""}
    assert left(recorder, CONTENT_ONLY) == {}
    assert left(recorder, EVERYTHING) == {"file": b"content"}


def test_a_synced_file_without_a_synced_name_may_be_gone(recorder: Recorder) -> None:
    with recorder.recording(), (recorder.root / "file").open("wb") as file:
        file.write(b"content")
        file.flush()
        os.fsync(file.fileno())
    assert left(recorder, NOTHING) == {}
    assert left(recorder, NAMES_ONLY) == {"file": b"content"}


def test_a_whole_file_is_the_old_one_or_the_new_one(recorder: Recorder) -> None:
    path = recorder.root / "file"
    with recorder.recording():
        write_whole(path, b"old" * 1000)
        written = len(recorder.log)
        write_whole(path, b"new" * 2000)
    for point in range(written, len(recorder.log) + 1):
        for seed, luck in enumerate(LUCKS):
            files = cut(recorder.log[:point], recorder.folders, luck, Random(seed)).files
            assert files["file"] in {b"old" * 1000, b"new" * 2000}
    assert left(recorder, NOTHING)["file"] == b"new" * 2000


def test_what_was_removed_may_come_back(recorder: Recorder) -> None:
    path = recorder.root / "file"
    with recorder.recording():
        write_whole(path, b"content")
        remove(path)
        assert left(recorder, NOTHING) == {"file": b"content"}
        sync_folder(recorder.root)
    assert left(recorder, NOTHING) == {}


def test_each_sector_comes_or_does_not(recorder: Recorder) -> None:
    path = recorder.root / "file"
    with recorder.recording():
        write_whole(path, b"o" * 4096)
        with path.open("r+b") as file:
            file.write(b"n" * 4096)
    found = {left(recorder, MIXED, seed)["file"] for seed in range(30)}
    sectors = {content[at : at + 512] for content in found if content for at in range(0, 4096, 512)}
    assert sectors == {b"o" * 512, b"n" * 512}
    assert len(found) > 20


def test_what_was_there_before_is_durable(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_bytes(b"content")
    recorder = Recorder(tmp_path)
    with recorder.recording():
        (tmp_path / "folder" / "file").rename(tmp_path / "folder" / "other")
    assert left(recorder, NOTHING) == {"folder": None, "folder/file": b"content"}
    assert left(recorder, EVERYTHING) == {"folder": None, "folder/other": b"content"}


# --- aggregator and devices -------------------------------------------------------------------------------------------


async def test_nothing_that_was_promised_is_lost_by_a_power_cut(tmp_path: Path) -> None:
    tape = await site.record(tmp_path)
    real = {
        str(path.relative_to(tmp_path)): path.read_bytes() if path.is_file() else None
        for path in tmp_path.rglob("*")
    }
    assert left(tape.recorder, EVERYTHING) == real, "the recorder has missed an operation"
    random, seen = Random(0), powercut.Seen()
    for number in range(STATES):
        point, luck = random.choice(tape.points), LUCKS[number % len(LUCKS)]
        with seen.cut("looks", f"{luck} at {point}", tape.remains(point, luck, random)) as folder:
            tape.check(folder, tape.owed(point))
    assert not seen.lost, seen.lost[0]
    assert len(seen.states) > STATES / 2


async def test_a_device_owes_and_keeps_what_it_did_before_a_power_cut(tmp_path: Path) -> None:
    life = await belongings.record(tmp_path, 1)
    random, seen = Random(0), powercut.Seen()
    for number in range(STATES):
        point, luck = random.choice(life.points), LUCKS[number % len(LUCKS)]
        with seen.cut("looks", f"{luck} at {point}", life.remains(point, luck, random)) as folder:
            life.check(folder, point)
    assert not seen.lost, seen.lost[0]
    assert len(seen.states) > STATES / 2


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["synchronous_off", "folders_unsynced", "residual_committed_early"])
def test_a_planted_fault_is_found(name: str) -> None:
    _, plant, plan = mutants.POWER[name]
    assert mutants._cut(plan, plant, 0)
