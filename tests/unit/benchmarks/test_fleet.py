"""What `benchmarks.fleet` makes of what it sees, and that it runs."""

import json
import sys

import pytest

from benchmarks import fleet
from benchmarks._processes import Taken
from benchmarks.fleet import Mark, Measured, goals


def mark(time: float, **cpu_s: float) -> Mark:
    names = {"main": 1, "worker": 2, "mosquitto": 3}
    return Mark(
        time, {names[name]: Taken(name, spent, 10 * spent, spent, spent / 4) for name, spent in cpu_s.items()}
    )


def test_processor_time_is_what_was_taken_between_the_first_mark_and_the_last() -> None:
    marks = [mark(10, main=1.0, worker=2.0, mosquitto=0.5), mark(14, main=1.4, worker=3.0, mosquitto=0.7)]
    found = fleet._measured(100, [marks[0], marks[0], marks[1]], 1)
    assert found.seconds == 2
    assert found.rate == 50
    assert found.parts_ms == pytest.approx(
        {
            "aggregator: messages": 0.5,
            "aggregator: computing": 1.5,
            "devices: messages": 1.25,
            "devices: computing": 3.75,
            "broker": 1.0,
        }
    )
    assert found.cpu_ms == pytest.approx(8.0)
    assert (found.rss_mb, found.aggregator_mb, found.growth_mb) == pytest.approx((51.0, 14.0, 4.0))
    alone = fleet._measured(100, [mark(0, main=1, mosquitto=0), mark(1, main=2, mosquitto=0)], 1)
    assert alone.parts_ms == pytest.approx(
        {"devices and aggregator: messages": 2.5, "devices and aggregator: computing": 7.5, "broker": 0.0}
    )


def test_flowers_processor_time_counts_inside_its_timed_rounds_only() -> None:
    looks = [(at, mark(at, main=at, worker=2 * at).taken) for at in (0.0, 5.0, 6.0, 8.0, 20.0)]
    found = fleet._of_flower(10, [(4.0, 6.0), (6.5, 8.5)], looks)
    assert found.seconds == 2
    assert found.parts_ms == pytest.approx({"all": 675.0})  # three cores for 4.5 s and 20 device-rounds


def test_a_round_counts_only_where_everyone_took_part() -> None:
    row = {"round": 3, "accepted": 20, "rejected": 0}
    assert fleet._full(json.dumps(row), 20)
    assert not fleet._full(json.dumps(row), 21)
    assert not fleet._full(json.dumps({"rounds": 3, "accepted": 20}), 20)


def test_goals_take_the_better_way_of_each_size() -> None:
    def one(devices: int, seconds: float) -> Measured:
        return Measured(devices, seconds, {"all": 2.0 * devices**0.1}, 0.0, 500.0, 0.0, 0.0)

    found = {(1_000, 1): one(1_000, 4.0), (1_000, 2): one(1_000, 0.5), (10_000, 2): one(10_000, 30.0)}
    told = {goal.name: goal for goal in goals(found, {1_000: one(1_000, 30.0)})}
    assert told["1,000 devices: device-rounds/s"].met
    assert told["1,000 devices: times Flower's"].value == pytest.approx(60)
    assert not told["10,000 devices: seconds a round"].met
    assert told["dearest device-round to cheapest over sizes, in 2"].value == pytest.approx(10**0.1)


@pytest.mark.slow
@pytest.mark.broker
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_it_runs(capsys: pytest.CaptureFixture[str]) -> None:
    fleet.main(["--quick", "--json", "--devices", "20"])
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["figures"]["20 in 2: device-rounds/s"] > 0
    assert told["figures"]["20 in 1: processor ms"] > 0
    assert told["figures"]["20 in 1: resident MB"] > 20
