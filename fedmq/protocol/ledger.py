"""The account of every update that arrived: one verdict each, and sums that always add up."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

from fedmq.protocol.messages import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fedmq.protocol.messages import Facts

REMEMBERED_ROUNDS: Final = 4
"""Closed rounds whose verdicts stay known, so that a device whose receipt was lost gets the true answer again."""

MOST_NAMES: Final = 32
"""Metric names, and kinds of refusal, that one round's account holds: devices choose both, memory must not follow."""

MOST_EXAMPLES: Final = 2**53
"""Sum of examples that a report can carry."""
MOST_WEIGHT: Final = 1e7
"""Held-out examples that one device's metrics can weigh with."""
MOST_VALUE: Final = 1e15
"""Size of a metric above which it is left out of the means."""


class Standing(Enum):
    """How far the one update of one device in the open round has come."""

    ARRIVING = auto()  # pieces of it are coming in
    ABSORBING = auto()  # durable, with the rule
    SETTLED = auto()  # it has its verdict


@dataclass(slots=True)
class Entry:
    """One device's update in one round."""

    update: bytes
    standing: Standing = Standing.ARRIVING
    verdict: Verdict = Verdict.ACCEPTED
    reason: str = ""


@dataclass(slots=True)
class Tally:
    """Counts of one round; `received` is by construction the sum of the four verdicts."""

    accepted: int = 0
    duplicate: int = 0
    late: int = 0
    rejected: int = 0
    bytes_up: int = 0
    examples: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    _sums: dict[str, float] = field(default_factory=dict)
    _weights: dict[str, float] = field(default_factory=dict)

    @property
    def received(self) -> int:
        """Updates that got a verdict."""
        return self.accepted + self.duplicate + self.late + self.rejected

    def count(self, verdict: Verdict, reason: str = "") -> None:
        """Add one verdict (one of the four that settle)."""
        match verdict:
            case Verdict.ACCEPTED:
                self.accepted += 1
            case Verdict.DUPLICATE:
                self.duplicate += 1
            case Verdict.LATE:
                self.late += 1
            case _:
                self.rejected += 1
                kind = _key(reason, self.reasons)
                self.reasons[kind] = self.reasons.get(kind, 0) + 1

    def add(self, facts: Facts) -> None:
        """Add the facts of an accepted update; metrics weigh by ``held_out`` where reported, else by examples.

        What a device claims is bounded here: a wild claim may spoil a mean, it must not spoil the report.
        """
        self.examples = min(self.examples + facts.examples, MOST_EXAMPLES)
        weight = min(max(facts.metrics.get("held_out", float(facts.examples)), 0.0), MOST_WEIGHT)
        for name, value in facts.metrics.items():
            if abs(value) > MOST_VALUE or (name not in self._sums and len(self._sums) == MOST_NAMES):
                continue
            self._sums[name] = self._sums.get(name, 0.0) + weight * value
            self._weights[name] = self._weights.get(name, 0.0) + weight

    @property
    def metrics(self) -> dict[str, float]:
        """Weighted means of the reported metrics; ``held_out`` is the sum."""
        means = {
            name: self._sums[name] / self._weights[name] for name in self._sums if self._weights[name] > 0
        }
        if "held_out" in means:
            means["held_out"] = self._weights["held_out"]
        return means


class Ledger:
    """Entries of the open round and the verdicts of the last few closed ones."""

    def __init__(self, settled: Mapping[int, Mapping[str, tuple[bytes, Verdict, str]]] | None = None) -> None:
        """Start with the verdicts that a checkpoint remembers, by round and device."""
        self.entries: dict[str, Entry] = {}
        self.tally = Tally()
        self.accepted = 0
        self.absorbing = 0
        self._closed: dict[int, dict[str, Entry]] = {
            round_: {
                device: Entry(update, Standing.SETTLED, verdict, why)
                for device, (update, verdict, why) in row.items()
            }
            for round_, row in (settled or {}).items()
        }

    def open(self) -> None:
        """Begin a round with nothing in it; the tally goes on until it is reported."""
        self.entries, self.accepted, self.absorbing = {}, 0, 0

    def report(self) -> Tally:
        """Return the tally since the last report and start a new one."""
        tally, self.tally = self.tally, Tally()
        return tally

    def unsettled(self) -> list[tuple[str, bytes]]:
        """Return device and update id of those in the open round that have no verdict yet."""
        return [(d, e.update) for d, e in self.entries.items() if e.standing is not Standing.SETTLED]

    def close(self, round_: int) -> None:
        """Put the round's verdicts, by now one for each entry, among the remembered ones; forget the oldest."""
        self._closed[round_], self.entries = self.entries, {}
        for stale in sorted(self._closed)[:-REMEMBERED_ROUNDS]:
            del self._closed[stale]

    def closed(self, round_: int) -> bool:
        """Say whether the round is one of the closed ones that are still known."""
        return round_ in self._closed

    def remembered(self, round_: int, device: str) -> Entry | None:
        """Return the entry of a closed round, if it is still known."""
        return self._closed.get(round_, {}).get(device)

    def absorbing_begins(self, device: str) -> None:
        """Note that the device's update is with the rule."""
        self.entries[device].standing = Standing.ABSORBING
        self.absorbing += 1

    def settle(self, device: str, verdict: Verdict, reason: str = "") -> None:
        """Give the device's update its verdict and count it."""
        entry = self.entries[device]
        self.absorbing -= entry.standing is Standing.ABSORBING
        self.accepted += verdict is Verdict.ACCEPTED
        entry.standing, entry.verdict, entry.reason = Standing.SETTLED, verdict, reason
        self.tally.count(verdict, reason)

    def settled(self, device: str) -> bool:
        """Say whether the device's update of the open round has its verdict."""
        entry = self.entries.get(device)
        return entry is not None and entry.standing is Standing.SETTLED

    def snapshot(self, closing: int | None = None) -> dict[int, dict[str, tuple[bytes, Verdict, str]]]:
        """Return the remembered verdicts as plain data, for a checkpoint.

        `closing` is the number of the round that is about to be closed: its verdicts are then among them.
        """
        rounds = dict(self._closed)
        if closing is not None:
            rounds[closing] = {d: e for d, e in self.entries.items() if e.standing is Standing.SETTLED}
        return {
            round_: {device: (e.update, e.verdict, e.reason) for device, e in row.items()}
            for round_, row in rounds.items()
        }


def _key(reason: str, known: Mapping[str, int]) -> str:
    """Return the account's name for a refusal: its words without figures, or ``other`` once there are many."""
    kind = "".join("#" if letter.isdigit() else letter for letter in reason)[:120]
    return kind if kind in known or len(known) < MOST_NAMES else "other"
