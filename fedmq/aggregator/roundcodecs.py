"""In which codec the updates of each round are: it may be another from round to round, and updates may come late."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from fedmq.codecs import Codec, parse

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fedmq.protocol.messages import Task


class RoundCodecs:
    """The codecs of the rounds whose updates may still be taken, by round."""

    def __init__(self, line: str) -> None:
        """Begin with no round; where nothing else is known, updates are as `line` says."""
        self._otherwise = line
        self._lines: dict[int, str] = {}

    @property
    def lines(self) -> Mapping[int, str]:
        """The codecs' lines by round."""
        return dict(self._lines)

    def recall(self, lines: Mapping[int, str]) -> None:
        """Add what is known of earlier rounds, from before a restart; an empty line says nothing."""
        self._lines.update({round_: line for round_, line in lines.items() if line})

    def open(self, task: Task) -> None:
        """Add the task's round, and forget those whose updates it says are no longer taken."""
        self._lines = {round_: line for round_, line in self._lines.items() if round_ >= task.oldest}
        self._lines[task.round] = task.codec

    def of(self, round_: int) -> Codec:
        """Return the codec of a round's updates; of a round that is not known, the next that is known's."""
        later = min((known for known in self._lines if known >= round_), default=None)
        return _parsed(self._otherwise if later is None else self._lines[later])


_parsed = lru_cache(maxsize=64)(parse)
