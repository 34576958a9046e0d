"""Whole federations under the algorithms: what comes out is what the papers' listings give."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pytest

from fedmq.aggregator.settings import Encoding, Federation
from fedmq.algorithms import Algorithm, FedDyn, FedNova, FedProx, Plain, Scaffold
from fedmq.codecs import parse
from fedmq.descent import Pull
from fedmq.device.interface import Setting, Trained
from fedmq.device.keepsakes import DiskKeepsakes
from fedmq.device.outbox import DiskOutbox
from fedmq.errors import ConfigError
from fedmq.protocol.messages import Task
from fedmq.protocol.policy import Policy, StopWhen
from fedmq.rules import ExamplesBound, Rule, Uniform
from fedmq.testing.federation import Rig, ShiftTrainer, rig
from fedmq.transport.address import Credentials, open_transport
from fedmq.transport.mailbox import Faults
from fedmq.transport.memory import MemoryBroker
from fedmq.transport.mosquitto import private_mosquitto
from fedmq.vectors import Layout, Variable
from fedmq.wire.envelope import decode
from tests.unit.algorithms import listings
from tests.unit.algorithms.fleets import Quadratic, gradients
from tests.unit.algorithms.listings import Round

if TYPE_CHECKING:
    from fedmq.device.device import Device
    from fedmq.vectors import Vector

RATE = 0.1
STEPS = 5
SIZE = 6


def federation(algorithm: Algorithm, devices: int, rounds: int, **changes: Any) -> Federation:  # noqa: ANN401 # fields of Federation
    policy = Policy(min_devices=devices, quorum=devices, soft_deadline_s=60, hard_deadline_s=60)
    given = {"rule": Rule(weigh=Uniform()), "training": {"epochs": STEPS, "learning_rate": RATE}, **changes}
    return Federation("test", policy=policy, stop=StopWhen(rounds=rounds), algorithm=algorithm, **given)


def fleet(count: int = 3, seed: int = 4) -> list[Quadratic]:
    chance = np.random.default_rng(seed)
    return [Quadratic.drawn(chance, SIZE, examples=10 * (number + 1)) for number in range(count)]


def everyone(trainers: Sequence[object], rounds: int) -> list[Round]:
    return [Round(list(range(len(trainers))), [STEPS] * len(trainers))] * rounds


def layout(trainers: Sequence[Quadratic]) -> Layout:
    return trainers[0].layout


def control_of(device: Device) -> Vector:
    assert device.replica is not None
    kept = device._keepsakes.kept(device._participant.run)
    return kept["scaffold.control"]


def wanted(algorithm: Algorithm, trainers: Sequence[Quadratic], rounds: int) -> np.ndarray:
    slopes, x, plan = gradients(trainers), np.zeros(SIZE), everyone(trainers, rounds)
    if isinstance(algorithm, Scaffold):
        return listings.scaffold(slopes, x, plan, RATE, 1.0)[0]
    if isinstance(algorithm, FedProx):
        return listings.fedprox(slopes, x, plan, RATE, algorithm.mu)
    if isinstance(algorithm, FedNova):
        return listings.fednova(slopes, x, plan, RATE, 0.0, [1] * len(trainers))
    assert isinstance(algorithm, FedDyn)

    def minimise(one: Quadratic) -> Callable[..., np.ndarray]:
        def descend(theta: np.ndarray, own: np.ndarray, alpha: float, steps: int) -> np.ndarray:
            w = theta.copy()
            for _ in range(steps):
                w = w - RATE * (one.gradient(w) - own + alpha * (w - theta))
            return w

        return descend

    return listings.feddyn([minimise(one) for one in trainers], x, plan, algorithm.alpha)[0]


ALGORITHMS = [Scaffold(), FedDyn(0.5), FedProx(0.5), FedNova()]


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=str)
async def test_a_federation_goes_the_papers_way(tmp_path: Path, algorithm: Algorithm) -> None:
    trainers, broker = fleet(), MemoryBroker()
    settings = federation(algorithm, 3, rounds=5)
    async with rig(settings, lambda: broker, tmp_path, layout(trainers)) as running:
        running.start_aggregator()
        running.start_devices(trainers)
        await running.ended()
    model = running.model[:SIZE]
    np.testing.assert_allclose(model, wanted(algorithm, trainers, 5), rtol=1e-4, atol=1e-5)
    assert [report.accepted for report in running.reports] == [3] * 5


@pytest.mark.broker
@pytest.mark.parametrize("algorithm", [Scaffold(), FedDyn(0.5)], ids=str)
async def test_a_federation_goes_the_papers_way_over_mosquitto(tmp_path: Path, algorithm: Algorithm) -> None:
    trainers, settings = fleet(), federation(algorithm, 3, rounds=4)
    async with (
        private_mosquitto() as broker,
        rig(
            settings, lambda: open_transport(broker.address, Credentials()), tmp_path, layout(trainers)
        ) as running,
    ):
        running.start_aggregator()
        running.start_devices(trainers)
        await running.ended(60)
    np.testing.assert_allclose(running.model[:SIZE], wanted(algorithm, trainers, 4), rtol=1e-4, atol=1e-5)


# --- what the wire carries


async def test_tasks_name_the_algorithm_and_models_carry_the_control_variate(tmp_path: Path) -> None:
    trainers, broker = fleet(), MemoryBroker()
    seen: list[Task] = []

    async with rig(federation(Scaffold(), 3, 2), lambda: broker, tmp_path, layout(trainers)) as running:
        running.start_aggregator()
        running.start_devices(trainers)
        await running.until(lambda: broker.retained("fedmq/v1/test/all/task"))
        seen.extend(decode(body, Task) for body in broker.retained("fedmq/v1/test/all/task").values())
        await running.ended()
        replicas = [device.replica.vector for device in running.devices.values()]
    assert seen[0].training == {"epochs": STEPS, "learning_rate": RATE, "algorithm": "scaffold"}
    assert seen[0].layout == layout(trainers).digest
    assert running.aggregator is not None
    manifest = running.aggregator.modelling.manifest()
    assert manifest.behind == (SIZE,)
    assert all(replica is not None and replica.size == 2 * SIZE for replica in replicas)


@pytest.mark.parametrize("codec", ["float32", "float16", "int8"])
async def test_the_control_variate_stays_the_mean_of_the_devices(tmp_path: Path, codec: str) -> None:
    """Even where updates lose digits on their way: devices keep what the aggregator decoded."""
    trainers, broker = fleet(), MemoryBroker()
    settings = federation(Scaffold(), 3, 4, encoding=Encoding(up=parse(codec)))
    async with rig(settings, lambda: broker, tmp_path, layout(trainers)) as running:
        running.start_aggregator()
        running.start_devices(trainers)
        await running.ended()
        controls = [control_of(device) for device in running.devices.values()]
    np.testing.assert_allclose(running.model[SIZE:], np.mean(controls, axis=0), rtol=1e-4, atol=1e-5)
    assert np.linalg.norm(controls[0]) > 0.1


async def test_a_device_of_an_old_fedmq_declines(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whether its fedmq does not know the algorithm, or its trainer cannot be steered."""

    @dataclass(frozen=True, slots=True)
    class Moon(Plain):
        @property
        def telling(self) -> Mapping[str, Setting]:
            return {"algorithm": "moon"}

    class Unsteered(ShiftTrainer):
        def train(self, model: Vector, settings: Mapping[str, Setting], *, seed: int) -> Trained:  # type: ignore[override]
            raise AssertionError

    cases: list[tuple[Algorithm, ShiftTrainer, str]] = [
        (Moon(), ShiftTrainer(), "algorithm 'moon', this device knows plain"),
        (Scaffold(), Unsteered(), "cannot be steered"),
        (Scaffold(), ShiftTrainer(), "train with SGD"),
    ]
    for number, (algorithm, trainer, says) in enumerate(cases):
        broker = MemoryBroker()
        settings = federation(algorithm, 1, 1, training={})
        async with rig(settings, lambda broker=broker: broker, tmp_path / str(number)) as running:  # type: ignore[misc]
            running.start_aggregator()
            device = running.start_device("device", trainer)
            await running.until(lambda says=says: says in caplog.text)  # type: ignore[misc]
            assert device.counters.rounds == 0
            assert device.counters.bytes_up == 0


