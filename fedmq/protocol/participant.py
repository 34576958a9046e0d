"""The device's side of the protocol, as a machine without input or output.

A device is told things by retained messages, in any order, again and again, some of them old. From these it derives
one wish: "the newest task that concerns me, answered once". Phase by phase:

- **idle**: nothing to do, or waiting for the model that the task names.
- **fetching**: the model is on its way.
- **training**: the trainer is at work; it is not interrupted, but its result is forgotten if the round is over by then.
- **retired**: the federation has ended.

Apart from the phase stands the *outbox*: an update that was stored stays there, and is sent again after a lost link or
a missing receipt, until a receipt settles it or a task says that its round is no longer taken.

Where updates of earlier rounds are still taken (an asynchronous federation: the task's `oldest` is below its `round`),
a newer task does not end what is under way: the model that is being fetched is trained from, and the update is sent.
Else a device whose link is slower than the others train would fetch for ever.

Where the link may carry so many bytes a day (`Allowed`), a task that would take more than is left is not taken up, and
an update waits in the outbox; when another day has begun both go on from there.

`now` is any monotonic clock in seconds. What the calendar of the device says is never asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, assert_never

from fedmq.errors import MisuseError
from fedmq.protocol import participation as pa
from fedmq.protocol.cohort import in_cohort
from fedmq.protocol.frames import cost, way
from fedmq.protocol.messages import Manifest, Task, TaskKind
from fedmq.protocol.pacing import lot, wait_s
from fedmq.protocol.participation import Phase
from fedmq.protocol.posting import LONGEST_PAUSE_S, RECEIPT_PAUSE_S, Letter, Posting, pause_after
from fedmq.protocol.spans import EVERYTHING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "FETCH_PAUSE_S",
    "LONGEST_PAUSE_S",
    "MOST_WAITING",
    "RECEIPT_PAUSE_S",
    "TRANSITIONS",
    "Participant",
    "Phase",
]

FETCH_PAUSE_S: Final = 5.0
"""Longest wait after a fetch that failed before the next try; doubled each time, up to `LONGEST_PAUSE_S`. As with
receipts, each device waits so long or up to half as long, and longer in a large fleet: what one did not get, all may
not have got, and for the same time."""
MOST_WAITING: Final = 2
"""Updates that may wait for their receipts before the device trains for another one."""


_ANY = frozenset({Phase.IDLE, Phase.FETCHING, Phase.TRAINING, Phase.RETIRED})
_FETCH = frozenset({Phase.IDLE, Phase.FETCHING})

TRANSITIONS: Mapping[tuple[Phase, type], frozenset[Phase]] = {
    (Phase.IDLE, pa.Connected): _FETCH,
    (Phase.IDLE, pa.Tasked): _ANY,
    (Phase.IDLE, pa.Published): _FETCH,
    (Phase.IDLE, pa.Receipted): frozenset({Phase.IDLE, Phase.FETCHING, Phase.TRAINING}),
    (Phase.IDLE, pa.Allowed): frozenset({Phase.IDLE, Phase.FETCHING, Phase.TRAINING}),
    (Phase.IDLE, pa.Elapsed): _FETCH,
    (Phase.FETCHING, pa.Tasked): _ANY,
    (Phase.FETCHING, pa.Disconnected): frozenset({Phase.IDLE}),
    (Phase.FETCHING, pa.Fetched): frozenset({Phase.IDLE, Phase.FETCHING, Phase.TRAINING}),
    (Phase.FETCHING, pa.FetchFailed): frozenset({Phase.IDLE, Phase.FETCHING}),
    (Phase.TRAINING, pa.Stored): _ANY,
    (Phase.TRAINING, pa.TrainingFailed): _ANY,
    (Phase.RETIRED, pa.Tasked): _ANY,
}
"""Every way from one phase to the next. A pair that is not here leaves the phase as it is; `handle` holds to that."""


class Participant(Posting):
    """The machine; see the module's text. Not thread-safe: one shell owns it."""

    def __init__(
        self,
        device: str,
        layout: bytes,
        *,
        held: tuple[bytes, int] | None = None,
        outbox: Mapping[bytes, tuple[bytes, int]] | None = None,
    ) -> None:
        """Begin with what is on disk: `held` is (run, version) of the replica, `outbox` maps update to (run, round)."""
        super().__init__(outbox or {})
        self.device, self.layout = device, layout
        self.task: Task | None = None
        self.manifest: Manifest | None = None
        self.run, self.version = held or (b"", 0)
        self._answered = self._last_answered()
        self._work: Task | None = None
        self._aim: Task | None = None
        self._fetching = 0
        self._fetch_due = 0.0
        self._fetches_failed = 0
        self._complained: set[bytes] = set()

    def _transitions(self) -> Mapping[tuple[Phase, type], frozenset[Phase]]:
        return TRANSITIONS

    def _react(self, event: pa.ParticipantEvent, now: float) -> None:  # noqa: C901, PLR0912 - one row per event
        match event:
            case pa.Connected():
                self._connect(now)
            case pa.Disconnected():
                self._disconnect()
            case pa.Tasked(task):
                self._tasked(task, now)
            case pa.Published(manifest):
                self._published(manifest, now)
            case pa.Fetched(version):
                self._fetched(version, now)
            case pa.FetchFailed():
                self._fetch_failed(event, now)
            case pa.Stored():
                self._stored(event, now)
            case pa.Sent(update):
                self._sent(update, now)
            case pa.TrainingFailed():
                self._training_failed(event, now)
            case pa.Receipted():
                self._receipted(event, now)
            case pa.Allowed(nbytes):
                self._allowed(nbytes, now)
            case pa.Paced(spread_s):
                self._spread_s = spread_s
            case pa.Elapsed():
                self._go_on(now)
            case _:
                assert_never(event)

    # --- the link -----------------------------------------------------------------------------------------------------

    def _disconnect(self) -> None:
        self.connected, self._fetching, self._aim = False, 0, None
        self._end_fetching()

    # --- news ---------------------------------------------------------------------------------------------------------

    def _tasked(self, task: Task, now: float) -> None:
        if self.task is not None and task.run == self.task.run and task.round < self.task.round:
            return  # an old retained task, after a broker lost its memory
        self._enter(task.run)
        self.task = task
        self._forget_what_is_over(task)
        self._go_on(now)

    def _published(self, manifest: Manifest, now: float) -> None:
        known = self.manifest
        if known is not None and manifest.run == known.run:
            if manifest.version < known.version:
                return  # models only go forward
            if manifest.version > known.version:
                self._fetch_due, self._fetches_failed = 0.0, 0  # what failed is not what is wanted now
        self.manifest = manifest
        self._go_on(now)

    def _enter(self, run: bytes) -> None:
        """Start afresh when the federation has begun another run: its numbers have begun again too.

        Only a task says so. The manifest of a new run may be here before its task, and the task of the old run may come
        in between, from a broker that is asked just then; so a manifest is kept, whatever its run, until it is wanted.
        """
        if run == self.run:
            return
        self.run, self.version = run, 0
        self._answered = self._last_answered()
        self._fetching, self._aim, self._fetches_failed, self._fetch_due = 0, None, 0, 0.0
        if self.phase is not Phase.TRAINING:
            self.phase = Phase.IDLE

    def _last_answered(self) -> int:
        return max((letter.round for letter in self.outbox.values() if letter.run == self.run), default=0)

    def _forget_what_is_over(self, task: Task) -> None:
        for update, letter in list(self.outbox.items()):
            if letter.run != task.run or letter.round < task.oldest:
                del self.outbox[update]
                self._out.append(pa.Forget(letter.round, update, None, "its round is over"))

    # --- what to do now -----------------------------------------------------------------------------------------------

    def _go_on(self, now: float) -> None:
        """Do the next thing that can be done, and ask to be woken for the next that cannot yet."""
        self._send_what_is_due(now)
        if self.phase is not Phase.TRAINING and self.task is not None:
            self._answer(self._aimed_at(self.task), now)
        self._sleep(now)

    def _aimed_at(self, task: Task) -> Task:
        """Return the task whose model is being fetched, or was just now, as long as its round is taken; else `task`."""
        aim = self._aim
        if aim is None or aim.run != task.run or task.kind is TaskKind.STOP or self.version == task.model:
            return task
        return aim if task.oldest <= aim.round < task.round else task

    def _answer(self, task: Task, now: float) -> None:
        if task.kind is TaskKind.STOP:
            self._retire(task)
        elif self._concerns_me(task):
            self._prepare(task, now)
        else:
            self._wait()

    def _wait(self) -> None:
        self.phase = Phase.FETCHING if self._fetching else Phase.IDLE

    def _retire(self, task: Task) -> None:
        if self.phase is not Phase.RETIRED:
            self.phase = Phase.RETIRED
            self._out.append(pa.Retire(task.model))

    def _concerns_me(self, task: Task) -> bool:
        if task.layout != self.layout:
            self._complain(task)
            return False
        if task.round <= self._answered or len(self.outbox) >= MOST_WAITING:
            return False
        return in_cohort(self.device, task.salt, task.fraction)

    def _complain(self, task: Task) -> None:
        if task.layout in self._complained:
            return
        self._complained.add(task.layout)
        sentence = (
            f"the federation's model has layout {task.layout.hex()}, this device's has {self.layout.hex()}: "
            "it was built for another model; install the federation's model definition"
        )
        self._out.append(pa.Log(sentence, serious=True))

    def _affords_answer(self, task: Task, fetched: int) -> bool:
        """Tell whether the link may still carry what answering takes: `fetched` bytes of model, and an update."""
        return self._affords(f"round {task.round}", fetched + self._allowance.update_bytes)

    def _prepare(self, task: Task, now: float) -> None:
        if self.version == task.model:
            if not self._affords_answer(task, 0):
                self._wait()
                return
            self.phase, self._work, self._fetching = Phase.TRAINING, task, 0
            self._answered, self._aim = task.round, None
            self._out.append(pa.Train(task))
        elif (manifest := self._fetchable(task, now)) is not None:
            self._fetch(manifest, task)
        else:
            self._wait()

    def _fetchable(self, task: Task, now: float) -> Manifest | None:
        """Return the manifest of the task's model if a fetch of it can begin now."""
        if not self.connected or self._fetching == task.model or now < self._fetch_due:
            return None
        manifest = self.manifest
        fits = manifest is not None and (manifest.run, manifest.version) == (task.run, task.model)
        return manifest if fits else None

    def _fetch(self, manifest: Manifest, task: Task) -> None:
        steps = way(manifest, self.version)
        if not self._affords_answer(task, cost(manifest, steps)):
            self._wait()
            return
        self._aim = task
        fetch = pa.Fetch(manifest, steps)
        if fetch.fresh:
            self.version = 0
        self.phase, self._fetching = Phase.FETCHING, manifest.version
        self._out.append(fetch)

    def _fetched(self, version: int, now: float) -> None:
        if version != self._fetching:
            return
        self.version, self._fetching, self._fetches_failed = version, 0, 0
        self._end_fetching()
        self._go_on(now)

    def _end_fetching(self) -> None:
        if self.phase is Phase.FETCHING:  # else the federation has ended meanwhile
            self.phase = Phase.IDLE

    def _fetch_failed(self, event: pa.FetchFailed, now: float) -> None:
        if event.version != self._fetching:
            return
        self._fetching, self._aim = 0, None
        self._end_fetching()
        held, lasting = self.version, self._fetches_failed > 0
        if event.wrong or lasting:
            self.version = 0  # whatever is wrong with replica or deltas, the key-frame does not need them
        if event.wrong and held and not lasting:
            self._out.append(pa.Log(f"the key-frame makes good what came out wrong: {event.reason}"))
            self._go_on(now)
            return
        longest = pause_after(FETCH_PAUSE_S, self._fetches_failed)
        self._fetches_failed += 1
        self._fetch_due = now + wait_s(longest, self._spread_s, self._fetch_lot(event.version))
        self._out.append(pa.Log(f"model {event.version} could not be fetched: {event.reason}"))
        self._sleep(now)

    def _fetch_lot(self, version: int) -> float:
        """Return what this device draws for its next try: all of a fleet lack the same version, for as many times."""
        return lot(b"%b/%d/%b" % (self.run, version, self.device.encode()), self._fetches_failed)

    # --- updates ------------------------------------------------------------------------------------------------------

    def _stored(self, event: pa.Stored, now: float) -> None:
        work = self._work_done(event)
        if self._still_wanted(work):
            letter = Letter(work.run, work.round, due=now, missing=EVERYTHING, nbytes=event.nbytes)
            self._post(event.update, letter)
            self._answered = max(self._answered, work.round)  # an older run may have been here in between
        else:
            self._out.append(pa.Forget(event.round, event.update, None, "its round ended during training"))
        self._go_on(now)

    def _work_done(self, event: pa.Stored | pa.TrainingFailed) -> Task:
        work, self._work = self._work, None
        if work is None or work.round != event.round:
            raise MisuseError(
                f"{type(event).__name__} of round {event.round} came, which nobody is training for"
            )
        self.phase = Phase.IDLE
        return work

    def _still_wanted(self, work: Task) -> bool:
        task = self.task or work
        return work.run == task.run and task.kind is not TaskKind.STOP and work.round >= task.oldest

    def _training_failed(self, event: pa.TrainingFailed, now: float) -> None:
        self._work_done(event)
        self._out.append(pa.Log(f"no update for round {event.round}: {event.reason}", serious=True))
        self._go_on(now)

    def _sleep(self, now: float) -> None:
        """Ask for the next time at which something falls due; without a link nothing does."""
        times = self._dues()
        if self._fetch_due > now and self.phase is Phase.IDLE:
            times.append(self._fetch_due)
        if times and self.connected:
            self._out.append(pa.Wake(min(times)))
