"""A share's process on this machine, as its parent sees it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from typing import TYPE_CHECKING, Any, Final

from fedmq.simulate.crowd import Count, ShareLost
from fedmq.simulate.spread.words import COUNT, ENDED, FAILED, GO, READY

if TYPE_CHECKING:
    from fedmq.simulate.spread.order import Order

PROGRAM: Final = "fedmq.simulate.spread.worker"

PATIENCE_S: Final = 5.0
"""How long a process may take to notice that its input has ended."""


class ShareProcess:
    """One share in a process of its own; see `fedmq.simulate.spread.crew.Part`."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self.name: Final = f"the process with share {order.share} of the devices"
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._awaited: dict[str, asyncio.Future[Any]] = {}
        self._lost: ShareLost | None = None

    @property
    def pid(self) -> int:
        """The process' number, 0 while there is none."""
        return 0 if self._process is None else self._process.pid

    async def open(self) -> None:
        """Start it, and wait until its devices are built. Raises ShareLost."""
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # what lies in the working directory is nothing to us, whatever its name
            "-m",
            PROGRAM,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=environment,
            process_group=0,  # Ctrl-C is for us, and we end it
        )
        self._reading = asyncio.create_task(self._read(self._process))
        self._say(self._order.line())
        await self._hear(READY)

    async def live(self) -> None:
        """Let its devices take part until the federation has ended. Raises ShareLost."""
        self._say(GO)
        await self._hear(ENDED)

    async def count(self) -> Count:
        """Return what its devices have sent and received until now. Raises ShareLost."""
        self._say(COUNT)
        return Count.read(await self._hear(COUNT))

    async def close(self) -> None:
        """End it, for certain."""
        if self._process is None:
            return
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        finally:
            if self._reading is not None:
                self._reading.cancel()

    def _say(self, line: str) -> None:
        """Send a line; where the process is gone, the reading of its output says so."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.write(line.encode() + b"\n")

    async def _hear(self, word: str) -> Any:  # noqa: ANN401  # what JSON gives
        if self._lost is not None:
            raise self._lost
        self._awaited[word] = asyncio.get_running_loop().create_future()
        try:
            return await self._awaited[word]
        finally:
            del self._awaited[word]

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        """Take what it says, until it has nothing more to say: then it is gone."""
        if process.stdout is None:
            return
        try:
            async for line in process.stdout:
                self._take(*json.loads(line).popitem())
        except ValueError as error:
            self._lose(f"{self.name} said what cannot be read ({error}): this is a bug in fedmq")
        self._lose(f"{self.name} {_ending(await process.wait())}")

    def _take(self, word: str, content: Any) -> None:  # noqa: ANN401  # what JSON gives
        if word == FAILED:
            self._lose(f"{self.name} cannot go on: {content}")
        elif word in self._awaited and not self._awaited[word].done():
            self._awaited[word].set_result(content)

    def _lose(self, sentence: str) -> None:
        self._lost = self._lost or ShareLost(sentence)
        for future in self._awaited.values():
            if not future.done():
                future.set_exception(self._lost)


def _ending(code: int) -> str:
    if code >= 0:
        return f"ended before its time, with exit code {code}: what it wrote last may say why"
    name = signal.Signals(-code).name
    hint = ": the machine may be short of memory" if -code == signal.SIGKILL else ""
    return f"was ended by {name}{hint}"
