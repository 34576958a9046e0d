"""`fedmq` itself: the group of its commands, how errors are told, and how a command runs until it is stopped."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from typing import TYPE_CHECKING, Any, NoReturn

import click

from fedmq.errors import FedmqError
from fedmq.version import __version__

if TYPE_CHECKING:
    from collections.abc import Coroutine


class Commands(click.Group):
    """Turns every FedmqError into one line on standard error and exit code 1: no traceback is ever shown for one."""

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's own signature
        """Run the command."""
        try:
            return super().invoke(ctx)
        except FedmqError as error:
            _fail(str(error))
        except KeyboardInterrupt:
            _fail("interrupted", code=130)
        except BaseExceptionGroup as group:
            ours = group.subgroup(FedmqError)
            if ours is None:
                raise
            _fail(str(_first(ours)))


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner


def _fail(sentence: str, code: int = 1) -> NoReturn:
    click.echo(f"fedmq: {sentence}", err=True)
    sys.exit(code)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="fedmq")
@click.option("-v", "--verbose", count=True, help="Say more: once for what happens, twice for everything.")
def main(verbose: int) -> None:
    """Federated learning for fleets of IoT devices, over MQTT.

    Devices keep their data, train a shared model on it and publish compressed weight deltas; the aggregator averages
    them and publishes the new model.

    \b
    See it work:       fedmq simulate
    Run it for real:   fedmq aggregate federation.toml     on one machine
                       fedmq device device.toml            on every device
    """
    level = {0: logging.WARNING, 1: logging.INFO}.get(verbose, logging.DEBUG)
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s")


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run until done; SIGTERM and SIGINT cancel it, so that everything is closed in good order."""

    async def guarded() -> None:
        task = asyncio.ensure_future(work)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, task.cancel)
        try:
            await task
        except asyncio.CancelledError:
            click.echo("stopped")

    asyncio.run(guarded())
