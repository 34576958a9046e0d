"""docs/reference/cli.md is what the commands say of themselves."""

from __future__ import annotations

from pathlib import Path

from fedmq.cli import main
from tools.print_cli import page


def test_the_page_is_up_to_date() -> None:
    stored = Path("docs/reference/cli.md").read_text(encoding="utf-8")
    assert stored == page(), "run: python tools/print_cli.py > docs/reference/cli.md"


def test_every_command_and_option_is_on_it() -> None:
    for name, command in main.commands.items():
        part = page().split(f"## `fedmq {name}`\n", 1)[1].split("\n## ", 1)[0]
        for parameter in command.params:
            assert (
                parameter.opts[0] if parameter.opts[0].startswith("-") else parameter.name or ""
            ).casefold() in part.casefold()
