"""`fedmq export`."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fedmq.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable


@click.command()
@click.argument("module")
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), help="File to write (default: MODULE's name, .tflite)."
)
@click.option(
    "--batch-size",
    type=click.IntRange(1),
    default=32,
    show_default=True,
    help="Rows that go into one call: best what the federation's tasks say.",
)
@click.option("--device", "name", default="init", help="Device name given to the module's data().")
@click.option("--seed", type=click.IntRange(0), help="Seed for the first weights.")
@click.option(
    "--personal", multiple=True, help="Layers that stay on the devices; may be given several times."
)
def export(  # noqa: PLR0917 - what the command line gives
    module: str, out: Path | None, batch_size: int, name: str, seed: int | None, personal: tuple[str, ...]
) -> None:
    """Turn the Keras model that MODULE's model() makes into a file that devices train from without TensorFlow.

    The file goes beside the module on every device, whose trainer is then of kind "litert". It has the model, its loss,
    optimizer and metrics, and its first weights. It was tried against Keras before it was written. Devices with it and
    devices with Keras take part in one federation.

    \b
    fedmq export my_model.py --batch-size 16
    scp my_model.py my_model.tflite pi:
    """
    from fedmq.store.files import write_whole

    exported = _exporter()(module, device=name, batch_size=batch_size, seed=seed, personal=personal)
    target = out or Path(_stem(module) + ".tflite")
    content = exported.content
    write_whole(target, content)
    layout = exported.file.description.layout
    size = f"{layout.size} parameters in {len(content):,} bytes"
    click.echo(f"{target}: {size}, layout {layout.digest.hex()}, batches of {batch_size}")
    for note in exported.notes:
        click.echo(f"note: {note}")


def _exporter() -> Callable[..., Any]:
    """Return the function that exports a module; what it needs is only there where Keras trains."""
    try:
        found: Callable[..., Any] = importlib.import_module("fedmq.trainers.litert.export").from_module
    except ImportError as error:
        raise ConfigError(
            f"exporting needs what is not installed ({error}): pip install 'fedmq[tensorflow,litert]'"
        ) from None
    return found


def _stem(module: str) -> str:
    return Path(module).stem if module.endswith(".py") else module.rpartition(".")[2]
