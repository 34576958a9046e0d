"""A party to a federation in a process of its own, which can be killed at a place chosen beforehand.

    python -m tests.chaos.party aggregator FOLDER
    python -m tests.chaos.party devices FOLDER ADDRESS FIRST COUNT

The aggregator is `fedmq aggregate FOLDER/federation.toml`. The devices ``device-<FIRST>`` and on share a process and
nothing else. With ``--fault NAME`` the process has that fault of
`tests.chaos.faults`.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
from pathlib import Path
from random import Random
from typing import Final

from fedmq.cli import main as fedmq
from fedmq.transport.address import Credentials, open_transport
from tests.chaos.faults import planted
from tests.chaos.fleet import WatchedDevice, names
from tests.chaos.ledger import Ledger
from tests.chaos.points import Points

TRAINING_S: Final = 0.4
"""A training takes up to so long."""


def main(arguments: list[str] | None = None) -> None:
    """Be what was asked for, until killed."""
    given = parse(arguments)
    planted(given.fault)
    points = Points(given.folder / f"{given.points}.points")
    if given.party == "aggregator":
        points.mark_aggregator()
        fedmq(["aggregate", str(given.folder / "federation.toml")])
    else:
        logging.getLogger("fedmq").setLevel(logging.CRITICAL)  # links are lost by the dozen
        points.mark_devices()
        asyncio.run(live(given.folder, given.address, names(given.first + given.count)[given.first :]))


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Return what was asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos.party",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("party", choices=("aggregator", "devices"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("address", nargs="?", default="")
    parser.add_argument("first", type=int, nargs="?", default=0)
    parser.add_argument("count", type=int, nargs="?", default=1)
    parser.add_argument("--points", default="party", help="name of the file that says where it is")
    parser.add_argument("--fault", default="", help="a fault to plant")
    return parser.parse_args(arguments)


async def live(folder: Path, address: str, which: list[str]) -> None:
    """Run the devices until the federation ends."""
    ledger, random = Ledger(folder / "ledger"), Random(f"{which[0]}")

    async def pause() -> None:
        await asyncio.sleep(random.uniform(0.0, TRAINING_S))

    devices = [
        WatchedDevice(name, open_transport(address, Credentials()), folder / name, ledger, pause=pause)
        for name in which
    ]
    await asyncio.gather(*(device.run() for device in devices))


if __name__ == "__main__":
    main()
