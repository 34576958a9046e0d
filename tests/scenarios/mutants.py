"""Machines and shells with one fault each, planted to see that a simulated world finds it.

What a method of the real thing does is repeated here without the line that matters.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fedmq.protocol import coordination as co
from fedmq.protocol import participation as pa
from fedmq.protocol.coordinator import Coordinator
from fedmq.protocol.coordinator import Phase as Round
from fedmq.protocol.ledger import Entry
from fedmq.protocol.messages import Verdict
from fedmq.protocol.participant import Participant
from fedmq.protocol.participant import Phase as Work
from fedmq.protocol.policy import Policy
from fedmq.testing.world import Parts
from fedmq.testing.world_aggregator import AggregatorShell
from fedmq.testing.world_faults import Faults, Setting

if TYPE_CHECKING:
    from collections.abc import Generator

    from fedmq.protocol.messages import Task

# --- safety -----------------------------------------------------------------------------------------------------------


class ReceiptBeforeCommit(Coordinator):
    """Thanks for an update before it lies in the journal."""

    def _welcome(self, event: co.Offered, entry: Entry | None) -> None:
        super()._welcome(event, entry)
        self._reply(event.device, event.round, event.update, Verdict.ACCEPTED, "")


class NoDedup(Coordinator):
    """Takes every update for a new one."""

    def _offered_now(self, event: co.Offered) -> None:
        self._welcome(event, None)


class NoDedupInJournal(AggregatorShell):
    """Gives every copy of an update to the rule, if the coordinator lets it."""

    def _commit(self) -> None:
        group = list(self._waiting)
        super()._commit()
        for _, piece in group:
            self._check_whole(piece.update)


class QuorumOfAnything(Coordinator):
    """Counts what did not decode towards the quorum."""

    def _drained(self, now: float) -> None:
        if self.ledger.accepted + self.ledger.tally.rejected >= self.policy.quorum:
            self.phase = Round.STEPPING
            self._out.append(co.Finish(self._current().round, self.progress.version + 1))
        else:
            super()._drained(now)


class AnyWillBuries(Coordinator):
    """Believes the will of a link that is long over."""

    def _died(self, event: co.Died, now: float) -> None:
        self._gone(event.device, now)


class LateIsAbsorbed(Coordinator):
    """Gives an update to the rule although the round is closed."""

    def _completed(self, event: co.Completed, now: float) -> None:
        phase = self.phase
        if phase in (Round.DRAINING, Round.STEPPING):
            self.phase = Round.OPEN
        super()._completed(event, now)
        self.phase = phase


class LateIsToldTooEarly(Coordinator):
    """Tells a device LATE while a restart may still count its update."""

    def _offered_in_hand(self, event: co.Offered) -> None:
        self._turn_away(event, Verdict.LATE, "")


class DrainingWaitsForNobody(Coordinator):
    """Moves the model while updates are still with the rule."""

    def _consider(self, now: float) -> None:
        pending, self.ledger.absorbing = self.ledger.absorbing, 0
        super()._consider(now)
        self.ledger.absorbing = pending


class CountsAClosedRoundAgain(Coordinator):
    """Takes up the journal of a round whose model was made just before the restart."""

    def _still_open(self, task: Task | None) -> Task | None:
        return task


class NumberNotSaved(AggregatorShell):
    """Announces a round whose number is not on disk."""

    def _announce(self, task: Task, *, begin: bool) -> Generator[float, None, None]:
        saved = self.disk.progress
        for pause in super()._announce(task, begin=begin):
            self.disk.progress = saved
            yield pause


class JournalNotReplayed(AggregatorShell):
    """Begins an interrupted round with an empty fold."""

    def _start(self) -> None:
        if self.disk.journal is not None:
            self.disk.journal.kept.clear()
        super()._start()


class TrainsFromAnyModel(Participant):
    """Trains from what it happens to hold."""

    def _prepare(self, task: Task, now: float) -> None:
        if self.version:
            task = replace(task, model=self.version)
        super()._prepare(task, now)


class TrustsThePuback(Participant):
    """Forgets an update as soon as the broker has it."""

    def _send_what_is_due(self, now: float) -> None:
        super()._send_what_is_due(now)
        for effect in list(self._out):
            if isinstance(effect, pa.Send):
                del self.outbox[effect.update]
                self._out.append(pa.Forget(effect.round, effect.update, None))


# --- liveness ---------------------------------------------------------------------------------------------------------


class NobodyWakes(Coordinator):
    """Opens a round without looking at the clock again."""

    def _open(self, task: Task, now: float, *, begin: bool) -> None:
        super()._open(task, now, begin=begin)
        self._out = [effect for effect in self._out if not isinstance(effect, co.WakeAt)]


class SleepsAfterTheSoftDeadline(Coordinator):
    """Sets no alarm for the hard deadline."""

    def _ticked(self, now: float) -> None:
        self._consider(now)


class WaitsForTheDead(Coordinator):
    """Does not hear that a device it waits for is gone."""

    def _gone(self, device: str, now: float) -> None:
        self.present.pop(device, None)


class NoGrace(Coordinator):
    """Leaves behind whose link breaks in the middle of an update."""

    def _may_return(self, device: str) -> bool:
        return False


class GraceForAll(Coordinator):
    """Waits also for the dead of whom nothing has come in."""

    def _has_begun(self, device: str) -> bool:
        return True


class GraceWithoutEnd(Coordinator):
    """Waits until the soft deadline for whoever died in the middle of an update."""

    def _end_graces(self, now: float) -> None:
        if self._first_end() <= now:
            self._graces.clear()


class GraceWithoutAlarm(Coordinator):
    """Gives a grace, and lets whatever happens next show that it is over."""

    def _give_grace(self, device: str, now: float) -> None:
        before = len(self._out)
        super()._give_grace(device, now)
        self._out[before:] = [effect for effect in self._out[before:] if not isinstance(effect, co.WakeAt)]


class EveryWillANewGrace(Coordinator):
    """Begins the grace anew with each copy of a will."""

    def _give_grace(self, device: str, now: float) -> None:
        self._graces.pop(device, None)
        super()._give_grace(device, now)


class CountsTheDead(Coordinator):
    """Takes an update for a sign of life although its device died after it had sent it."""

    def _died(self, event: co.Died, now: float) -> None:
        super()._died(event, now)
        self._dead.clear()


class UpdatesAreNoBirths(Coordinator):
    """Counts the update of a device whose birth was lost, and not the device."""

    def _is_news(self, device: str) -> bool:
        return self.phase in (Round.NEW, Round.WAITING) and super()._is_news(device)


class DeafWhileWaiting(Coordinator):
    """Waits for births, whoever else may be heard."""

    def _heard(self, event: co.Offered, now: float) -> None:
        pass


class NeverCalls(AggregatorShell):
    """Waits for births that the broker dropped, as long as its own link holds."""

    def _refresh(self, pause: float) -> None:
        pass


class NeverOpensAgain(Coordinator):
    """Does not look at the policy when a device comes back."""

    def _born(self, event: co.Born, now: float) -> None:
        waiting = self.phase is Round.WAITING and self.progress.round > 0
        if waiting:
            self.present[event.device] = event.session
        else:
            super()._born(event, now)


class NoResendAfterReconnect(Participant):
    """Lets the outbox wait for its old alarm when the link is back."""

    def _connect(self, now: float) -> None:
        self.connected = True
        self._go_on(now)


class SendsOnce(Participant):
    """Waits for a receipt for ever."""

    def _sent(self, update: bytes, now: float) -> None:
        self._sleep(now)


class FetchNotRetried(Participant):
    """Gives up when the model did not come."""

    def _fetch_failed(self, event: pa.FetchFailed, now: float) -> None:
        super()._fetch_failed(event, now)
        self._out = [effect for effect in self._out if not isinstance(effect, pa.Wake)]


class StillFetching(Participant):
    """Believes that a fetch goes on although its link broke."""

    def _disconnect(self) -> None:
        fetching = self._fetching
        super()._disconnect()
        self._fetching = fetching


class DropsTheNewRunsManifest(Participant):
    """Forgets a manifest that came before its task."""

    def _enter(self, run: bytes) -> None:
        if run != self.run and self.manifest is not None and self.manifest.run == run:
            self.manifest = None
        super()._enter(run)


class FetchEndsRetirement(Participant):
    """Believes that a fetch which ends was what it was waiting for."""

    def _end_fetching(self) -> None:
        if self.phase is not Work.TRAINING:
            self.phase = Work.IDLE


class ReceiptsMeanNothing(Participant):
    """Keeps an update whatever the receipt says."""

    def _receipted(self, event: pa.Receipted, now: float) -> None:
        self._sleep(now)


SAFETY = {
    "receipt_before_commit": Parts(coordinator=ReceiptBeforeCommit),
    "no_dedup": Parts(coordinator=NoDedup, aggregator=NoDedupInJournal),
    "quorum_of_anything": Parts(coordinator=QuorumOfAnything),
    "late_is_absorbed": Parts(coordinator=LateIsAbsorbed),
    "late_is_told_too_early": Parts(coordinator=LateIsToldTooEarly),
    "draining_waits_for_nobody": Parts(coordinator=DrainingWaitsForNobody),
    "counts_a_closed_round_again": Parts(coordinator=CountsAClosedRoundAgain),
    "number_not_saved": Parts(aggregator=NumberNotSaved),
    "journal_not_replayed": Parts(aggregator=JournalNotReplayed),
    "trains_from_any_model": Parts(participant=TrainsFromAnyModel),
    "trusts_the_puback": Parts(participant=TrustsThePuback),
}

LIVENESS = {
    "any_will_buries": Parts(coordinator=AnyWillBuries),
    "nobody_wakes": Parts(coordinator=NobodyWakes),
    "sleeps_after_the_soft_deadline": Parts(coordinator=SleepsAfterTheSoftDeadline),
    "waits_for_the_dead": Parts(coordinator=WaitsForTheDead),
    "no_grace": Parts(coordinator=NoGrace),
    "grace_for_all": Parts(coordinator=GraceForAll),
    "grace_without_end": Parts(coordinator=GraceWithoutEnd),
    "grace_without_alarm": Parts(coordinator=GraceWithoutAlarm),
    "every_will_a_new_grace": Parts(coordinator=EveryWillANewGrace),
    "counts_the_dead": Parts(coordinator=CountsTheDead),
    "updates_are_no_births": Parts(coordinator=UpdatesAreNoBirths),
    "deaf_while_waiting": Parts(coordinator=DeafWhileWaiting),
    "never_calls": Parts(aggregator=NeverCalls),
    "never_opens_again": Parts(coordinator=NeverOpensAgain),
    "no_resend_after_reconnect": Parts(participant=NoResendAfterReconnect),
    "sends_once": Parts(participant=SendsOnce),
    "fetch_not_retried": Parts(participant=FetchNotRetried),
    "still_fetching": Parts(participant=StillFetching),
    "drops_the_new_runs_manifest": Parts(participant=DropsTheNewRunsManifest),
    "fetch_ends_retirement": Parts(participant=FetchEndsRetirement),
    "receipts_mean_nothing": Parts(participant=ReceiptsMeanNothing),
}

RESTLESS = Setting(
    devices=5,
    policy=Policy(over_selection=1.5, min_devices=2, quorum=1, soft_deadline_s=20.0, hard_deadline_s=30.0),
    chunks=2,
    storm_s=300.0,
    faults=Faults(restart_every_s=8.0, disk_full=0.3, stray=0.1),
)
"""A world in which the aggregator hardly ever lives to the end of a round; for faults that only a restart shows."""

HAPLESS = Setting(
    devices=3,
    policy=Policy(min_devices=3, quorum=3, soft_deadline_s=20.0, hard_deadline_s=20.0),
    storm_s=400.0,
    faults=Faults(restart_every_s=15.0, cut_every_s=10.0, step_fails=0.3, train_fails=0.2),
)
"""A world in which most rounds come to nothing."""

TORN = Setting(
    devices=4,
    policy=Policy(min_devices=2, quorum=1, soft_deadline_s=60.0, hard_deadline_s=60.0, grace_s=8.0),
    chunks=8,
    storm_s=200.0,
    faults=Faults(cut_every_s=3.0, offline_every_s=20.0, drop=0.2),
)
"""A world in which most links break in the middle of an update."""

UNHEARD = Setting(
    devices=5,
    policy=Policy(min_devices=4, quorum=2, soft_deadline_s=20.0, hard_deadline_s=30.0),
    storm_s=120.0,
    faults=Faults(status_lost=0.6, drop=0.2),
)
"""A world whose broker has little room for births, and links that hold, so that none comes by itself again."""

SETTINGS = {
    "never_calls": UNHEARD,
    "no_grace": TORN,
    "grace_without_end": TORN,
    "grace_without_alarm": TORN,
    "every_will_a_new_grace": TORN,
    "late_is_told_too_early": RESTLESS,
    "number_not_saved": HAPLESS,
    "counts_a_closed_round_again": RESTLESS,
}
