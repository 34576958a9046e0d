"""`fedmq codecs`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fedmq.cli.styles import style

if TYPE_CHECKING:
    from fedmq.inspection.comparing import Row


@click.command()
@click.argument("update", required=False, type=click.Path(path_type=Path))
@click.option("--codec", "lines", multiple=True, metavar="LINE", help="A codec to compare with the presets.")
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    help="Model file that UPDATE is of, for a message or an array.",
)
@click.option("--came-as", metavar="LINE", help="Codec that UPDATE is in, for a message.")
@click.option("--plot", type=click.Path(path_type=Path), help="Draw bytes against error into this PNG file.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def codecs(  # noqa: PLR0917 - what the command line gives
    update: Path | None,
    lines: tuple[str, ...],
    model: Path | None,
    came_as: str | None,
    plot: Path | None,
    as_json: bool,
) -> None:
    """List encodings, codecs and their stages, or compare codecs on an UPDATE of your own.

    UPDATE is the folder of a run that kept its updates (--keep-updates, or keep_updates = true under [store]), one
    round's file in it, a NumPy array (.npy), or an update as a device's outbox holds it. Best is one that came as
    `exact`: what another codec has lost is not in it any more.

    \b
    fedmq codecs
    fedmq codecs runs/a --codec 'feedback | topk(0.04) | ternary | gaps' --plot codecs.png
    """
    if update is None:
        _list(as_json=as_json)
        return
    from fedmq.inspection import comparing
    from fedmq.inspection.captured import captured

    chosen = comparing.named_codecs(lines)
    found = captured(update, model, came_as)
    rows = list(comparing.compare(found, chosen))
    if as_json:
        click.echo(json.dumps(comparing.as_data(found, rows), indent=2, ensure_ascii=False))
    else:
        click.echo("\n".join([*comparing.introduction(found), "", *comparing.table(rows)]))
    if plot is not None:
        _draw(plot, found.what, rows, quiet=as_json)


def _list(*, as_json: bool) -> None:
    from fedmq.inspection.codecs import as_data, overview

    if as_json:
        click.echo(json.dumps(as_data(), indent=2, ensure_ascii=False))
    else:
        click.echo("\n".join(overview(shutil.get_terminal_size().columns, style)))


def _draw(path: Path, title: str, rows: list[Row], *, quiet: bool) -> None:
    try:
        from fedmq.inspection.plot import draw
    except ImportError:
        raise click.UsageError("--plot needs matplotlib: install fedmq[plot]") from None
    draw(path, f"Codecs on {title}", rows)
    if not quiet:
        click.echo(f"{path}")
