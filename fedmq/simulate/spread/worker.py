"""The program of a share's process: lines in and out (`words`), and the end of its input is its own end.

Its input ends when whoever started it closes it or dies, however that comes about; so no process is left behind.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import traceback
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final, TextIO

from fedmq.errors import FedmqError
from fedmq.simulate.spread.order import Order
from fedmq.simulate.spread.words import COUNT, ENDED, FAILED, READY
from fedmq.simulate.spread.work import Work, sentence

if TYPE_CHECKING:
    from collections.abc import Callable


_NICENESS: Final = 3
"""Where cores are short the aggregator goes first: updates that it has no time for are left over when all devices are
done, and then they wait for its one thread."""


def main() -> None:
    """Work until the input ends; what goes wrong is said, and ends this process with 1."""
    if hasattr(os, "nice"):  # not on Windows
        os.nice(_NICENESS)
    say = _speaker(_own_output())
    try:
        asyncio.run(_serve(Order.read(sys.stdin.readline()), say))
    except FedmqError as error:
        say(FAILED, sentence(error))
    except Exception as error:  # noqa: BLE001  # it is told, and this process ends
        traceback.print_exc()
        say(FAILED, sentence(error))
    os._exit(1)


async def _serve(order: Order, say: Callable[[str, Any], None]) -> None:
    heard: asyncio.Queue[str] = asyncio.Queue()
    listener = threading.Thread(target=_listen, args=(asyncio.get_running_loop(), heard), daemon=True)
    listener.start()
    work = Work(order)  # blocks this loop, which has nothing else to do yet
    say(READY, None)
    await heard.get()  # GO
    await asyncio.gather(_live(work, say), _answer(work, heard, say))


async def _live(work: Work, say: Callable[[str, Any], None]) -> None:
    await work.live()
    say(ENDED, None)


async def _answer(work: Work, heard: asyncio.Queue[str], say: Callable[[str, Any], None]) -> None:
    """Count whenever asked, for as long as this process lives."""
    while True:
        await heard.get()
        say(COUNT, asdict(await work.count()))


def _listen(loop: asyncio.AbstractEventLoop, heard: asyncio.Queue[str]) -> None:
    """Pass on what is asked, and end the process with its input: from a thread, for the loop may be busy or stuck."""
    for line in sys.stdin:
        loop.call_soon_threadsafe(heard.put_nowait, line.strip())
    os._exit(0)


def _own_output() -> TextIO:
    """Return what was standard output, which from now on is standard error: the user's code may print."""
    ours = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return ours


def _speaker(out: TextIO) -> Callable[[str, Any], None]:
    def say(word: str, content: Any) -> None:  # noqa: ANN401  # what JSON takes
        try:
            out.write(json.dumps({word: content}) + "\n")
            out.flush()
        except BrokenPipeError:
            os._exit(0)  # nobody is left to hear it

    return say


if __name__ == "__main__":
    main()