async def test_a_folder_of_another_algorithm_is_refused(tmp_path: Path) -> None:
    broker = MemoryBroker()
    async with rig(federation(Plain(), 1, 1), lambda: broker, tmp_path) as running:
        running.start_aggregator()
        await running.until(lambda: broker.retained("fedmq/v1/test/all/model"))
        await running.stop("aggregator")
        running.federation = replace(running.federation, algorithm=Scaffold())
        with pytest.raises(ConfigError, match="begun under another algorithm"):
            running.start_aggregator()


@dataclass(frozen=True)
class Lengthy(Plain):
    """Puts behind the model what is sixteen times as long."""

    def extend(self, layout: Layout) -> Layout:
        return Layout((*layout.variables, Variable("more", (16 * layout.size,), "statistic")))


async def test_a_vector_that_no_device_would_hold_is_refused(tmp_path: Path) -> None:
    broker = MemoryBroker()
    async with rig(federation(Lengthy(), 1, 1), lambda: broker, tmp_path) as running:
        with pytest.raises(ConfigError, match="16 times as many at most"):
            running.start_aggregator()


# --- restarts, repeats, refusals


@dataclass
class InTurns(Quadratic):
    """Trains as often as it is let to."""

    turns: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    trainings: int = 0
    PATIENCE_S: ClassVar[float] = 20

    def train(
        self, model: Vector, settings: Mapping[str, Setting], *, seed: int, pull: Pull | None = None
    ) -> Trained:
        self.turns.acquire(timeout=self.PATIENCE_S)
        self.trainings += 1
        return super().train(model, settings, seed=seed, pull=pull)


