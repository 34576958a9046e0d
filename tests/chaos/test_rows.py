"""The quick form of every row of `make chaos`; the long one takes an hour."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module

import pytest

from tests.chaos import __main__ as command
from tests.chaos.row import ROWS, Mutant, Row, mutants, run_row

SEED = 0


@pytest.mark.slow
@pytest.mark.broker
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ROWS)
def test_a_promise_is_kept(name: str) -> None:
    row = run_row(name, quick=True, seed=SEED)
    assert row.met, f"{row.promise}: {row.figure}, wanted {row.goal}"


def test_every_mutant_names_a_row_and_has_a_name_of_its_own() -> None:
    names = [mutant.name for mutant in mutants()]
    assert len(names) == len(set(names))
    assert {mutant.row for mutant in mutants()} <= set(ROWS)
    assert all(callable(import_module(f"tests.chaos.{name}").run) for name in ROWS)


def test_a_row_that_raises_is_a_broken_promise(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tests.chaos.clocks.run", lambda **_: 1 / 0)
    monkeypatch.setattr("sys.argv", ["chaos", "--quick", "--only", "clocks"])
    assert command.main() == 1
    assert "BROKEN  clocks" in capsys.readouterr().out


def test_what_is_kept_ends_well_and_is_told_as_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = Row("it holds", "3", "3", met=True, figures={"three": 3.0})
    monkeypatch.setattr("tests.chaos.clocks.run", lambda **_: row)
    monkeypatch.setattr("sys.argv", ["chaos", "--only", "clocks", "--json"])
    assert command.main() == 0
    assert '"clocks.three": 3.0' in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize("form", [[], ["--quick"]])
def test_the_long_form_soaks_beside_the_other_rows(
    form: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Beside(ThreadPoolExecutor):
        """A thread in the place of a process, which would have rows of its own."""

        def __init__(self, *_: object) -> None:
            super().__init__(1)

    ran: dict[str, str] = {}

    def run(name: str, **_: object) -> Row:
        ran[name] = threading.current_thread().name
        return Row(name, "3", "3", met=True)

    monkeypatch.setattr(command, "ProcessPoolExecutor", Beside)
    monkeypatch.setattr(command, "run_row", run)
    monkeypatch.setattr("sys.argv", ["chaos", "--only", "soak", "clocks", "replay", *form])
    assert command.main() == 0
    told = [line.split()[1] for line in capsys.readouterr().out.splitlines() if line.startswith("kept")]
    assert told == ["clocks:", "replay:", "soak:"]
    main = threading.current_thread().name
    assert [name for name in ran if ran[name] != main] == ([] if form else ["soak"])


@pytest.mark.parametrize("said", ["", "it was lost"])
def test_a_mutant_that_lives_is_told_and_fails(
    said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "mutants", lambda: [Mutant("one", "a fault", "clocks", lambda _: said)])
    monkeypatch.setattr("sys.argv", ["chaos", "--mutants"])
    assert command.main() == (not said)
    assert ("caught  one" if said else "LIVED   one") in capsys.readouterr().out
