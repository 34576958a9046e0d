"""Bare machines and what to say to them: short words for the tests next door."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from fedmq.protocol import coordination as co
from fedmq.protocol import participation as pa
from fedmq.protocol.coordinator import Coordinator, Phase, Progress, Terms
from fedmq.protocol.messages import Facts, Manifest, Receipt, Task, TaskKind, Verdict
from fedmq.protocol.participant import Participant
from fedmq.protocol.policy import Policy, StopWhen

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fedmq.protocol.ledger import Ledger

RUN, LAYOUT, OTHER_LAYOUT = b"run-one.", b"layout..", b"another."
TERMS = Terms(RUN, LAYOUT, b"seed", "float32", 1000, {"epochs": 1})
POLICY = Policy(min_devices=2, quorum=1, soft_deadline_s=60.0, hard_deadline_s=120.0)

E = TypeVar("E")


class Stage:
    """One coordinator, its clock, and the effects of the last event."""

    def __init__(
        self,
        policy: Policy = POLICY,
        stop: StopWhen | None = None,
        *,
        progress: Progress | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        self.machine = Coordinator(TERMS, policy, stop or StopWhen(), progress=progress, ledger=ledger)
        self.now = 1000.0
        self.effects: list[co.CoordinatorEffect] = []

    def at(self, phase: Phase) -> bool:
        return self.machine.phase is phase

    @property
    def round(self) -> int:
        return self.machine.progress.round

    def tell(self, *events: co.CoordinatorEvent, after: float = 0.0) -> list[co.CoordinatorEffect]:
        """Hand in events, the first one `after` so many seconds; return the effects of all of them."""
        self.now += after
        self.effects = [effect for event in events for effect in self.machine.handle(event, self.now)]
        return self.effects

    def seen(self, kind: type[E]) -> list[E]:
        return [effect for effect in self.effects if isinstance(effect, kind)]

    def one(self, kind: type[E]) -> E:
        found = self.seen(kind)
        assert len(found) == 1, f"{kind.__name__}: {self.effects}"
        return found[0]

    @property
    def verdicts(self) -> list[tuple[str, Verdict]]:
        return [(reply.device, reply.receipt.verdict) for reply in self.seen(co.Reply)]

    # --- what often happens -------------------------------------------------------------------------------------------

    def opened(self, *devices: str) -> Stage:
        """Start, and let these devices be born, which opens the first round."""
        self.tell(co.Started(), *(born(device) for device in devices or ("ada", "bob")))
        assert self.at(Phase.OPEN)
        return self

    def offer(self, device: str, update: bytes | None = None, **other: object) -> list[co.CoordinatorEffect]:
        return self.tell(self.offered(device, update, **other))

    def offered(self, device: str, update: bytes | None = None, **other: object) -> co.Offered:
        given = {"run": RUN, "round": self.round, "nbytes": 10, "opening": True, **other}
        return co.Offered(device=device, update=update or device.encode(), **given)  # type: ignore[arg-type]

    def complete(
        self, device: str, update: bytes | None = None, **other: object
    ) -> list[co.CoordinatorEffect]:
        given = {"round": self.round, "model": self.machine.progress.version, "layout": LAYOUT, **other}
        return self.tell(co.Completed(device=device, update=update or device.encode(), **given))  # type: ignore[arg-type]

    def deliver(self, *devices: str) -> None:
        """Bring the devices' updates as far as the rule."""
        for device in devices:
            self.offer(device)
            self.complete(device)

    def absorb(
        self, device: str, examples: int = 10, metrics: Mapping[str, float] | None = None
    ) -> list[co.CoordinatorEffect]:
        facts = Facts(examples, 1, metrics or {})
        return self.tell(co.Absorbed(device, self.round, device.encode(), facts))

    def spoil(self, device: str, reason: str = "not finite") -> list[co.CoordinatorEffect]:
        return self.tell(co.Spoiled(device, self.round, device.encode(), reason))

    def accept(self, *devices: str) -> None:
        for device in devices:
            self.deliver(device)
            self.absorb(device)

    def step(self, **other: object) -> list[co.CoordinatorEffect]:
        version = self.machine.progress.version + 1
        return self.tell(co.Stepped(self.round, version, **other))  # type: ignore[arg-type]


