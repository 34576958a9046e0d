"""Hypothesis plays the shells: any order of things that can happen, and what must hold after each."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fedmq.protocol import coordination as co
from fedmq.protocol import participation as pa
from fedmq.protocol.attendance import UNBORN
from fedmq.protocol.cohort import in_cohort
from fedmq.protocol.coordinator import CENSUS_S, Coordinator, Phase
from fedmq.protocol.ledger import Ledger, Standing
from fedmq.protocol.messages import Facts, Receipt, TaskKind, Verdict
from fedmq.protocol.participant import LONGEST_PAUSE_S, Participant
from fedmq.protocol.participant import Phase as Work
from fedmq.protocol.policy import Policy, StopWhen
from tests.unit.protocol.stage import LAYOUT, RUN, TERMS, born, manifest, task

NAMES = st.sampled_from(["ada", "bob", "eve", "kim"])
SHOTS = settings(max_examples=60, stateful_step_count=60, deadline=None)


class CoordinatorWorld(RuleBasedStateMachine):
    """A shell whose disk, rule and step take their time."""

    @initialize(
        fraction=st.sampled_from([0.5, 1.0]),
        over=st.sampled_from([1.0, 1.5]),
        quorum=st.integers(1, 2),
        more=st.integers(0, 1),
        grace=st.sampled_from([0.0, 3.0, 30.0]),
    )
    def begin(self, fraction: float, over: float, quorum: int, more: int, grace: float) -> None:
        self.policy = Policy(fraction, over, quorum + more, quorum, 20.0, 30.0, grace)
        self.now, self.letters = 0.0, 0
        self.census = 0.0
        self.there: dict[str, int] = {}
        self.died: dict[str, float] = {}
        self.absorbing: list[co.Absorb] = []
        self.waiting: list[co.Completed] = []
        self.journal: dict[str, bytes] = {}
        self.finish: co.Finish | None = None
        self.alarm: float | None = None
        self.nature: dict[bytes, bool] = {}
        self.told: dict[bytes, Verdict] = {}
        self.accepted: set[bytes] = set()
        self.rounds: list[int] = []
        self.machine = Coordinator(TERMS, self.policy, StopWhen())
        self.tell(co.Started())

    def tell(self, event: co.CoordinatorEvent) -> list[co.CoordinatorEffect]:
        effects = self.machine.handle(event, self.now)
        for effect in effects:
            self.carry_out(effect)
        return effects

    def carry_out(self, effect: co.CoordinatorEffect) -> None:
        match effect:
            case co.Absorb():
                assert self.machine.phase is Phase.OPEN
                self.absorbing.append(effect)
            case co.Announce(task_, begin):
                if begin:
                    self.census = 0.0
                    assert not self.rounds or task_.round > self.rounds[-1]
                    self.journal, self.accepted = {}, set()
                    self.rounds.append(task_.round)
            case co.Finish():
                assert len(self.accepted) >= self.policy.quorum
                assert not self.absorbing
                self.finish = effect
            case co.Discard():
                self.absorbing, self.journal, self.accepted = [], {}, set()
            case co.Reply(device, receipt):
                self.note_reply(device, receipt)
            case co.WakeAt(time):
                self.alarm = time
            case co.Tell(report):
                assert report.received == report.accepted + report.duplicate + report.late + report.rejected

    def note_reply(self, device: str, receipt: Receipt) -> None:
        assert receipt.update.startswith(device.encode())
        if receipt.update in self.told:
            first = self.told[receipt.update]
            assert receipt.verdict is first
        self.told[receipt.update] = receipt.verdict
        if receipt.verdict is Verdict.ACCEPTED:
            assert self.nature.get(receipt.update)  # the rule has taken it

    # --- what can happen ----------------------------------------------------------------------------------------------

    @rule(device=NAMES, session=st.integers(1, 3))
    def birth(self, device: str, session: int) -> None:
        self.there[device] = session
        self.died.pop(device, None)
        self.tell(born(device, session))

    @rule(device=NAMES, session=st.integers(1, 3))
    def death(self, device: str, session: int) -> None:
        if session >= self.there.get(device, UNBORN):
            self.there.pop(device, None)
            self.died.setdefault(device, self.now)
        self.tell(co.Died(device, session))

    @rule(device=NAMES)
    def update(self, device: str) -> None:
        self.letters += 1
        self.send(device, device.encode() + b"/%d" % self.letters)

    @precondition(lambda self: self.journal)
    @rule(data=st.data())
    def again(self, data: st.DataObject) -> None:
        device = data.draw(st.sampled_from(sorted(self.journal)))
        self.send(device, self.journal[device])

    def send(self, device: str, update: bytes) -> None:
        number = self.machine.progress.round
        if self.machine.phase in {Phase.NEW, Phase.WAITING}:
            self.there.setdefault(device, UNBORN)
        effects = self.tell(co.Offered(device, RUN, number, update, 10))
        if any(isinstance(effect, co.Keep) for effect in effects):
            self.died.pop(device, None)
            self.waiting.append(co.Completed(device, number, update, self.machine.progress.version, LAYOUT))

    @precondition(lambda self: self.waiting)
    @rule()
    def commit(self) -> None:
        group, self.waiting = self.waiting, []
        for whole in group:
            if whole.round == self.machine.progress.round:
                self.journal[whole.device] = whole.update
            self.tell(whole)

    @precondition(lambda self: self.absorbing)
    @rule(data=st.data(), good=st.booleans())
    def absorb(self, data: st.DataObject, good: bool) -> None:  # noqa: FBT001 - drawn
        job = self.absorbing.pop(data.draw(st.integers(0, len(self.absorbing) - 1)))
        if self.nature.setdefault(job.update, good):  # an update decodes, or not, whenever it is tried
            assert not any(update.startswith(job.device.encode()) for update in self.accepted)
            self.accepted.add(job.update)
            if job.device not in self.died:
                self.there.setdefault(job.device, UNBORN)
            self.tell(co.Absorbed(job.device, job.round, job.update, Facts(1)))
        else:
            self.tell(co.Spoiled(job.device, job.round, job.update, "why"))

    @precondition(lambda self: self.finish)
    @rule(good=st.booleans())
    def step(self, good: bool) -> None:  # noqa: FBT001 - drawn
        assert self.finish is not None
        done, self.finish = self.finish, None
        self.tell(co.Stepped(done.round, done.version) if good else co.StepFailed(done.round, "why"))

    @rule(seconds=st.sampled_from([1.0, 5.0, 30.0]))
    def time_passes(self, seconds: float) -> None:
        end = self.now + seconds
        while self.alarm is not None and self.alarm <= end:
            self.now, self.alarm = self.alarm, None
            self.tell(co.Ticked())
        self.now = end

    @rule()
    def restart(self) -> None:
        """Crash after the commit of whatever was going on: the journal is there, the fold is not."""
        open_task = (
            self.machine.task if self.machine.phase not in {Phase.NEW, Phase.WAITING, Phase.STOPPED} else None
        )
        ledger = Ledger(self.machine.ledger.snapshot())
        self.machine = Coordinator(
            TERMS, self.policy, StopWhen(), progress=self.machine.progress, ledger=ledger
        )
        self.absorbing, self.waiting, self.finish, self.alarm, self.accepted = [], [], None, None, set()
        self.there, self.died, self.census = {}, {}, self.now + CENSUS_S if open_task else 0.0
        self.tell(co.Started(open_task))
        for device, update in list(self.journal.items()) if open_task else []:
            self.send(device, update)
        self.commit()

    # --- what must hold -----------------------------------------------------------------------------------------------

    @invariant()
    def account_and_fold_agree(self) -> None:
        if self.machine.phase in {Phase.OPEN, Phase.DRAINING, Phase.STEPPING}:
            assert self.machine.ledger.accepted == len(self.accepted)
            assert self.machine.ledger.absorbing == len(self.absorbing)

    @invariant()
    def nobody_waits_in_vain(self) -> None:
        machine = self.machine
        self.there = {
            name: session
            for name, session in self.there.items()
            if session != UNBORN or name in machine.present  # it did not answer
        }
        match machine.phase:
            case Phase.OPEN:
                assert self.alarm is not None
                assert self.now < machine.opened + self.policy.hard_deadline_s
                if len(self.accepted) >= self.policy.quorum and self.now >= self.census:
                    assert self.somebody_is_waited_for()
            case Phase.DRAINING:
                assert self.absorbing
            case Phase.STEPPING:
                assert self.finish is not None
            case Phase.WAITING:
                assert len(self.there) < self.policy.min_devices

    def somebody_is_waited_for(self) -> bool:
        machine, current = self.machine, self.machine.task
        assert current is not None
        there = [name for name in self.there if in_cohort(name, current.salt, current.fraction)]
        settled = [machine.ledger.settled(name, current.round) for name in there]
        begun = [
            entry.standing is not Standing.ARRIVING or self.may_return(name)
            for (name, _), entry in machine.ledger.entries.items()
            if entry.standing is not Standing.SETTLED
        ]
        return any(begun) or not all(settled)

    def may_return(self, name: str) -> bool:
        return name not in self.died or self.now < self.died[name] + self.policy.grace_s


class ParticipantWorld(RuleBasedStateMachine):
    """A shell whose trainer, link and broker do as they like."""

    @initialize(held=st.sampled_from([None, (RUN, 1)]))
    def begin(self, held: tuple[bytes, int] | None) -> None:
        self.now, self.number, self.version, self.letters = 0.0, 1, 1, 0
        self.link = False
        self.alarm: float | None = None
        self.replica, self.fetch, self.work = held, None, None
        self.disk: dict[bytes, tuple[bytes, int]] = {}
        self.trained: list[int] = []
        self.tasks = {1: task()}
        self.sent: set[bytes] = set()
        self.sending: dict[bytes, pa.Send] = {}
        self.spread_s = 0.0
        self.machine = Participant("ada", LAYOUT, held=held)

    fetch: pa.Fetch | None
    work: pa.Train | None

    def tell(self, event: pa.ParticipantEvent) -> None:
        for effect in self.machine.handle(event, self.now):
            self.carry_out(effect)

    def carry_out(self, effect: pa.ParticipantEffect) -> None:
        match effect:
            case pa.Fetch():
                assert self.link
                self.fetch = effect
            case pa.Train(task_):
                assert self.work is None
                assert self.tasks[task_.round] == task_
                assert self.replica == (task_.run, task_.model)
                assert task_.round not in self.trained
                self.trained.append(task_.round)
                self.work = effect
            case pa.Send(round_, update):
                assert self.link
                assert self.disk[update] == (RUN, round_)
                self.sent.add(update)
                self.sending[update] = effect
            case pa.Forget(round_, update, verdict):
                assert verdict is not None or round_ < self.number
                del self.disk[update]
                self.sending.pop(update, None)
            case pa.Wake(time):
                self.alarm = time

    # --- what can happen ----------------------------------------------------------------------------------------------

    @rule(up=st.booleans())
    def turn_link(self, up: bool) -> None:  # noqa: FBT001 - drawn
        self.link, self.fetch = up, None if not up else self.fetch
        self.sent, self.sending = set(), {}
        self.tell(pa.Connected() if up else pa.Disconnected())
        assert not up or self.sent == self.disk.keys()

    @rule(spread_s=st.sampled_from([0.0, 17.0, 3600.0]))
    def beacon_comes(self, spread_s: float) -> None:
        self.spread_s = max(self.spread_s, spread_s)
        self.tell(pa.Paced(spread_s))

    @precondition(lambda self: self.link)
    @rule(moved=st.booleans(), end=st.sampled_from([False, False, False, True]))
    def round_opens(self, moved: bool, end: bool) -> None:  # noqa: FBT001 - drawn
        self.number += 1
        if moved:
            self.version += 1
            self.tell(pa.Published(manifest(self.version, key=max(1, self.version - 2))))
        kind = TaskKind.STOP if end else TaskKind.TRAIN
        self.tasks[self.number] = task(self.number, self.version, kind=kind)
        self.tell(pa.Tasked(self.tasks[self.number]))

    @precondition(lambda self: self.link)
    @rule(back=st.integers(0, 2))
    def broker_repeats_itself(self, back: int) -> None:
        version, number = max(1, self.version - back), max(1, self.number - back)
        self.tell(pa.Published(manifest(version)))
        if back:
            self.tell(pa.Tasked(self.tasks[number]))

    @precondition(lambda self: self.fetch)
    @rule(good=st.booleans())
    def fetch_ends(self, good: bool) -> None:  # noqa: FBT001 - drawn
        assert self.fetch is not None
        done, self.fetch = self.fetch, None
        if not good:
            self.tell(pa.FetchFailed(done.version, "why"))
            return
        at = 0 if done.fresh or self.replica is None else self.replica[1]
        for step in done.steps:
            assert step.key or step.version == at + 1
            at = step.version
        self.replica = (RUN, at)
        self.tell(pa.Fetched(done.version))

    @precondition(lambda self: self.work)
    @rule(good=st.booleans())
    def training_ends(self, good: bool) -> None:  # noqa: FBT001 - drawn
        assert self.work is not None
        done, self.work = self.work, None
        if not good:
            self.tell(pa.TrainingFailed(done.task.round, "why"))
            return
        self.letters += 1
        update = b"ada/%d" % self.letters
        self.disk[update] = (done.task.run, done.task.round)
        self.tell(pa.Stored(done.task.round, update))

    @precondition(lambda self: self.disk)
    @rule(verdict=st.sampled_from(list(Verdict)), data=st.data())
    def receipt_comes(self, verdict: Verdict, data: st.DataObject) -> None:
        update = data.draw(st.sampled_from(sorted(self.disk)))
        self.tell(pa.Receipted(Receipt(RUN, self.disk[update][1], update, verdict, "", 3.0)))
        assert (update in self.disk) is (verdict is Verdict.RETRY)

    @precondition(lambda self: self.sending)
    @rule(data=st.data())
    def sending_ends(self, data: st.DataObject) -> None:
        update = data.draw(st.sampled_from(sorted(self.sending)))
        del self.sending[update]
        self.tell(pa.Sent(update))

    @precondition(lambda self: self.sending)
    @rule(data=st.data(), missing=st.sampled_from([(), (2, 1)]), late=st.integers(0, 1))
    def answer_comes(self, data: st.DataObject, missing: tuple[int, ...], late: int) -> None:
        update = data.draw(st.sampled_from(sorted(self.sending)))
        number = self.sending[update].question + late
        receipt = Receipt(RUN, self.disk[update][1], update, Verdict.RETRY, "", 0.0, missing, number)
        before = self.sending[update]
        self.tell(pa.Receipted(receipt))
        assert (self.sending[update] is before) is bool(late)
        assert late or self.sending[update].missing == missing

    @rule(seconds=st.sampled_from([1.0, 10.0, 700.0]))
    def time_passes(self, seconds: float) -> None:
        end = self.now + seconds
        while self.alarm is not None and self.alarm <= end:
            self.now, self.alarm = max(self.now, self.alarm), None
            self.tell(pa.Elapsed())
        self.now = end

    @rule()
    def restart(self) -> None:
        """Crash: outbox and replica are on disk, all else is gone."""
        self.machine = Participant("ada", LAYOUT, held=self.replica, outbox=self.disk)
        self.link, self.fetch, self.work, self.alarm = False, None, None, None
        self.sending = {}
        self.trained = [round_ for _, round_ in self.disk.values()]

    # --- what must hold -----------------------------------------------------------------------------------------------

    @invariant()
    def outbox_and_disk_agree_and_stay_small(self) -> None:
        assert {u: (letter.run, letter.round) for u, letter in self.machine.outbox.items()} == self.disk
        assert len(self.disk) <= 1

    @invariant()
    def phase_and_shell_agree(self) -> None:
        assert (self.machine.phase is Work.TRAINING) == (self.work is not None)
        assert self.machine.phase is not Work.FETCHING or self.fetch is not None

    @invariant()
    def nothing_sleeps_for_ever(self) -> None:
        if self.link and (self.disk.keys() - self.sending.keys() or self.wants_a_model()):
            assert self.alarm is not None
            assert self.alarm <= self.now + LONGEST_PAUSE_S + self.spread_s

    def wants_a_model(self) -> bool:
        machine = self.machine
        current, shown = machine.task, machine.manifest
        if (
            machine.phase is not Work.IDLE
            or current is None
            or shown is None
            or current.round in self.trained
        ):
            return False
        return shown.version == current.model


CoordinatorWorld.TestCase.settings = SHOTS
ParticipantWorld.TestCase.settings = SHOTS
TestCoordinatorWorld = CoordinatorWorld.TestCase
TestParticipantWorld = ParticipantWorld.TestCase
