"""Fleets in virtual time: the same models as over MQTT where time touches nothing, and what a world does to a round."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from fedmq.aggregator.encodings import encoding
from fedmq.aggregator.settings import Encoding
from fedmq.algorithms import Scaffold
from fedmq.codecs import parse
from fedmq.device import settling
from fedmq.device.interface import ModuleName
from fedmq.errors import ConfigError
from fedmq.protocol import participation as pa
from fedmq.protocol.participant import Participant
from fedmq.protocol.policy import Policy, StopWhen
from fedmq.rules import preset
from fedmq.simulate import FleetTable, Simulation, SimulationSettings
from fedmq.simulate.fleet import Fleet
from fedmq.simulate.virtual import VirtualSimulation, device
from fedmq.simulate.virtual.clock import Clock
from fedmq.simulate.virtual.device import ActiveDevice
from fedmq.simulate.virtual.roster import Dealt, make_roster
from fedmq.testing.federation import ShiftTrainer
from fedmq.trainers.numpy import Mlp, NumpyTrainer
from fedmq.transport.memory import MemoryBroker
from fedmq.worlds import Attackers, Availability, Battery, Connection, Data, Hardware, Population, World
from fedmq.worlds.attacks import LabelFlip, SignFlip

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from fedmq.device.interface import Trainer
    from fedmq.vectors import Vector

FLEET = FleetTable(ModuleName("none.py"), devices=6, trainer="numpy", baselines=False)
HOUR = 3600.0


def small_fleet(devices: int) -> Fleet:
    """Perceptrons on a few random examples each."""
    rng = np.random.default_rng(3)
    trainers: dict[str, Trainer] = {}
    for number in range(devices):
        x, y = rng.normal(size=(12 + number % 5, 4)), rng.integers(0, 3, 12 + number % 5)
        trainers[f"device-{number}"] = NumpyTrainer(Mlp(4, (5,), classes=3), x, y)
    return Fleet(trainers, None, f"{devices} devices")


def settings(**changes: Any) -> SimulationSettings:  # noqa: ANN401 - fields of the settings
    given = {
        "rounds": Policy(min_devices=6, quorum=1),
        "stop": StopWhen(rounds=5),
        "encoding": Encoding(up=parse("safe"), down=parse("safe"), key=parse("half"), keyframe_every=3),
        "rule": preset("fedavgm"),
        "training": {"epochs": 2, "batch_size": 5},
    }
    return SimulationSettings(FLEET, **{**given, **changes})


def virtual(
    settings: SimulationSettings, world: World, devices: int = 6, days: float = 0.0
) -> VirtualSimulation:
    chosen = replace(settings, world=world, days=days)
    simulation = VirtualSimulation(chosen, roster=Dealt(small_fleet(devices)))
    simulation.run()
    return simulation


class Watch:
    """Keeps each version's model, as the aggregator evaluates it."""

    def __init__(self) -> None:
        self.models: list[bytes] = []

    def __call__(self, vector: Vector) -> Mapping[str, float]:
        self.models.append(vector.tobytes())
        return {}