def in_turns(trainer: Quadratic) -> InTurns:
    return InTurns(trainer.curvature, trainer.minimum, examples=trainer.examples)


def on_disk(folder: Path) -> dict[str, Any]:
    return {"outbox": DiskOutbox(folder / "outbox"), "keepsakes": DiskKeepsakes(folder / "keepsakes")}


UPDATES = "fedmq/v1/test/up/device-0/update/#"
RECEIPTS = "fedmq/v1/test/down/device-0/#"


@pytest.mark.parametrize("algorithm", [Scaffold(), FedDyn(0.5)], ids=str)
@pytest.mark.parametrize("lost", [UPDATES, RECEIPTS], ids=["updates lost", "receipts lost"])
async def test_a_device_restarts_between_training_and_receipt(
    tmp_path: Path, algorithm: Algorithm, lost: str
) -> None:
    """In the second round, when there is something to keep; nothing is trained twice, nothing added twice."""
    trainers, broker = fleet(2), MemoryBroker()
    restarting, folder = in_turns(trainers[0]), tmp_path / "device"
    restarting.turns.release()
    settings = federation(algorithm, 2, rounds=4)
    async with rig(settings, lambda: broker, tmp_path / "aggregator", layout(trainers)) as running:
        running.start_aggregator()
        running.start_device("device-0", restarting, **on_disk(folder))
        running.start_device("device-1", trainers[1])
        await running.until(lambda: _settled(running, "device-0", 1))
        broker.faults = Faults(drop=1.0, topics=lost)
        restarting.turns.release()
        await running.until(lambda: list((folder / "keepsakes").glob("2-*.change")))
        await running.until(lambda: list((folder / "outbox").glob("2-*.update")))
        if lost == RECEIPTS:
            await running.until(lambda: len(running.reports) >= 2)
        await running.stop("device-0")
        broker.faults = Faults()
        restarting.turns.release(2)
        running.start_device("device-0", restarting, **on_disk(folder))
        await running.ended()
        assert [path.name for path in (folder / "keepsakes").iterdir()] == ["keepsakes.npz"]
    assert restarting.trainings == 4
    np.testing.assert_allclose(running.model[:SIZE], wanted(algorithm, trainers, 4), rtol=1e-4, atol=1e-5)


def _settled(running: Rig, device: str, count: int) -> bool:
    return running.devices[device].counters.verdicts.get("accepted", 0) >= count