def born(device: str, session: int = 1, layout: bytes = LAYOUT) -> co.Born:
    return co.Born(device, session, layout)


def stage_in(phase: Phase) -> Stage:
    """Return a coordinator in this phase; where there is a round, ada's update is with the rule or accepted."""
    stage = Stage(Policy(min_devices=2, quorum=2, soft_deadline_s=60.0, hard_deadline_s=120.0))
    match phase:
        case Phase.NEW:
            pass
        case Phase.WAITING:
            stage.tell(co.Started(), born("ada"))
        case Phase.OPEN:
            stage.opened().deliver("ada")
        case Phase.DRAINING:
            stage.opened().deliver("ada")
            stage.tell(co.Ticked(), after=120.0)
        case Phase.STEPPING:
            stage.opened().accept("ada", "bob")
        case Phase.STOPPED:
            stage.tell(co.Started(), co.StopAsked("enough"))
    assert stage.at(phase)
    return stage


# --- the device's side ------------------------------------------------------------------------------------------------


def task(number: int = 1, model: int = 1, **other: object) -> Task:
    given = {
        "run": RUN,
        "round": number,
        "oldest": number,
        "kind": TaskKind.TRAIN,
        "model": model,
        "layout": LAYOUT,
        "salt": b"salt",
        "fraction": 1.0,
        "seconds": 120.0,
        "codec": "float32",
        "update_bytes": 1000,
    }
    return Task(**{**given, **other})  # type: ignore[arg-type]


def stop_task(number: int = 9, model: int = 1) -> Task:
    return task(number, model, kind=TaskKind.STOP)


def manifest(version: int = 1, *, key: int | None = None, run: bytes = RUN) -> Manifest:
    """Return the manifest of `version` with a key-frame of version `key` (default: its own), and the deltas since."""
    first = version if key is None else key
    return Manifest(run, version, b"digest", first, 100, (2,) * (version - first))


def receipt(update: bytes, verdict: Verdict = Verdict.ACCEPTED, **other: object) -> pa.Receipted:
    given = {"run": RUN, "round": 1, "reason": "", "retry_after_s": 0.0, **other}
    return pa.Receipted(Receipt(update=update, verdict=verdict, **given))  # type: ignore[arg-type]


class Desk:
    """One participant, its clock, and the effects of the last event."""

    def __init__(
        self,
        device: str = "ada",
        *,
        held: tuple[bytes, int] | None = None,
        outbox: Mapping[bytes, tuple[bytes, int]] | None = None,
    ) -> None:
        self.machine = Participant(device, LAYOUT, held=held, outbox=outbox)
        self.now = 1000.0
        self.effects: list[pa.ParticipantEffect] = []

    def tell(self, *events: pa.ParticipantEvent, after: float = 0.0) -> list[pa.ParticipantEffect]:
        self.now += after
        self.effects = [effect for event in events for effect in self.machine.handle(event, self.now)]
        return self.effects

    def seen(self, kind: type[E]) -> list[E]:
        return [effect for effect in self.effects if isinstance(effect, kind)]

    def one(self, kind: type[E]) -> E:
        found = self.seen(kind)
        assert len(found) == 1, f"{kind.__name__}: {self.effects}"
        return found[0]

    def training(self, **other: object) -> Desk:
        """Be connected, and train for round 1."""
        self.tell(pa.Connected(), pa.Published(manifest()), pa.Tasked(task(**other)), pa.Fetched(1))  # type: ignore[arg-type]
        return self

    def stored(self, update: bytes = b"u1") -> Desk:
        """Have an update in the outbox, sent once."""
        self.training().tell(pa.Stored(1, update), pa.Sent(update))
        return self
