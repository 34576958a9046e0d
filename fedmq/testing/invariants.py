"""What must hold at every step of a simulated world, however bad the weather.

Safety: an update is counted at most once, in the model of its own round (without synchronous rounds: of one that is not
too far from it), and what devices were told of it is true.
Progress: nobody waits for something that nobody will do. `fedmq.testing.world` adds what must hold in the end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedmq.protocol import participation as pa
from fedmq.protocol.cohort import in_cohort
from fedmq.protocol.coordinator import CENSUS_S, Coordinator
from fedmq.protocol.coordinator import Phase as Round
from fedmq.protocol.ledger import REMEMBERED_ROUNDS, Standing
from fedmq.protocol.messages import TaskKind, Verdict
from fedmq.protocol.participant import LONGEST_PAUSE_S, MOST_WAITING
from fedmq.protocol.participant import Phase as Work
from fedmq.testing.violation import Violation, demand
from fedmq.testing.world_presence import Presence

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fedmq.protocol import coordination as co
    from fedmq.protocol.ledger import Key
    from fedmq.protocol.messages import Receipt, Report, Task
    from fedmq.testing.world import World
    from fedmq.testing.world_aggregator import AggregatorShell
    from fedmq.testing.world_broker import SimulatedUpdate
    from fedmq.testing.world_device import DeviceShell

MOST_STORED = 2
"""Updates in a device's outbox: one, and another for as long as an older run's task is taken for the newest."""
SLACK_S = 1.0


class Invariants:
    """The exact account of one world, kept beside the machines and by other means."""

    def __init__(self, world: World) -> None:
        """Begin with nothing seen."""
        self.world = world
        self.tasks: dict[tuple[bytes, int], Task] = {}
        self.models: dict[tuple[bytes, int], frozenset[bytes]] = {}
        self.reports: list[Report] = []
        self.told = 0
        self._cohorts: dict[tuple[bytes, int], frozenset[str]] = {}
        self._counted: dict[bytes, int] = {}
        self._accepted_in: dict[bytes, tuple[bytes, int]] = {}
        self._accepted_of: dict[tuple[bytes, int], set[bytes]] = {}
        self._refused: dict[bytes, Verdict] = {}
        self._abandoned: set[tuple[bytes, int]] = set()
        self._stepped: dict[tuple[bytes, int], frozenset[bytes]] = {}
        self._newest: dict[bytes, tuple[int, int]] = {}
        self._ended: dict[bytes, int] = {}
        self._versions: dict[bytes, int] = {}
        self._life: AggregatorShell | None = None
        self._presence = Presence(world.setting.policy)
        self._before = Round.NEW
        self.deadline = float("inf")

    # --- rounds and models --------------------------------------------------------------------------------------------

    def announced(self, task: Task, *, begin: bool) -> None:
        """Check a task on its way out: numbers grow, and none is used twice."""
        key = (task.run, task.round)
        demand(not begin or key not in self.tasks, f"round {task.round} was begun twice")
        known = self.tasks.setdefault(key, task)
        demand(known == task, f"round {task.round} was announced with another content")
        newest = self._newest.get(task.run, (0, 0))
        demand((task.round, task.model) >= newest, f"round {task.round} came after round {newest[0]}")
        demand(task.model >= newest[1], f"model {task.model} came after model {newest[1]}")
        self._newest[task.run] = (task.round, task.model)
        self._check_oldest(task)
        names = self.world.devices
        self._cohorts[key] = frozenset(name for name in names if in_cohort(name, task.salt, task.fraction))

    def _check_oldest(self, task: Task) -> None:
        """Check that updates are taken of just the rounds that the policy says; a stop makes an end of all of them."""
        first = max(task.round - self.world.setting.policy.window, self._ended.get(task.run, 0) + 1)
        if task.kind is TaskKind.STOP:
            first = task.round
        taken = min(number for run, number in self.tasks if run == task.run and number >= first)
        # A round that was numbered and never announced, for a crash in between, may be the oldest.
        sound = first <= task.oldest <= taken
        demand(sound, f"round {task.round} takes updates from {task.oldest} on, not from {taken}")

    def ended(self, task: Task) -> None:
        """Note that the disk knows of an end: no update of a round before it will be taken again."""
        self._ended[task.run] = task.round

    def absorbed(self, update: SimulatedUpdate, fold: Mapping[Key, SimulatedUpdate]) -> None:
        """Check an update on its way into the fold."""
        demand(update.key not in fold, f"{update.device} is in the fold of round {update.round} twice")

    def stepped(
        self, run: bytes, effect: co.Finish, fold: Mapping[Key, SimulatedUpdate], accepted: int
    ) -> None:
        """Check a model at the moment in which it becomes durable."""
        task = self.tasks[run, effect.round]
        updates = frozenset(update.id for update in fold.values())
        demand(
            effect.version == self._versions.get(run, 1) + 1, f"version {effect.version} does not follow on"
        )
        demand((run, effect.round) not in self._stepped, f"round {effect.round} moved the model twice")
        demand(
            (run, effect.round) not in self._abandoned,
            f"round {effect.round} was abandoned, and moved the model",
        )
        policy = self.world.setting.policy
        most = policy.buffer or len(fold)
        demand(len(fold) <= most, f"{len(fold)} updates are in a buffer of {most}")
        demand(len(fold) >= policy.quorum, f"model {effect.version} is below the quorum")
        demand(len(fold) == accepted, f"{len(fold)} updates are in the fold, {accepted} in the account")
        for update in fold.values():
            self._check_counted(update, task, effect.version)
        lost = self._accepted_of.get((run, effect.round), set()) - updates
        demand(not lost, f"accepted updates are not in model {effect.version}: {sorted(lost)}")
        self._versions[run] = effect.version
        self.models[run, effect.version] = self._stepped[run, effect.round] = updates

    def _check_counted(self, update: SimulatedUpdate, task: Task, version: int) -> None:
        about = f"update {update.id.decode()} in model {version}"
        demand(update.id not in self._counted, f"{about} was counted before")
        window = self.world.setting.policy.window
        fresh = task.round - window <= update.round <= task.round
        demand(update.run == task.run and fresh, f"{about} is of round {update.round}")
        answered = self.tasks[update.run, update.round]
        demand(update.base == (task.run, answered.model), f"{about} started from {update.base}")
        demand(task.model - answered.model <= window, f"{about} is too stale")
        demand(not update.bad, f"{about} does not decode")
        demand(
            update.device in self._cohorts[update.run, update.round],
            f"{about} is of a device outside the cohort",
        )
        demand(update.id not in self._refused, f"{about} had been told {self._refused.get(update.id)!r}")
        self._counted[update.id] = version

    def reported(self, report: Report) -> None:
        """Check a report against what really happened."""
        key = (report.run, report.round)
        parts = report.accepted + report.duplicate + report.late + report.rejected
        demand(report.received == parts, f"received is {report.received}, its parts are {parts}")
        if report.outcome == "stepped":
            demand(report.accepted == len(self._stepped[key]), f"report of round {report.round}: wrong count")
        else:
            demand(
                key not in self._stepped,
                f"round {report.round} moved the model, and was reported as abandoned",
            )
            self._abandoned.add(key)
        self.reports.append(report)

    # --- receipts -----------------------------------------------------------------------------------------------------

    def receipt(self, shell: AggregatorShell, device: str, receipt: Receipt) -> None:
        """Check what a device is told."""
        machine = shell.machine
        self.told += 1
        update = receipt.update
        demand(update.startswith(device.encode()), f"{device} was sent the receipt of {update.decode()}")
        if receipt.verdict is Verdict.ACCEPTED:
            self._check_accepted(receipt.run, shell.counting, update)
        elif receipt.run != machine.terms.run:
            return  # after its disk was lost, an aggregator knows nothing of earlier runs
        elif receipt.verdict.settled:
            self._check_refused(machine, receipt)
            self._refused[update] = receipt.verdict

    def _check_accepted(self, run: bytes, round_: int, update: bytes) -> None:
        demand(update not in self._refused, f"{update.decode()} was refused, now it is accepted")
        if update in self._accepted_in:
            return
        key = (run, round_)
        known = update in self._counted
        demand(known or key not in self._stepped, f"{update.decode()} was accepted after its model was made")
        self._accepted_in[update] = key
        self._accepted_of.setdefault(key, set()).add(update)

    def _check_refused(self, machine: Coordinator, receipt: Receipt) -> None:
        update, policy = receipt.update, self.world.setting.policy
        forgotten = receipt.round <= machine.progress.round - REMEMBERED_ROUNDS - policy.window
        counted_in = self._accepted_in.get(update)
        late = receipt.verdict is Verdict.LATE
        excused = late and (forgotten or (counted_in is not None and counted_in not in self._stepped))
        counted = update in self._counted or counted_in is not None
        demand(not counted or excused, f"{update.decode()} is counted, now it is told {receipt.verdict.name}")
        if late and policy.asynchronous and machine.phase is not Round.STOPPED:
            first = max(machine.progress.round - policy.window, self._ended.get(receipt.run, 0))
            demand(receipt.round <= first, f"{update.decode()} is late, and not too stale")

    # --- the aggregator's progress ------------------------------------------------------------------------------------

    def coordinator(self, shell: AggregatorShell, event: co.CoordinatorEvent) -> None:
        """Check that the round still moves, after each event."""
        if shell is not self._life:
            self._life, self._presence = shell, Presence(self.world.setting.policy)
            self._before = Round.NEW
        machine, policy = shell.machine, self.world.setting.policy
        before, self._before = self._before, machine.phase
        self._presence.note(shell, event, before, self.world.now)
        self.deadline = float("inf")
        if before is Round.OPEN and machine.phase in (Round.DRAINING, Round.STEPPING):
            self._check_closing(machine)
        if machine.phase is Round.OPEN:
            self._check_open(shell)
        elif machine.phase is Round.WAITING:
            there = len(self._presence.there)
            demand(there < policy.min_devices, f"{there} devices are there, and no round opens")
        elif machine.phase is Round.DRAINING:
            demand(shell.absorbing > 0, "the round drains, and nothing is with the rule")
        elif machine.phase is Round.STEPPING:
            demand(bool(shell.deeds), "the model is to be moved, and nobody does it")
            demand(shell.absorbing == 0, "the model is to be moved, and updates are with the rule")

    def _check_open(self, shell: AggregatorShell) -> None:
        machine, policy, now = shell.machine, self.world.setting.policy, self.world.now
        task = machine.task
        assert task is not None
        opened = machine.opened
        end = opened + policy.hard_deadline_s
        demand(
            shell.wake is not None and shell.wake <= end,
            "the round is open, and nobody will look at the clock",
        )
        if policy.asynchronous:
            self._check_buffer(machine)
        if machine.ledger.accepted < policy.quorum:
            self.deadline = end + SLACK_S
            return
        self.deadline = opened + policy.soft_deadline_s + SLACK_S
        census = shell.started + min(CENSUS_S, policy.soft_deadline_s) if shell.resumed else 0.0
        if now < census:
            return
        until = self._presence.waited_until(machine, self._cohort(task))
        demand(now <= until, "a quorum is in, nobody is left to wait for, and the round is open")
        self.deadline = min(self.deadline, until + SLACK_S)

    def _check_closing(self, machine: Coordinator) -> None:
        """Check that a round which closes only because nobody is left to wait for leaves nobody behind who has time."""
        policy, now = self.world.setting.policy, self.world.now
        early = now < machine.opened + policy.soft_deadline_s
        if early and policy.gracious and policy.over_selection == 1 and not policy.adaptive:
            left = self._presence.left_behind(machine, now)
            demand(not left, f"the round closes while {left} may be back with the rest of an update")

    def _check_buffer(self, machine: Coordinator) -> None:
        """Check that a full buffer moves the model, and that nothing waits beside one with room."""
        buffer, ledger = self.world.setting.policy.buffer, machine.ledger
        demand(ledger.accepted < buffer, f"{ledger.accepted} updates are in the buffer, and it is open")
        ready = any(entry.standing is Standing.READY for entry in ledger.entries.values())
        room = ledger.accepted + ledger.absorbing < buffer
        demand(not (ready and room), "an update waits for its turn, and the buffer has room")

    def _cohort(self, task: Task) -> frozenset[str]:
        key = (task.run, task.round)
        if key not in self._cohorts:
            chosen = (name for name in self.world.devices if in_cohort(name, task.salt, task.fraction))
            self._cohorts[key] = frozenset(chosen)
        return self._cohorts[key]

    def tick(self) -> None:
        """Check, between any two steps, that no round is open past its deadline."""
        if self.world.now > self.deadline and self.world.aggregator.alive:
            raise Violation(f"the round is open {SLACK_S} s past its deadline")

    # --- devices ------------------------------------------------------------------------------------------------------

    def training(self, shell: DeviceShell, task: Task) -> None:
        """Check a device that begins to train."""
        demand(
            self.tasks.get((task.run, task.round)) == task, f"{shell.name} trains for a task that never was"
        )
        demand(
            shell.replica == (task.run, task.model),
            f"{shell.name} trains from {shell.replica}, not {task.model}",
        )
        demand(shell.name in self._cohorts[task.run, task.round], f"{shell.name} trains outside its cohort")

    def sending(self, update: SimulatedUpdate) -> None:
        """Check a device that sends."""
        invited = update.device in self._cohorts[update.run, update.round]
        demand(invited, f"{update.device} sends for round {update.round}, which did not ask it")

    def fetched(self, shell: DeviceShell, effect: pa.Fetch, run: bytes) -> None:
        """Check that the frames which were fetched lead from what the device holds to what it wants."""
        at = 0 if effect.fresh or shell.replica is None else shell.replica[1]
        demand(
            effect.fresh or shell.replica is None or shell.replica[0] == run,
            "frames for another run's replica",
        )
        for step in effect.steps:
            demand(step.key or step.version == at + 1, f"{step} does not build on the replica, which is {at}")
            at = step.version
        demand(at == effect.version, f"the frames lead to {at}, not to {effect.version}")

    def participant(
        self, shell: DeviceShell, event: pa.ParticipantEvent, effects: Sequence[pa.ParticipantEffect]
    ) -> None:
        """Check that nothing is forgotten, and that nobody sleeps for ever, after each event."""
        machine, name = shell.machine, shell.name
        demand(len(machine.outbox) <= MOST_STORED, f"{name} has {len(machine.outbox)} updates in its outbox")
        kept = machine.outbox.keys() <= shell.disk.outbox.keys()
        demand(kept, f"{name} has forgotten an update on disk that the machine still wants to send")
        if isinstance(event, pa.Receipted) and event.receipt.verdict.settled:
            demand(event.receipt.update not in machine.outbox, f"{name} keeps an update that has its receipt")
        demand(
            shell.fetching or machine.phase is not Work.FETCHING,
            f"{name} waits for a fetch that nobody makes",
        )
        demand(
            shell.training or machine.phase is not Work.TRAINING,
            f"{name} waits for a training that nobody does",
        )
        for effect in effects:
            if isinstance(effect, pa.Forget) and effect.verdict is None:
                self._check_over(shell, effect)
        if not machine.connected:
            return
        if isinstance(event, pa.Connected):
            sent = {effect.update for effect in effects if isinstance(effect, pa.Send)}
            demand(machine.outbox.keys() <= sent, f"{name} is back, and does not send what is in its outbox")
        if machine.outbox.keys() - shell.sending.keys():
            self._check_awake(shell, "an update without a receipt")
        if self._wants_a_model(shell):
            self._check_awake(shell, "a model to fetch")

    def _check_over(self, shell: DeviceShell, effect: pa.Forget) -> None:
        """Check that an update is given up without a receipt only where none will come."""
        task, run = shell.machine.task, shell.written[effect.update]
        over = task is not None and (task.run != run or effect.round < task.oldest)
        demand(over, f"{shell.name} gives up {effect.update.decode()}, which may not have arrived")

    def _check_awake(self, shell: DeviceShell, what: str) -> None:
        soon = self.world.now + LONGEST_PAUSE_S
        demand(shell.wake is not None and shell.wake <= soon, f"{shell.name} has {what}, and sleeps")

    def _wants_a_model(self, shell: DeviceShell) -> bool:
        machine = shell.machine
        task, manifest = machine.task, machine.manifest
        if machine.phase is not Work.IDLE or task is None or manifest is None or task.kind is TaskKind.STOP:
            return False
        if len(machine.outbox) >= MOST_WAITING:
            return False
        if (manifest.run, manifest.version) != (task.run, task.model) or shell.name not in self._cohort(task):
            return False
        answered = any(run == task.run and round_ >= task.round for run, round_ in shell.answered)
        return not answered and shell.replica != (task.run, task.model)
