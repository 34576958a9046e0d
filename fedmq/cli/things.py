"""The commands about things on disk: `fedmq init` and `inspect`."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command()
@click.argument("module")
@click.option("-o", "--out", type=click.Path(path_type=Path), default=Path("model.fedmq"), show_default=True)
@click.option(
    "--trainer", default="keras", show_default=True, help="keras, numpy, or package.module:function."
)
@click.option("--device", "name", default="init", help="Device name given to the module's data().")
@click.option(
    "--personal", multiple=True, help="Layers that stay on the devices; may be given several times."
)
def init(module: str, out: Path, trainer: str, name: str, personal: tuple[str, ...]) -> None:
    """Write the first model that MODULE's model() makes, for an aggregator without the training framework."""
    from fedmq.simulate.fleet import build_trainer
    from fedmq.store.modelfile import StoredModel, save_model

    built = build_trainer(trainer)(module, name, {"personal": list(personal)} if personal else {})
    save_model(out, StoredModel(built.layout, built.initial(), {"module": module, "trainer": built.name}))
    click.echo(f"{out}: {built.layout.size} parameters, layout {built.layout.digest.hex()}")


@click.command()
@click.argument("thing", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def inspect(thing: Path, as_json: bool) -> None:
    """Say what THING is: a run folder, an aggregator's folder, a model file, a journal, or a captured message.

    \b
    mosquitto_sub -t 'fedmq/v1/+/all/task' -C 1 -N > task.bin
    fedmq inspect task.bin
    """
    from fedmq.inspection import as_text, inspect_path

    found = inspect_path(thing)
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        click.echo("\n".join(as_text(found)))
