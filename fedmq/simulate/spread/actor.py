"""A share in an actor of Ray's: what runs on the machine that Ray has found for it. Answers are JSON.

Ray brings the class to that machine by its name, so fedmq has to be there; nothing else of ours is in what it brings.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from fedmq.simulate.spread.order import Order
from fedmq.simulate.spread.words import COUNT, ENDED, FAILED, READY
from fedmq.simulate.spread.work import Work, sentence
from fedmq.version import __version__


class Actor:
    """Carries one order out."""

    def __init__(self, line: str) -> None:
        """Take the order; see `Order.line`."""
        self._line = line
        self._work: Work | None = None

    async def open(self) -> str:
        """Build the devices; answers with the version of fedmq here."""
        from ray.util import get_node_ip_address  # noqa: PLC0415 - an extra, which is there where this runs

        try:
            self._work = Work(Order.read(self._line).moved(Path.cwd()), get_node_ip_address())
        except Exception as error:  # noqa: BLE001  # it is told
            return json.dumps({FAILED: sentence(error)})
        return json.dumps({READY: __version__})

    async def live(self) -> str:
        """Take part until the federation has ended."""
        try:
            await self._built.live()
        except Exception as error:  # noqa: BLE001  # it is told
            return json.dumps({FAILED: sentence(error)})
        return json.dumps({ENDED: None})

    async def count(self) -> str:
        """Answer with the count of now."""
        return json.dumps({COUNT: asdict(await self._built.count())})

    @property
    def _built(self) -> Work:
        if self._work is None:
            raise RuntimeError("open() comes first")
        return self._work
