from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

import pytest

from fedmq.protocol import coordinator, participant
from fedmq.protocol.coordination import CoordinatorEffect, CoordinatorEvent, Ticked
from fedmq.protocol.diagrams import glossary, mermaid, page, table
from fedmq.protocol.participation import ParticipantEffect, ParticipantEvent
from tools import print_machines

if TYPE_CHECKING:
    from pathlib import Path

    from fedmq.protocol.diagrams import Transitions


@pytest.mark.parametrize("transitions", [coordinator.TRANSITIONS, participant.TRANSITIONS])
def test_every_change_of_phase_is_an_arrow(transitions: Transitions[Any]) -> None:
    diagram = mermaid(transitions)
    for (phase, event), targets in transitions.items():
        for target in targets - {phase}:
            arrows = [line for line in diagram.splitlines() if f"{phase.value} --> {target.value}:" in line]
            assert len(arrows) == 1
            assert event.__name__ in arrows[0]
    assert not any(f"{phase.value} --> {phase.value}" in diagram for phase, _ in transitions)


def test_the_first_phase_is_the_beginning() -> None:
    assert "[*] --> new" in mermaid(coordinator.TRANSITIONS)
    assert "[*] --> idle" in mermaid(participant.TRANSITIONS)


def test_the_table_has_a_row_for_each_entry() -> None:
    rows = table(coordinator.TRANSITIONS).splitlines()[2:]
    assert len(rows) == len(coordinator.TRANSITIONS)
    assert "| new | `Started` | waiting, open, stopped |" in rows


def test_the_glossary_names_fields_and_meaning() -> None:
    assert glossary([Ticked]).endswith("| `Ticked` | - | Time has passed; nothing else has happened. |")


def test_the_page_knows_every_event_and_effect() -> None:
    text = page()
    for kinds in (CoordinatorEvent, CoordinatorEffect, ParticipantEvent, ParticipantEffect):
        assert all(f"| `{kind.__name__}` |" in text for kind in get_args(kinds))


def test_the_page_in_the_documentation_is_up_to_date() -> None:
    assert print_machines.main(["--check"]) == 0


def test_a_page_that_is_not_is_found_and_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(print_machines, "PAGE", tmp_path / "reference" / "state-machines.md")
    assert print_machines.main(["--check"]) == 1
    assert print_machines.main(["--write"]) == 0
    assert print_machines.main(["--check"]) == 0
    capsys.readouterr()
    assert print_machines.main([]) == 0
    assert capsys.readouterr().out == page()
