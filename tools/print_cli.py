"""Print docs/reference/cli.md: what `fedmq --help` and its commands' `--help` say, so that the page cannot differ.

Run it as ``python tools/print_cli.py > docs/reference/cli.md``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from fedmq.cli import main

if TYPE_CHECKING:
    from collections.abc import Iterator

INTRODUCTION: Final = """\
# Command line

What `fedmq` and its commands say of themselves under `--help`; `tools/print_cli.py` prints this page.

Every error that fedmq raises on purpose is one line on standard error that begins with `fedmq:`, with exit code 1.
Ctrl-C and SIGTERM end `aggregate`, `device` and `broker` in good order; a training that is under way is finished
first, so that may take a while.
"""


def page() -> str:
    """Return the page as Markdown."""
    return "\n".join([INTRODUCTION, *(part for path in commands(main, "fedmq") for part in section(*path))])


def commands(group: click.Group, path: str) -> Iterator[tuple[str, click.Command]]:
    """Yield the group itself and its commands, each with what one types for it."""
    yield path, group
    for name, command in group.commands.items():
        yield f"{path} {name}", command


def section(path: str, command: click.Command) -> list[str]:
    """Return one command's part of the page."""
    settings = dict(command.context_settings)
    settings |= {"terminal_width": 100, "max_content_width": 100, "help_option_names": ["-h", "--help"]}
    with click.Context(command, info_name=path, **settings) as context:
        text = command.get_help(context)
    return [f"## `{path}`", "", "```text", *(line.rstrip() for line in text.splitlines()), "```", ""]


if __name__ == "__main__":
    print(page(), end="")
