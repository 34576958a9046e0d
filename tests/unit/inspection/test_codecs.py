"""`fedmq codecs`: what is listed, where updates come from, and what a comparison says of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from click.testing import CliRunner

from fedmq.aggregator.encodings import ENCODINGS
from fedmq.aggregator.settings import Encoding, Federation
from fedmq.cli import main
from fedmq.codecs import FAMILIES, PRESETS, parse
from fedmq.config.kept import written
from fedmq.errors import ConfigError
from fedmq.inspection import comparing
from fedmq.inspection.captured import Captured, captured
from fedmq.inspection.codecs import PURPOSES, entries, overview
from fedmq.protocol.messages import DELTA, Facts, Update
from fedmq.protocol.policy import Policy, StopWhen
from fedmq.protocol.seeds import update_seed
from fedmq.store.archive import UPDATES, Archive
from fedmq.store.modelfile import StoredModel, save_model
from fedmq.testing.federation import SMALL, ShiftTrainer, rig
from fedmq.transport.memory import MemoryBroker
from fedmq.wire.envelope import encode

if TYPE_CHECKING:
    from pathlib import Path

DELTAS = np.random.default_rng(0).normal(size=SMALL.size).astype(np.float32)
NOISY = "rotate | sample(0.5) | eden"


async def kept(folder: Path, up: str) -> None:
    """Leave the updates of two rounds in `folder`."""
    policy = Policy(min_devices=1, quorum=1)
    federation = Federation("test", policy=policy, stop=StopWhen(rounds=2), encoding=Encoding(up=parse(up)))
    broker = MemoryBroker()
    async with rig(federation, lambda: broker, folder) as running:
        running.start_aggregator(archive=Archive(folder / UPDATES, written(federation), 2**30))
        running.start_device("device", ShiftTrainer(become=lambda model: model + DELTAS))
        await running.ended()


def model(folder: Path) -> Path:
    save_model(folder / "m.fedmq", StoredModel(SMALL, DELTAS))
    return folder / "m.fedmq"


# --- the list ---------------------------------------------------------------------------------------------------------


def test_everything_is_listed_with_a_line() -> None:
    names = [(entry.group, entry.name) for entry in entries()]
    assert names[: len(ENCODINGS)] == [("encodings", name) for name in ENCODINGS]
    assert {name for group, name in names if group == "codecs"} == set(PRESETS)
    for family, stages in FAMILIES.items():
        assert [name for group, name in names if group == family] == list(stages)
    assert set(FAMILIES) == set(PURPOSES)
    assert all(entry.summary or entry.line for entry in entries())


def test_the_list_keeps_to_the_width_and_says_what_a_budget_turns() -> None:
    lines = list(overview(70))
    assert max(map(len, lines)) <= 70
    assert "A budget turns its share." in " ".join(" ".join(lines).split())


def test_the_command_lists() -> None:
    assert "Encodings are whole [encoding] tables" in CliRunner().invoke(main, ["codecs"]).output
    rows = json.loads(CliRunner().invoke(main, ["codecs", "--json"]).output)
    assert {"group", "name", "summary", "line"} == set(rows[0])


# --- where updates come from ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("up", ["float32", "int8", NOISY])
async def test_an_update_that_a_run_kept(tmp_path: Path, up: str) -> None:
    await kept(tmp_path, up)
    by_folder = captured(tmp_path)
    by_file = captured(next((tmp_path / UPDATES).glob("round-*2.updates")))
    for found in (by_folder, by_file):
        assert found.sizes == SMALL.sizes
        assert "an update of round 2" in found.what
        assert found.codec == ("" if up == "float32" else up)
    np.testing.assert_array_equal(by_folder.vector, by_file.vector)
    if up != NOISY:
        np.testing.assert_allclose(by_folder.vector, DELTAS, atol=0.02)


def test_an_array(tmp_path: Path) -> None:
    np.save(tmp_path / "u.npy", DELTAS.astype(np.float64))
    assert captured(tmp_path / "u.npy").sizes == (SMALL.size,)
    found = captured(tmp_path / "u.npy", model(tmp_path))
    assert (found.sizes, found.codec) == (SMALL.sizes, "")
    np.testing.assert_array_equal(found.vector, DELTAS)


def message(path: Path, sections: dict[str, bytes] | None = None) -> Path:
    run, update = b"run-one.", b"update-1"
    data = parse(NOISY).encode(DELTAS, SMALL.sizes, seed=update_seed(run, 7, update))
    given = {DELTA: data} if sections is None else sections
    path.write_bytes(encode(Update(run, update, 1, SMALL.digest, Facts(1), given)))
    return path


def test_a_message_from_an_outbox(tmp_path: Path) -> None:
    path = message(tmp_path / f"7-{b'run-one.'.hex()}-{b'update-1'.hex()}.update")
    found = captured(path, model(tmp_path), NOISY)
    wanted = parse(NOISY)
    seed = update_seed(b"run-one.", 7, b"update-1")
    data = wanted.encode(DELTAS, SMALL.sizes, seed=seed)
    np.testing.assert_array_equal(found.vector, wanted.decode(data, SMALL.sizes, seed=seed))
    assert found.codec == NOISY


async def test_what_is_no_update_is_told_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(b"nothing")
    np.save(tmp_path / "b.npy", np.zeros((2, 2)))
    np.save(tmp_path / "c.npy", np.zeros(3, np.float32))
    (tmp_path / "d.update").write_bytes(b"nothing")
    message(tmp_path / "e.update", {})
    there = model(tmp_path)
    for path, given, sentence in (
        (tmp_path / "none", (), "does not exist: name a run that kept its updates"),
        (tmp_path / "a.npy", (), "is no NumPy array"),
        (tmp_path / "b.npy", (), r"float64 of shape \(2, 2\); one row of floats was wanted"),
        (tmp_path / "c.npy", (there,), "holds 3 numbers, the model 21"),
        (tmp_path / "d.update", (), "give --model and --came-as"),
        (tmp_path / "d.update", (there, "int8"), "is no update"),
        (tmp_path / "e.update", (there, "int8"), "has no delta in it"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            captured(path, *given)
    await kept(tmp_path / "run", "float32")
    (tmp_path / "run" / UPDATES / "round-9.updates").write_bytes(b"")
    with pytest.raises(ConfigError, match="holds no update yet"):
        captured(tmp_path / "run" / UPDATES / "round-9.updates")


# --- the comparison ---------------------------------------------------------------------------------------------------


def rows(vector: Any, *lines: str) -> dict[str, comparing.Row]:  # noqa: ANN401 - an array
    update = Captured(vector, (vector.size,), "an update")
    chosen = {line: parse(line) for line in lines}
    return {row.name: row for row in comparing.compare(update, chosen)}


def test_rows_say_what_is_lost_and_for_whom_it_is_good() -> None:
    vector = np.random.default_rng(1).normal(size=10_000).astype(np.float32)
    found = rows(
        vector,
        "float32",
        "int8",
        "rotate | sample(0.1) | eden",
        "feedback | deadzone(1)",
        "deadzone(1)",
        "rotate | int4",
    )
    exact, small, noisy, fed, biased, moderate = found.values()
    assert (exact.ratio, exact.error, exact.bias, exact.rules) == (1.0, 0.0, "no error", "all")
    assert 0 < small.error == small.error_together < 0.05
    assert (small.bias, small.rules) == ("biased", "all")
    assert noisy.error > 2
    assert noisy.error_together == pytest.approx(noisy.error / np.sqrt(comparing.TOGETHER), rel=0.1)
    assert (noisy.bias, noisy.rules) == ("unbiased", "averages")
    assert (fed.bias, biased.bias) == ("made good", "biased")
    assert moderate.rules == "most"
    assert noisy.ratio == pytest.approx(40_000 / noisy.nbytes)


def test_a_codec_that_cannot_says_so_in_its_row() -> None:
    vector = np.array([np.inf, 1.0], np.float32)
    (row,) = rows(vector, "int8").values()
    assert "not finite" in row.refused
    assert row.refused in "\n".join(comparing.table([row]))


def test_an_update_of_zeros_loses_nothing() -> None:
    assert rows(np.zeros(10, np.float32), "int8")["int8"].error == 0.0


def test_presets_and_lines_are_compared_once_each() -> None:
    named = comparing.named_codecs(["int8", PRESETS["safe"], "int8 "])
    assert [name for name, codec in named.items() if codec == parse("safe")] == ["safe"]
    assert list(named)[-1] == "int8"
    assert set(PRESETS) < set(named)


@pytest.mark.slow  # Matplotlib takes its time to be imported
def test_the_command_draws(tmp_path: Path) -> None:
    np.save(tmp_path / "u.npy", DELTAS)
    picture = tmp_path / "c.png"
    told = CliRunner().invoke(main, ["codecs", str(tmp_path / "u.npy"), "--plot", str(picture)])
    assert str(picture) in told.output
    assert picture.read_bytes()[1:4] == b"PNG"


async def test_the_command_compares_and_warns_of_what_is_lost_already(tmp_path: Path) -> None:
    await kept(tmp_path, "int8")
    told = CliRunner().invoke(main, ["codecs", str(tmp_path), "--codec", "int4"])
    assert told.exit_code == 0, told.output
    assert "It came as `int8`, so what that lost is not in it" in told.output
    assert "int4" in told.output
    data = json.loads(CliRunner().invoke(main, ["codecs", str(tmp_path), "--json"]).output)
    assert (data["numbers"], data["came_as"]) == (SMALL.size, "int8")
    assert {row["name"] for row in data["codecs"]} >= set(PRESETS)


def test_an_exact_capture_needs_no_warning(tmp_path: Path) -> None:
    np.save(tmp_path / "u.npy", DELTAS)
    assert "It came as" not in CliRunner().invoke(main, ["codecs", str(tmp_path / "u.npy")]).output
