#!/usr/bin/env python3
"""Say whether the aggregator is there: exit code 0 when its retained status says alive, 1 when not.

    check_aggregator.py federation.toml MONITOR_PASSWORD_FILE

It asks the broker, as the account `monitor`, so it sees what devices see. The aggregator's last will turns the status
over when its link breaks.
"""

from __future__ import annotations

import asyncio
import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from fedmq.config import AggregatorFile, load
from fedmq.errors import FedmqError
from fedmq.protocol.messages import Beacon
from fedmq.transport.interface import Profile
from fedmq.wire.envelope import decode
from fedmq.wire.topics import Topics

if TYPE_CHECKING:
    from fedmq.transport.interface import Transport

PATIENCE_S = 10.0


async def alive(transport: Transport, topics: Topics) -> bool:
    """Return what the aggregator's retained status says. Raises TimeoutError when there is none, and FedmqError."""
    async with asyncio.timeout(PATIENCE_S):
        connection = await transport.connect(Profile(f"fedmq-{topics.federation}-monitor", durable=False))
        try:
            await connection.subscribe(topics.beacon)
            return decode((await connection.receive())[0].payload, Beacon).alive
        finally:
            await connection.close()


def main(settings: str, password_file: str) -> str | None:
    """Return what is wrong, None when nothing is."""
    try:
        read = load(Path(settings), AggregatorFile)
        monitor = dataclasses.replace(read.broker, user="monitor", password_file=Path(password_file))
        there = asyncio.run(alive(monitor.open(), Topics(read.federation.name)))
    except FedmqError as error:
        return str(error)
    except TimeoutError:
        return f"no word from the aggregator within {PATIENCE_S:.0f} s"
    return None if there else "the aggregator is not connected to the broker"


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
