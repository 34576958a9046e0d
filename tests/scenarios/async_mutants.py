"""Faults that only an asynchronous federation can have, one in each class, planted to see that a world finds it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fedmq.protocol import coordination as co
from fedmq.protocol.coordinator import Coordinator
from fedmq.protocol.ledger import Ledger
from fedmq.protocol.messages import Verdict
from fedmq.protocol.participant import Participant
from fedmq.protocol.policy import Policy
from fedmq.testing.world import Parts
from fedmq.testing.world_aggregator import AggregatorShell
from fedmq.testing.world_faults import Faults, Setting

if TYPE_CHECKING:
    from fedmq.protocol.messages import Task
    from fedmq.testing.world_aggregator import SimulatedJournal
    from fedmq.testing.world_broker import SimulatedUpdate


class LooksOnlyIntoTheOpenBuffer(Coordinator):
    """Has forgotten what earlier buffers counted."""

    def _offered_now(self, event: co.Offered) -> None:
        if event.round < self.progress.round:
            self.ledger._closed.pop(event.round, None)
        super()._offered_now(event)


class RemembersUnderTheBuffersNumber(Ledger):
    """Files each verdict under the round that counted it, not under the one that was answered."""

    def close(self, round_: int, remembered: int = 4) -> None:
        self.entries = {(device, round_): entry for (device, _), entry in self.entries.items()}
        super().close(round_, remembered)


class FilesUnderTheBuffer(Coordinator):
    """Keeps its accounts in such a ledger."""

    def __init__(self, *parts: object, ledger: Ledger, **others: object) -> None:
        super().__init__(*parts, ledger=RemembersUnderTheBuffersNumber(ledger.snapshot()), **others)  # type: ignore[arg-type]


class RemembersTooLittle(Coordinator):
    """Remembers the verdicts of fewer rounds than it takes updates of."""

    def _close_round(self, outcome: str, now: float, stepped: co.Stepped | None = None) -> object:  # type: ignore[override]
        report = super()._close_round(outcome, now, stepped)
        for known in sorted(self.ledger._closed)[:-1]:
            del self.ledger._closed[known]
        return report


class TakesAnyAge(Coordinator):
    """Bounds nothing: every round since the start is recent."""

    def _open(self, task: Task, now: float, *, begin: bool) -> None:
        super()._open(replace(task, oldest=1), now, begin=begin)


class Overfills(Coordinator):
    """Gives the rule whatever is whole."""

    def _has_room(self) -> bool:
        return True


class NeverFull(Coordinator):
    """Waits for everybody, as synchronous rounds do."""

    def _is_full(self) -> bool:
        return False


class LeavesTheNextInLine(Coordinator):
    """Does not fill the room that an update leaves which was no good."""

    def _spoiled(self, event: co.Spoiled, now: float) -> None:
        self._settle(event.device, event.round, event.update, Verdict.REJECTED, event.reason)
        self._consider(now)


class LateForTheBuffer(Coordinator):
    """Calls late what came too late for one buffer, although the next would take it."""

    def _ask_again(self, device: str, round_: int, update: bytes, pause: float, reason: str) -> None:
        self._reply(device, round_, update, Verdict.LATE, reason)


class ForgetsWhatIsRecent(AggregatorShell):
    """Does not write down which rounds are recent."""

    def _save(self) -> None:
        super()._save()
        self.disk.progress = replace(self.disk.progress, recent=())

    def __init__(self, *parts: object) -> None:
        super().__init__(*parts)  # type: ignore[arg-type]
        self.machine.progress = replace(self.machine.progress, recent=())


class OneOfADevice(AggregatorShell):
    """Has place for one update of each device in the fold, whatever round it answers."""

    def _absorb_now(self, journal: SimulatedJournal, update: SimulatedUpdate) -> None:
        for key in [key for key in self.fold or {} if key[0] == update.device]:
            del self.fold[key]  # type: ignore[union-attr]
        super()._absorb_now(journal, update)


class ReplaysInAnyOrder(AggregatorShell):
    """Completes the journal's updates in another order than before the restart."""

    def _start(self) -> None:
        if self.disk.journal is not None:
            self.disk.journal.whole_in_turn.reverse()
        super()._start()


class ChecksNoBase(Coordinator):
    """Believes that an older update started from the model that is published now."""

    def _mismatch(self, event: co.Completed) -> str:
        return "" if event.round < self.progress.round else super()._mismatch(event)


class TrainsFromTheNextModel(Participant):
    """Answers the task before with the model of the newest."""

    def _aimed_at(self, task: Task) -> Task:
        aim = super()._aimed_at(task)
        return replace(aim, model=self.version) if aim is not task and self.version else aim


MUTANTS = {
    "looks_only_into_the_open_buffer": Parts(coordinator=LooksOnlyIntoTheOpenBuffer),
    "files_under_the_buffer": Parts(coordinator=FilesUnderTheBuffer),
    "remembers_too_little": Parts(coordinator=RemembersTooLittle),
    "takes_any_age": Parts(coordinator=TakesAnyAge),
    "overfills": Parts(coordinator=Overfills),
    "never_full": Parts(coordinator=NeverFull),
    "leaves_the_next_in_line": Parts(coordinator=LeavesTheNextInLine),
    "late_for_the_buffer": Parts(coordinator=LateForTheBuffer),
    "forgets_what_is_recent": Parts(aggregator=ForgetsWhatIsRecent),
    "one_of_a_device": Parts(aggregator=OneOfADevice),
    "replays_in_any_order": Parts(aggregator=ReplaysInAnyOrder),
    "trains_from_the_next_model": Parts(participant=TrainsFromTheNextModel, coordinator=ChecksNoBase),
}

CROWDED = Setting(
    devices=6,
    policy=Policy(
        min_devices=2, quorum=1, soft_deadline_s=20.0, hard_deadline_s=30.0, buffer=1, max_staleness=8
    ),
    storm_s=300.0,
    faults=Faults(restart_every_s=10.0, stray=0.1, spoil=0.2, duplicate=0.3),
)
"""Many updates for a small buffer, whose aggregator hardly ever lives long."""

SETTINGS = {"replays_in_any_order": CROWDED}
