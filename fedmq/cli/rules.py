"""`fedmq rules`."""

from __future__ import annotations

import json
import shutil

import click

from fedmq.cli.styles import style


@click.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def rules(name: str | None, as_json: bool) -> None:
    """List what averaging rules are made of, or tell all about the part called NAME.

    A rule is guards, a weigher, a reducer and a step, in any combination; a preset is a whole rule by name.

    \b
    fedmq rules
    fedmq rules norm_clip
    """
    from fedmq.inspection.parts import find, parts
    from fedmq.inspection.telling import as_data, in_full, overview

    found = list(parts()) if name is None else find(name)
    if as_json:
        click.echo(json.dumps([as_data(part) for part in found], indent=2, ensure_ascii=False))
        return
    width = shutil.get_terminal_size().columns
    if name is None:
        lines = list(overview(found, width, style))
    else:
        lines = "\n\n\n".join("\n".join(in_full(part, width, style)) for part in found).splitlines()
    click.echo("\n".join(lines))
