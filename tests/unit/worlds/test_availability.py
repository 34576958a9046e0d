"""When devices are up: the shares that were asked for, spells that fit together, and traces from files."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmq.errors import ConfigError
from fedmq.worlds import WORLDS, Availability, Population, World
from fedmq.worlds.availability import DAY_S, HOUR_S, Cycles, Spells
from fedmq.worlds.traces import Trace, read_trace

SESSIONS = Availability(up_s=1000.0, down_s=3000.0)
DUTY = Availability(up_s=600.0, down_s=21_000.0, regular=True)
NIGHTS = Availability(up_s=300.0, down_s=10_500.0, night=1.0, zones=(0.0, 0.0, 8.0))
EVERYONE = np.arange(3000)


def spells(availability: Availability) -> Spells:
    return Cycles(availability, seed=1)


@pytest.mark.parametrize(
    "availability", [SESSIONS, DUTY, NIGHTS, Availability(300, 900, night=0.0, night_from=1)]
)
@given(device=st.integers(0, 10**6), time=st.floats(0, 1e7))
@settings(max_examples=25, deadline=None)
def test_spells_agree_with_who_is_up_and_join(availability: Availability, device: int, time: float) -> None:
    cycles = spells(availability)
    for _ in range(4):
        spell = cycles.spell(device, time)
        assert spell.until > time
        middle = (time + min(spell.until, time + 1e6)) / 2
        assert cycles.up(np.array([device]), middle)[0] == spell.up
        assert cycles.spell(device, middle).up == spell.up
        then = cycles.spell(device, spell.until)
        assert then.up != spell.up
        time = spell.until


@pytest.mark.parametrize("availability", [SESSIONS, DUTY])
def test_devices_are_up_for_their_share_of_the_time(availability: Availability) -> None:
    up = [spells(availability).up(EVERYONE, time).mean() for time in np.linspace(1e5, 2e5, 20)]
    assert np.mean(up) == pytest.approx(availability.day, abs=0.02)


def test_sessions_last_as_long_as_asked_on_average_and_differ() -> None:
    cycles, lengths = Cycles(SESSIONS, 1), []
    for device in range(400):
        begin = cycles.spell(device, 1e5).until
        spell = cycles.spell(device, begin)
        if spell.up:
            lengths.append(spell.until - begin)
    assert np.mean(lengths) == pytest.approx(1000, rel=0.2)
    assert np.std(lengths) > 500


def test_a_duty_cycle_is_regular() -> None:
    cycles = spells(DUTY)
    begin = cycles.spell(5, cycles.spell(5, 0.0).until if cycles.spell(5, 0.0).up else 0.0).until
    for _ in range(5):
        assert cycles.spell(5, begin).until - begin == pytest.approx(600)
        assert cycles.spell(5, begin + 600).until - begin == pytest.approx(21_600)
        begin += 21_600


def test_nights_come_by_time_zone() -> None:
    cycles = Cycles(NIGHTS, 1)
    utc_night, far_night = (cycles.up(EVERYONE, 30 * DAY_S + hour * HOUR_S).mean() for hour in (2, 18.5))
    assert utc_night == pytest.approx(2 / 3, abs=0.05)
    assert far_night == pytest.approx(1 / 3, abs=0.05)


def test_another_seed_is_another_fleet_and_the_order_of_questions_is_none() -> None:
    times = [3e5, 1e5, 2e5]
    first = {time: Cycles(SESSIONS, 1).up(EVERYONE, time).tolist() for time in times}
    again = Cycles(SESSIONS, 1)
    assert {time: again.up(EVERYONE, time).tolist() for time in reversed(times)} == first
    assert Cycles(SESSIONS, 2).up(EVERYONE, 1e5).tolist() != first[1e5]
    assert Cycles(SESSIONS, 1).up(EVERYONE[::-1], 1e5).tolist() == first[1e5][::-1]


def test_devices_that_are_never_up_wait_for_ever() -> None:
    never = Availability(1.0, 99.0, night=0.0, night_from=0.0, night_to=24.0)
    assert Cycles(never, 1).spell(0, 5.0) == (False, math.inf)
    always = Availability(1.0, 99.0, night=1.0, night_from=0.0, night_to=24.0)
    assert Cycles(always, 1).spell(0, 5.0) == (True, math.inf)
    assert Population(World(always), 1).worked(0, 5.0, 9.0) == 14.0
    assert Population(World(never), 1).worked(0, 5.0, 9.0) == math.inf


def test_the_lab_is_always_up() -> None:
    lab = Population(WORLDS["lab"])
    assert lab.up(EVERYONE, 7.0).all()
    assert lab.spell(3, 7.0) == (True, math.inf)


def test_work_sleeps_when_its_device_does() -> None:
    population = Population(World(DUTY), 3)
    begin = population.spell(0, 30_000.0)
    start = begin.until if not begin.up else population.spell(0, begin.until).until
    assert population.worked(0, start, 100.0) == start + 100
    assert population.worked(0, start, 700.0) == pytest.approx(start + 21_600 + 100)
    assert population.worked(0, start - 5.0, 1300.0) == pytest.approx(start + 2 * 21_600 + 100)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"up_s": 0.0}, "up_s is 0.0; it must be above 0"),
        ({"down_s": math.inf}, "down_s is inf"),
        ({"night": 0.5}, "say down_s too"),
        ({"night": 1.5, "down_s": 1.0}, "night is 1.5; it must be a share"),
        ({"night_from": 25.0}, "night_from is 25.0; it must be an hour"),
        ({"zones": ()}, "zones is empty"),
        ({"zones": (0.0, 15.0)}, "zones has 15.0"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, float], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        Availability(**changes)  # type: ignore[arg-type]


# --- traces -----------------------------------------------------------------------------------------------------------

TEXT = "device,from_s,to_s\na,0,10\nb,5,20\na,15,40\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "trace.csv").write_text(TEXT)
    return tmp_path / "trace.csv"


def test_a_trace_is_followed_and_begins_anew(path: Path) -> None:
    population = Population(World(Availability(trace=path)), 1)
    assert population.up(np.array([0, 1, 2]), 7.0).tolist() == [True, True, True]
    assert population.up(np.array([0, 1, 2]), 12.0).tolist() == [False, True, False]
    assert population.up(np.array([0, 1, 2]), 42.0).tolist() == [True, False, True]
    assert population.spell(0, 7.0) == (True, 10.0)
    assert population.spell(0, 10.0) == (False, 15.0)
    assert population.spell(1, 0.0) == (False, 5.0)
    assert population.spell(1, 30.0) == (False, 45.0)
    assert population.spell(3, 47.0) == (True, 60.0)


@given(
    st.lists(st.lists(st.integers(1, 9), min_size=2, max_size=12), min_size=1, max_size=5), st.floats(0, 500)
)
@settings(max_examples=25, deadline=None)
def test_traces_agree_with_themselves(steps: list[list[int]], time: float) -> None:
    edges = [np.cumsum(own)[: len(own) // 2 * 2].reshape(-1, 2).tolist() for own in steps]
    trace = Trace([[(float(a), float(b)) for a, b in own] for own in edges])
    for device in range(len(edges) + 2):
        spell = trace.spell(device, time)
        assert spell.until > time
        assert trace.up(np.array([device]), time)[0] == spell.up


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "holds no session"),
        ("a,0,1\n", r"line 1: begins with \['a', '0', '1'\]; device,from_s,to_s was wanted"),
        ("device,from_s,to_s\n", "holds no session"),
        ("device,from_s,to_s\na,0\n", "line 2: has 2 fields"),
        ("device,from_s,to_s\na,0,x\n", "line 2: has 'x' where a time"),
        ("device,from_s,to_s\na,nan,1\n", "line 2: has 'nan'"),
        ("device,from_s,to_s\na,-1,1\n", "line 2: has '-1'"),
        ("device,from_s,to_s\na,3,3\n", "line 2: ends before it begins"),
        ("device,from_s,to_s\na,3,5\nb,1,2\na,4,6\n", "line 4: begins before 'a' was down"),
    ],
)
def test_what_is_no_trace_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "bad.csv").write_text(text)
    with pytest.raises(ConfigError, match=complaint):
        read_trace(tmp_path / "bad.csv")


def test_a_trace_has_bounds(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedmq.worlds.traces.MOST_SESSIONS", 2)
    with pytest.raises(ConfigError, match="line 4: is one session too many"):
        read_trace(path)
    with pytest.raises(ConfigError, match=r"cannot read the trace .*: No such file"):
        read_trace(path.parent / "none.csv")