def test_devices_hear_over_how_long_the_fleet_is_to_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a beacon tells it, so that they wait for receipts as those over MQTT do."""
    told, handle = list[pa.ParticipantEvent](), Participant.handle

    def heard(self: Participant, event: pa.ParticipantEvent, now: float) -> list[pa.ParticipantEffect]:
        told.append(event)
        return handle(self, event, now)

    monkeypatch.setattr(Participant, "handle", heard)
    monkeypatch.setattr(device, "spread_s", float)  # a device a second
    virtual(settings(stop=StopWhen(rounds=1)), World())
    assert max(event.spread_s for event in told if isinstance(event, pa.Paced)) == 6.0


# --- beside MQTT ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"algorithm": Scaffold(), "encoding": encoding("exact"), "rule": preset("fedavg")},
        {"encoding": Encoding(up=parse("feedback | topk(0.2) | float32")), "rule": preset("fedavg")},
        {"encoding": encoding("stateless"), "rule": preset("fedavg")},
    ],
    ids=["plain", "scaffold", "feedback", "random"],
)
async def test_the_models_are_those_of_the_mqtt_run(
    changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        settling, "PATIENCE_S", 60.0
    )  # a busy machine must not have devices go on without receipts
    chosen, broker = settings(**changes), MemoryBroker()
    real, watched, imagined = Simulation(chosen, small_fleet(6), tmp_path), Watch(), Watch()
    real._judge = watched  # type: ignore[assignment]
    await real.run(lambda: broker)
    simulation = VirtualSimulation(chosen, roster=Dealt(small_fleet(6)))
    simulation.aggregator._evaluate = imagined
    outcome = simulation.run()
    assert imagined.models == watched.models
    assert len(set(imagined.models)) == 5
    assert outcome.reason == real.outcome.reason == "5 rounds are done"
    for ours, theirs in zip(simulation.rows, real.outcome.rows, strict=True):
        assert (ours.version, ours.expected, ours.accepted) == (theirs.version, 6, 6)
        # On a busy machine a task may overtake a receipt, and a device that keeps something then asks for it.
        assert ours.bytes_up == theirs.bytes_up if not changes else ours.bytes_up <= theirs.bytes_up
    # The last task says that the federation has ended; who hears it before the run ends is chance over MQTT.
    down, over_mqtt = (sum(row.bytes_down for row in run.outcome.rows) for run in (simulation, real))
    assert down == pytest.approx(over_mqtt, rel=0.05)


def test_a_seed_repeats_a_run() -> None:
    world = World(
        Availability(600.0, 600.0),
        Hardware(0.5, spread=1.0, noise=0.5),
        Connection(0.1, spread=1.0, cuts_per_hour=60),
    )
    chosen = settings(rounds=Policy(min_devices=2, soft_deadline_s=60, hard_deadline_s=600))
    first, second = virtual(chosen, world), virtual(chosen, world)
    assert first.model.tobytes() == second.model.tobytes()
    assert [replace(row, wall_s=0) for row in first.rows] == [replace(row, wall_s=0) for row in second.rows]
    other = virtual(replace(chosen, fleet=replace(FLEET, seed=4)), world)
    assert other.model.tobytes() != first.model.tobytes()


# --- what a world does ------------------------------------------------------------------------------------------------


def test_a_round_takes_as_long_as_its_slowest_link_and_processor() -> None:
    world = World(hardware=Hardware(1.0, setup_s=5.0), link=Connection(2.0, up_kbit_s=8.0, down_kbit_s=8.0))
    first = virtual(settings(encoding=Encoding()), world).rows[0]
    body = first.bytes_up / 6
    frame = (first.bytes_down - first.bytes_calls) / 6 - 40  # but for the receipt
    slowest = 16 * 2 + 5
    assert first.seconds == pytest.approx(2 + (2 + 2 + frame / 1000) + slowest + 2 + body / 1000, abs=0.1)


def test_only_those_that_a_task_asks_are_stepped(monkeypatch: pytest.MonkeyPatch) -> None:
    woken: Counter[str] = Counter()
    wake = ActiveDevice.wake
    monkeypatch.setattr(ActiveDevice, "wake", lambda self: (woken.update([self.name]), wake(self)))
    chosen = settings(rounds=Policy(fraction=0.1, min_devices=100, quorum=1), stop=StopWhen(rounds=3))
    simulation = virtual(chosen, World(), devices=200)
    assert sum(woken.values()) == sum(row.expected for row in simulation.rows) < 100
    assert [row.accepted for row in simulation.rows] == [row.expected for row in simulation.rows]
    assert (
        simulation.traffic.trained
        == simulation.school.trainings
        == sum(row.accepted for row in simulation.rows)
    )
    assert len(simulation._lockers) < 40


def test_cuts_are_made_good_and_cost_bytes() -> None:
    chosen = settings(rounds=Policy(min_devices=6, quorum=6, soft_deadline_s=HOUR, hard_deadline_s=9 * HOUR))
    narrow = Connection(0.2, up_kbit_s=0.2, down_kbit_s=0.2, reconnect_s=2.0)
    calm, rough = (virtual(chosen, World(link=link)) for link in (narrow, replace(narrow, cuts_per_hour=200)))
    assert [row.accepted for row in rough.rows] == [6] * 5
    assert rough.model.tobytes() == calm.model.tobytes()
    assert sum(row.cuts for row in rough.rows) > 10
    assert rough.traffic.bytes_up > calm.traffic.bytes_up
    assert rough.clock.now > calm.clock.now


def test_chunks_that_came_through_before_a_cut_are_not_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = Policy(min_devices=6, quorum=6, soft_deadline_s=HOUR, hard_deadline_s=9 * HOUR)
    chosen = settings(rounds=policy, encoding=Encoding(), stop=StopWhen(rounds=1))
    torn = Connection(0.1, up_kbit_s=0.2, reconnect_s=2.0, cuts_per_hour=780.0)  # ten seconds an update
    never = virtual(chosen, World(link=torn), days=0.01)  # and never more than nine in one go
    assert (never.rows, never.outcome.reason) == ([], "0.01 days are over")
    monkeypatch.setattr(device, "CHUNK_BYTES", 40)
    monkeypatch.setattr(device, "ASK_FROM_BYTES", 0)
    chunked, calm = (virtual(chosen, World(link=link)) for link in (torn, replace(torn, cuts_per_hour=0.0)))
    assert [row.accepted for row in chunked.rows] == [6]
    assert chunked.model.tobytes() == calm.model.tobytes()
    assert calm.traffic.bytes_up < chunked.traffic.bytes_up < 8 * calm.traffic.bytes_up


@pytest.mark.parametrize("forgets", [False, True])
def test_devices_that_go_down_go_on_when_they_are_up_again(forgets: bool) -> None:  # noqa: FBT001 - a case
    nights = Availability(up_s=900.0, down_s=900.0, regular=True, forgets=forgets)
    world = World(nights, Hardware(40.0), Connection(0.1, cuts_per_hour=2.0))
    policy = Policy(min_devices=2, quorum=2, soft_deadline_s=2 * HOUR, hard_deadline_s=4 * HOUR)
    simulation = virtual(settings(rounds=policy, stop=StopWhen(rounds=0, abandoned=2)), world, days=0.4)
    rows = simulation.rows
    assert simulation.outcome.reason == (
        "2 rounds in a row were abandoned" if forgets else "0.4 days are over"
    )
    done = sum(row.accepted for row in rows)
    if forgets:  # none of them ever trains for long enough at a stretch
        assert done == 0
    else:
        assert done > 20
        assert max(row.seconds for row in rows) > 1000
    assert simulation.rows[-1].hours <= 9.6


@pytest.mark.parametrize(("forgets", "seconds"), [(False, 160), (True, 130 + 120)])
def test_a_device_that_goes_down_while_it_trains_goes_on_or_begins_anew(
    *, forgets: bool, seconds: int, tmp_path: Path
) -> None:
    sessions = [
        "device,from_s,to_s",
        "d0,0,100",
        "d0,130,2000",
        *(f"d{other},0,2000" for other in range(1, 6)),
    ]
    (tmp_path / "trace.csv").write_text("\n".join(sessions))
    up = Availability(forgets=forgets, trace=tmp_path / "trace.csv")
    policy = Policy(min_devices=6, quorum=6, soft_deadline_s=HOUR, hard_deadline_s=HOUR)
    chosen = settings(rounds=policy, stop=StopWhen(rounds=1))
    simulation = virtual(chosen, World(up, Hardware(5.0)))  # a hundred and twenty seconds on the first device
    (row,) = simulation.rows
    assert (row.accepted, row.trained, simulation.school.trainings) == (
        6,
        6,
        6,
    )  # what is lost is never trained
    assert row.seconds == pytest.approx(seconds, abs=1)


def test_a_device_that_forgets_fetches_whole_models() -> None:
    policy = Policy(min_devices=4, quorum=4, soft_deadline_s=6 * HOUR, hard_deadline_s=9 * HOUR)
    up = Availability(up_s=600.0, down_s=3000.0, regular=True)
    chosen = settings(rounds=policy, stop=StopWhen(rounds=8), encoding=encoding("safe"))
    slow = Hardware(setup_s=200.0)
    keeping, forgetting = (
        virtual(chosen, World(replace(up, forgets=forgets), slow), devices=30).traffic
        for forgets in (False, True)
    )
    assert forgetting.bytes_down - forgetting.bytes_calls > 1.1 * (keeping.bytes_down - keeping.bytes_calls)


def test_an_empty_battery_lets_rounds_pass_until_it_is_charged() -> None:
    battery = Battery(capacity_j=100.0, daily_j=200.0, level=0.5, train_w=1.0, radio_w=0.0)
    world = World(hardware=Hardware(1.0), battery=battery)
    policy = Policy(min_devices=1, quorum=1, soft_deadline_s=HOUR, hard_deadline_s=HOUR)
    simulation = virtual(settings(rounds=policy, stop=StopWhen(rounds=20)), world, devices=1)
    rows = simulation.rows
    assert [row.accepted for row in rows[:3]] == [1, 1, 1]  # 24 joules each: after three of them it has 28
    assert rows[3].outcome.startswith("abandoned")
    assert rows[0].joules == pytest.approx(24)
    a_day = sum(row.joules for row in rows if row.hours > 24) / (simulation.clock.now / HOUR / 24 - 1)
    assert a_day == pytest.approx(200, rel=0.1)
    assert simulation.power.charge(0, simulation.clock.now) >= 100 * 0.5 - 24


def test_who_is_too_slow_trains_in_vain() -> None:
    world = World(hardware=Hardware(1.0, spread=2.0))
    policy = Policy(min_devices=6, quorum=3, soft_deadline_s=15, hard_deadline_s=40)
    simulation = virtual(settings(rounds=policy, stop=StopWhen(rounds=6)), world)
    accepted, trained, dropped = (
        sum(getattr(row, name) for row in simulation.rows) for name in ("accepted", "trained", "dropped")
    )
    assert 0 < dropped <= trained - accepted <= dropped + 6
    assert all(row.accepted >= 3 for row in simulation.rows if row.outcome == "stepped")


def test_an_asynchronous_federation_takes_late_updates_too() -> None:
    world = World(hardware=Hardware(1.0, spread=1.5), link=Connection(0.1, cuts_per_hour=30))
    policy = Policy(min_devices=6, quorum=2, buffer=2, max_staleness=8)
    simulation = virtual(settings(rounds=policy, stop=StopWhen(rounds=30), encoding=Encoding()), world)
    assert [row.accepted for row in simulation.rows] == [2] * 30
    assert sum(row.late for row in simulation.rows) == 0
    assert max(row.staleness_max or 0 for row in simulation.rows) >= 2


def test_a_slow_link_is_left_behind_by_the_model_and_catches_up() -> None:
    policy = Policy(min_devices=6, quorum=1, soft_deadline_s=20, hard_deadline_s=60)
    world = World(link=Connection(0.5, down_kbit_s=0.1, spread=1.5))
    simulation = virtual(settings(rounds=policy, stop=StopWhen(rounds=12)), world)
    assert any(row.accepted < 6 for row in simulation.rows)
    assert simulation.rows[-1].outcome == "stepped"


def test_a_run_waits_for_devices_and_gives_up_in_the_end() -> None:
    nights = Availability(up_s=300.0, down_s=3000.0, night=1.0, night_from=2.0, night_to=4.0)
    chosen = settings(stop=StopWhen(rounds=1))
    simulation = virtual(chosen, World(nights))
    assert 1.5 < simulation.rows[0].hours < 4
    never = replace(nights, night=0.0, night_from=0.0, night_to=24.0)
    given_up = virtual(chosen, World(never))
    wanted = chosen.rounds.min_devices
    assert given_up.outcome.reason == (
        f"too few devices came in 30 days: 0 at most were seen at one time, min_devices is {wanted}; "
        "lower that, or have more devices"
    )
    assert given_up.rows == []
    assert "too few devices came in 2 days" in virtual(chosen, World(never), days=2.0).outcome.reason


def test_a_trainer_that_fails_costs_its_update_only() -> None:
    trainers = {f"device-{number}": ShiftTrainer(examples=4) for number in range(6)}
    trainers["device-3"].become = lambda model: model * np.float32(np.nan)
    chosen = settings(encoding=Encoding(), rule=preset("average"), training={"colour": 3})
    simulation = VirtualSimulation(chosen, roster=Dealt(Fleet(trainers, None, "")))
    simulation.run()
    assert {row.accepted for row in simulation.rows} == {5}
    assert simulation.model[0] == len(simulation.rows)


# --- data and attackers -----------------------------------------------------------------------------------------------


@pytest.fixture
def digits(tmp_path: Path) -> FleetTable:
    (tmp_path / "digits.py").write_text(
        "from fedmq.trainers.numpy import Mlp\n\ndef model():\n    return Mlp(784, (), classes=10)\n\n"
        "def data(device):\n    raise AssertionError\n"
    )
    return FleetTable(ModuleName(str(tmp_path / "digits.py")), data="mnist", devices=60, trainer="numpy")


def learned(table: FleetTable, world: World) -> VirtualSimulation:
    policy = Policy(fraction=0.3, min_devices=40)
    chosen = replace(settings(rounds=policy, stop=StopWhen(rounds=3)), fleet=table, encoding=Encoding())
    simulation = VirtualSimulation(replace(chosen, rule=preset("fedavg"), world=world))
    simulation.run()
    return simulation


def test_fleets_draw_their_data_and_learn_unless_attacked(digits: FleetTable) -> None:
    honest = learned(digits, World(data=Data(examples=20)))
    flipped = learned(digits, World(data=Data(examples=30), attackers=Attackers(0.9, LabelFlip())))
    turned = learned(digits, World(data=Data(examples=30), attackers=Attackers(0.3, SignFlip(9.0))))
    accuracies = [run.outcome.accuracy or 0.0 for run in (honest, flipped, turned)]
    assert accuracies[0] > 0.55
    assert max(accuracies[1:]) < 0.35
    assert honest.summary()["accuracy"] == accuracies[0]


@pytest.mark.parametrize("attackers", [None, Attackers(0.5, LabelFlip())], ids=["honest", "flipped"])
def test_an_engine_trains_on_what_devices_have_drawn(digits: FleetTable, attackers: Attackers | None) -> None:
    world = World(data=Data(examples=20, spread=0.5, turnover_days=1e-5), attackers=attackers)
    own, shared = (learned(replace(digits, engine=engine), world) for engine in ("trainer", "numpy"))
    np.testing.assert_allclose(shared.model, own.model, atol=2e-6)
    assert [row.accepted for row in shared.rows] == [row.accepted for row in own.rows]
    assert shared.outcome.accuracy == pytest.approx(own.outcome.accuracy)
    assert shared.model.tobytes() == learned(replace(digits, engine="numpy"), world).model.tobytes()


def test_an_engine_gives_each_device_what_is_its_own(digits: FleetTable) -> None:
    world = World(data=Data(examples=20, spread=1.0))
    chosen = SimulationSettings(replace(digits, engine="numpy"))
    roster = make_roster(chosen, Population(world))
    start = roster.first().initial()
    begun: Any = SimpleNamespace(start=start, settings={"batch_size": 8}, seed=1, pull=None)
    shares = [roster.trainer(device, 0.0) for device in range(12)]
    together = roster.train([(share, begun) for share in shares])
    for share, found in zip(shares, together, strict=True):
        assert found.examples == share.examples
        np.testing.assert_array_equal(found.vector, share.train(start, {"batch_size": 8}, seed=1).vector)


def test_what_no_data_can_be_drawn_from_is_refused(digits: FleetTable) -> None:
    attacked = World(attackers=Attackers(0.1, LabelFlip()))
    with pytest.raises(ConfigError, match=r"label_flip needs .* \[world.data\]"):
        make_roster(SimulationSettings(digits), Population(attacked))
    with pytest.raises(ConfigError, match=r"data = 'module': name a set"):
        make_roster(SimulationSettings(replace(digits, data="module")), Population(World(data=Data())))


def test_a_fleet_without_data_of_its_world_is_dealt_out(digits: FleetTable) -> None:
    table = replace(digits, devices=3, partition="iid")
    assert len(make_roster(SimulationSettings(table), Population(World())).trainers) == 3


# --- time -------------------------------------------------------------------------------------------------------------


def test_things_happen_in_order_and_once() -> None:
    clock, seen = Clock(), list[tuple[str, float]]()

    def note(word: str) -> None:
        seen.append((word, clock.now))

    for word, time in (("c", 3.0), ("a", 1.0), ("b", 2.0), ("again", 1.0), ("never", float("inf"))):
        clock.at(time, note, word)
    clock.at(2.5, note, "cancelled").cancel()
    while clock.step(2.9):
        pass
    assert seen == [("a", 1.0), ("again", 1.0), ("b", 2.0)]
    clock.at(0.0, note, "past")
    assert clock.step()
    assert seen[-1] == ("past", 2.0)
    assert clock.step()
    assert not clock.step()
