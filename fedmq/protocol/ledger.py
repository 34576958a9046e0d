"""The account of every update that arrived: one verdict each, and sums that always add up."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING, Final, TypeAlias

from fedmq.protocol.messages import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fedmq.protocol.messages import Facts

Key: TypeAlias = tuple[str, int]
"""A device, and the round that its update answers."""

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
    """How far the one update of one device for one round has come."""

    ARRIVING = auto()  # pieces of it are coming in
    READY = auto()  # durable, and the buffer has no room until another update turns out to be no good
    ABSORBING = auto()  # durable, with the rule
    SETTLED = auto()  # it has its verdict


@dataclass(slots=True)
class Entry:
    """One device's update for one round."""

    update: bytes
    standing: Standing = Standing.ARRIVING
    verdict: Verdict = Verdict.ACCEPTED
    reason: str = ""
    whole: float = 0.0  # when all of it was there


@dataclass(slots=True)
class Tally:
    """Counts of one round; `received` is by construction the sum of the four verdicts."""

    accepted: int = 0
    duplicate: int = 0
    late: int = 0
    rejected: int = 0
    bytes_up: int = 0
    examples: int = 0
    staleness: int = 0
    stalest: int = 0
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

    def add(self, facts: Facts, staleness: int = 0) -> None:
        """Add the facts of an accepted update; metrics weigh by ``held_out`` where reported, else by examples.

        `staleness` is how many model versions came out since the one that the update started from. What a device claims
        is bounded here: a wild claim may spoil a mean, it must not spoil the report.
        """
        self.staleness, self.stalest = self.staleness + staleness, max(self.stalest, staleness)
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
    """Entries of the open round, by device and the round that the update answers, and verdicts of those before it.

    In a synchronous federation the two rounds are the same. In an asynchronous one an update of an earlier round is
    counted in the open one, and its verdict is remembered under its own.
    """

    def __init__(self, settled: Mapping[int, Mapping[str, tuple[bytes, Verdict, str]]] | None = None) -> None:
        """Start with the verdicts that a checkpoint remembers, by round and device."""
        self.entries: dict[Key, Entry] = {}
        self.tally = Tally()
        self.accepted = 0
        self.absorbing = 0
        self._ready: deque[Key] = deque()
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
        self._ready.clear()

    def report(self) -> Tally:
        """Return the tally since the last report and start a new one."""
        tally, self.tally = self.tally, Tally()
        return tally

    def unsettled(self) -> list[tuple[Key, bytes]]:
        """Return key and update id of what has no verdict yet, that which is whole first."""
        keys = [key for key, entry in self.entries.items() if entry.standing is not Standing.SETTLED]
        keys.sort(key=lambda key: self.entries[key].standing is not Standing.READY)
        return [(key, self.entries[key].update) for key in keys]

    def close(self, round_: int, remembered: int = REMEMBERED_ROUNDS) -> None:
        """Put the verdicts among the remembered ones, those of the last `remembered` rounds.

        What has none yet is forgotten: it may be offered again.
        """
        self._closed.setdefault(round_, {})
        for device, answered, entry in self._settled():
            self._closed.setdefault(answered, {})[device] = entry
        self.entries = {}
        for stale in sorted(self._closed)[:-remembered]:
            del self._closed[stale]

    def closed(self, round_: int) -> bool:
        """Say whether the round is one of the closed ones that are still known."""
        return round_ in self._closed

    def find(self, device: str, round_: int) -> Entry | None:
        """Return what is known of the device's update for this round."""
        return self.entries.get((device, round_)) or self.remembered(round_, device)

    def remembered(self, round_: int, device: str) -> Entry | None:
        """Return the entry of an update that was settled before the open round, if it is still known."""
        return self._closed.get(round_, {}).get(device)

    def ready(self, device: str, round_: int, now: float = 0.0) -> None:
        """Note that the device's update is whole, and has to wait for its turn."""
        self.entries[device, round_].standing = Standing.READY
        self.entries[device, round_].whole = now
        self._ready.append((device, round_))

    def next_ready(self) -> Key | None:
        """Return whose turn it is, once; None where nobody waits."""
        return self._ready.popleft() if self._ready else None

    def absorbing_begins(self, device: str, round_: int) -> None:
        """Note that the device's update is with the rule."""
        self.entries[device, round_].standing = Standing.ABSORBING
        self.absorbing += 1

    def settle(self, device: str, round_: int, verdict: Verdict, reason: str = "") -> None:
        """Give the device's update its verdict and count it."""
        entry = self.entries[device, round_]
        self.absorbing -= entry.standing is Standing.ABSORBING
        self.accepted += verdict is Verdict.ACCEPTED
        entry.standing, entry.verdict, entry.reason = Standing.SETTLED, verdict, reason
        self.tally.count(verdict, reason)

    def settled(self, device: str, round_: int) -> bool:
        """Say whether the device's update for this round has its verdict."""
        entry = self.find(device, round_)
        return entry is not None and entry.standing is Standing.SETTLED

    def taken(self) -> list[tuple[str, bytes]]:
        """Return device and update id of what the open round has accepted, whichever round it answers."""
        return [
            (device, entry.update)
            for device, _, entry in self._settled()
            if entry.verdict is Verdict.ACCEPTED
        ]

    def arrivals(self) -> list[float]:
        """Return when each of the updates was whole that the open round has accepted."""
        settled = (entry for _, _, entry in self._settled())
        return [entry.whole for entry in settled if entry.verdict is Verdict.ACCEPTED]

    def snapshot(self, closing: int | None = None) -> dict[int, dict[str, tuple[bytes, Verdict, str]]]:
        """Return the remembered verdicts as plain data, for a checkpoint.

        `closing` is the number of the round that is about to be closed: the verdicts given in it are then among them.
        """
        rounds = {
            round_: {device: _plain(entry) for device, entry in row.items()}
            for round_, row in self._closed.items()
        }
        if closing is not None:
            rounds.setdefault(closing, {})
            for device, answered, entry in self._settled():
                rounds.setdefault(answered, {})[device] = _plain(entry)
        return rounds

    def _settled(self) -> Iterator[tuple[str, int, Entry]]:
        for (device, round_), entry in self.entries.items():
            if entry.standing is Standing.SETTLED:
                yield device, round_, entry


def _plain(entry: Entry) -> tuple[bytes, Verdict, str]:
    return entry.update, entry.verdict, entry.reason


def _key(reason: str, known: Mapping[str, int]) -> str:
    """Return the account's name for a refusal: its words without figures, or ``other`` once there are many.

    A report has room for `MOST_NAMES`, ``other`` among them.
    """
    kind = "".join("#" if letter.isdigit() else letter for letter in reason)[:120]
    return kind if kind in known or len(known) < MOST_NAMES - 1 else "other"