@pytest.mark.parametrize("algorithm", [Scaffold(), FedDyn(0.5)], ids=str)
async def test_everything_twice_changes_nothing(tmp_path: Path, algorithm: Algorithm) -> None:
    trainers, broker = fleet(), MemoryBroker()
    broker.faults = Faults(duplicate=1.0)
    settings = federation(algorithm, 3, rounds=4)
    async with rig(settings, lambda: broker, tmp_path, layout(trainers)) as running:
        running.start_aggregator()
        running.start_devices(trainers)
        await running.ended()
    np.testing.assert_allclose(running.model[:SIZE], wanted(algorithm, trainers, 4), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("algorithm", [Scaffold(), FedDyn(0.5)], ids=str)
async def test_an_aggregator_restarts_in_mid_federation(tmp_path: Path, algorithm: Algorithm) -> None:
    """Between rounds and within one: control variate, drift and the fleet's size are in checkpoint and journal."""
    trainers, broker = fleet(2), MemoryBroker()
    slow = in_turns(trainers[0])
    slow.turns.release()
    settings = federation(algorithm, 2, rounds=4)
    async with rig(settings, lambda: broker, tmp_path, layout(trainers)) as running:
        running.start_aggregator()
        running.start_device("device-0", slow)
        running.start_device("device-1", trainers[1])
        for done in (1,):
            for name in ("device-0", "device-1"):
                await running.until(lambda name=name, done=done: _settled(running, name, done))  # type: ignore[misc]
            await running.until(lambda done=done: len(running.reports) >= done)  # type: ignore[misc]
            await running.stop("aggregator")
            running.start_aggregator()
        slow.turns.release(3)
        await running.ended()
    np.testing.assert_allclose(running.model[:SIZE], wanted(algorithm, trainers, 4), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("algorithm", [Scaffold(), FedDyn(0.5)], ids=str)
async def test_a_rejected_device_keeps_nothing(tmp_path: Path, algorithm: Algorithm) -> None:
    """The third device claims more examples than is believed: the other two go on as if it were not there."""
    trainers, broker = fleet(), MemoryBroker()
    policy = Policy(min_devices=3, quorum=2, soft_deadline_s=0.3, hard_deadline_s=60)
    settings = replace(
        federation(algorithm, 2, rounds=3, rule=Rule(guards=(ExamplesBound(high=20),))), policy=policy
    )
    async with rig(settings, lambda: broker, tmp_path, layout(trainers)) as running:
        running.start_aggregator()
        running.start_devices(trainers)
        await running.until(lambda: running.devices["device-2"].counters.verdicts.get("rejected"))
        await running.ended()
        good, bad = running.devices["device-0"], running.devices["device-2"]
        assert good._keepsakes.kept(good._participant.run)
        assert not bad._keepsakes.kept(bad._participant.run)
        assert not bad._keepsakes._changes  # type: ignore[attr-defined]


async def test_lost_receipts_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that device and aggregator agree again, however many rounds it took."""
    monkeypatch.setattr("fedmq.device.settling.PATIENCE_S", 0.05)
    trainers, broker = fleet(2), MemoryBroker()
    broker.faults = Faults(drop=1.0, topics=RECEIPTS)
    async with rig(federation(Scaffold(), 2, 7), lambda: broker, tmp_path, layout(trainers)) as running:
        running.start_aggregator()
        running.start_devices(trainers)
        await running.until(lambda: len(running.reports) >= 2)
        assert not running.devices["device-0"].counters.verdicts.get("accepted")
        broker.faults = Faults()
        await running.ended()
        controls = [control_of(device) for device in running.devices.values()]
    np.testing.assert_allclose(running.model[SIZE:], np.mean(controls, axis=0), rtol=1e-4, atol=1e-5)


# --- what it is for


async def rounds_to(target: float, algorithm: Algorithm, folder: Path, most: int = 60) -> int:
    """Return the first round after which the mean loss of the devices' own data is below `target`."""
    from fedmq.trainers.numpy import Mlp, NumpyTrainer

    chance, classes = np.random.default_rng(7), 4
    centres = chance.normal(size=(classes, 5))
    trainers, x_all, y_all = [], [], []
    for own in range(classes):  # nine in ten examples are of one class
        y = np.where(chance.random(40) < 0.9, own, chance.integers(0, classes, 40))
        x = (centres[y] + chance.normal(scale=0.8, size=(40, 5))).astype(np.float32)
        trainers.append(NumpyTrainer(Mlp(5, classes=classes), x, y))
        x_all.append(x)
        y_all.append(y)
    judge = NumpyTrainer(
        Mlp(5, classes=classes), x_all[0], y_all[0], held_out=(np.concatenate(x_all), np.concatenate(y_all))
    )
    losses: list[float] = []

    async def evaluate(vector: Vector) -> Mapping[str, float]:
        losses.append(judge.evaluate(vector)["loss"])
        return {}

    training = {"epochs": 20, "batch_size": 40, "learning_rate": 0.5}
    settings = federation(algorithm, classes, rounds=most, training=training)
    broker = MemoryBroker()
    async with rig(settings, lambda: broker, folder, trainers[0].layout) as running:
        aggregator = running.start_aggregator(first=trainers[0].initial())
        aggregator._evaluate = evaluate
        running.start_devices(trainers)
        await running.until(lambda: (losses and losses[-1] < target) or len(losses) == most, seconds=60)
    reached = [number for number, loss in enumerate(losses, 1) if loss < target]
    return reached[0] if reached else most + 1


async def test_scaffold_needs_fewer_rounds_than_fedavg_where_devices_differ(tmp_path: Path) -> None:
    counts = {
        str(algorithm): await rounds_to(0.62, algorithm, tmp_path / algorithm.kind)
        for algorithm in (Plain(), Scaffold())
    }
    assert counts["scaffold"] * 2 < counts["plain"], counts
