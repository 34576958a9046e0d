"""`fedmq replay`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--rule",
    "rules",
    multiple=True,
    metavar="RULE",
    help="A rule to compare, any number of times: a preset's name, or a TOML file with a [rule] table.",
)
@click.option(
    "--each-round",
    "anchored",
    is_flag=True,
    help="Begin every round with the recorded model instead of the rule's own.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder for figures and plot (default: RUN/replay)."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of text.")
def replay(run: Path, rules: tuple[str, ...], anchored: bool, out: Path | None, as_json: bool) -> None:
    """Aggregate the updates that RUN kept once more, under its own rule and others, and compare.

    RUN is the run folder of a simulation, or the folder of an aggregator, that kept its updates (--keep-updates, or
    keep_updates = true under [store]). A simulation's models are evaluated as they were in the run. A service has no
    data to judge by: there, the table has the distance of each model from the recorded one.

    Updates are replayed, devices are not retrained: every update was trained from the model that the recorded rule had
    made. The further another rule's model moves away from that, the less the updates suit it, so its curve is no
    forecast of a run under it. With --each-round every round begins with the recorded model, and each figure is what a
    rule makes of that one round. Without --rule, it is checked that the run's own rule gives each of its models again.

    \b
    fedmq simulate --keep-updates --out runs/a
    fedmq replay runs/a --rule average --rule fedadam --rule my-rule.toml
    """
    from fedmq.replay.play import play

    play(run, rules, out, click.echo, as_json=as_json, anchored=anchored)
