from __future__ import annotations

import pytest

from fedmq.protocol.ledger import MOST_NAMES, REMEMBERED_ROUNDS, Entry, Ledger, Standing, Tally
from fedmq.protocol.messages import Facts, Verdict
from fedmq.wire import limits


@pytest.mark.parametrize("verdict", [Verdict.ACCEPTED, Verdict.DUPLICATE, Verdict.LATE, Verdict.REJECTED])
def test_each_verdict_has_its_count_and_all_are_received(verdict: Verdict) -> None:
    tally = Tally()
    tally.count(verdict, "why")
    assert getattr(tally, verdict.name.lower()) == 1
    assert tally.received == 1
    assert bool(tally.reasons) is (verdict is Verdict.REJECTED)


def test_refusals_are_counted_by_kind_without_their_figures() -> None:
    tally = Tally()
    tally.count(Verdict.REJECTED, "12 values came, 40 were wanted")
    tally.count(Verdict.REJECTED, "99 values came, 10 were wanted")
    assert tally.reasons == {"## values came, ## were wanted": 2}


def test_devices_cannot_fill_memory_with_reasons() -> None:
    tally = Tally()
    for letter in map(chr, range(ord("a"), ord("a") + MOST_NAMES + 10)):
        tally.count(Verdict.REJECTED, letter * 1000)
    assert len(tally.reasons) == MOST_NAMES == limits.METRICS, "a report with more cannot be sent"
    assert tally.reasons["other"] == 11
    assert max(map(len, tally.reasons)) == 120


def test_devices_cannot_fill_memory_with_metrics() -> None:
    tally = Tally()
    tally.add(Facts(1, 1, {f"m{number}": 1.0 for number in range(MOST_NAMES + 10)}))
    assert len(tally.metrics) == MOST_NAMES


def test_metrics_weigh_by_what_was_held_out() -> None:
    tally = Tally()
    tally.add(Facts(100, 1, {"accuracy": 1.0, "held_out": 30.0}))
    tally.add(Facts(900, 1, {"accuracy": 0.0, "held_out": 10.0}))
    assert tally.metrics == {"accuracy": 0.75, "held_out": 40.0}
    assert tally.examples == 1000


def test_metrics_weigh_by_examples_otherwise() -> None:
    tally = Tally()
    tally.add(Facts(10, 1, {"loss": 1.0}))
    tally.add(Facts(30, 1, {"loss": 2.0}))
    assert tally.metrics == {"loss": 1.75}


def test_metrics_without_weight_are_left_out() -> None:
    tally = Tally()
    tally.add(Facts(0, 0, {"loss": 1.0}))
    assert tally.metrics == {}


def test_a_report_begins_a_new_tally() -> None:
    ledger = Ledger()
    ledger.tally.count(Verdict.LATE)
    assert ledger.report().late == 1
    assert ledger.report().late == 0


def test_settling_counts_once_and_ends_absorbing() -> None:
    ledger = Ledger()
    ledger.entries["ada", 1] = Entry(b"u")
    ledger.absorbing_begins("ada", 1)
    assert (ledger.absorbing, ledger.settled("ada", 1), ledger.unsettled()) == (
        1,
        False,
        [(("ada", 1), b"u")],
    )
    ledger.settle("ada", 1, Verdict.ACCEPTED)
    assert (ledger.absorbing, ledger.settled("ada", 1), ledger.unsettled(), ledger.accepted) == (
        0,
        True,
        [],
        1,
    )
    ledger.open()
    assert (ledger.entries, ledger.accepted) == ({}, 0)


def closed(rounds: int) -> Ledger:
    ledger = Ledger()
    for number in range(1, rounds + 1):
        ledger.open()
        ledger.entries["ada", number] = Entry(b"u%d" % number)
        ledger.settle("ada", number, Verdict.REJECTED, "why")
        ledger.close(number)
    return ledger


def test_the_last_rounds_are_remembered_and_older_ones_forgotten() -> None:
    ledger = closed(REMEMBERED_ROUNDS + 2)
    known = [number for number in range(1, REMEMBERED_ROUNDS + 3) if ledger.remembered(number, "ada")]
    assert known == list(range(3, REMEMBERED_ROUNDS + 3))
    assert [ledger.closed(number) for number in (2, 3)] == [False, True]


def test_a_snapshot_brings_the_verdicts_back() -> None:
    ledger = closed(2)
    again = Ledger(ledger.snapshot())
    assert again.remembered(2, "ada") == Entry(b"u2", Standing.SETTLED, Verdict.REJECTED, "why")
    assert again.snapshot() == ledger.snapshot()


def test_a_snapshot_can_hold_the_round_that_is_about_to_close() -> None:
    ledger = closed(1)
    ledger.open()
    ledger.entries["bob", 2], ledger.entries["eve", 2] = Entry(b"v"), Entry(b"w")
    ledger.settle("bob", 2, Verdict.ACCEPTED)
    assert ledger.snapshot(2)[2] == {"bob": (b"v", Verdict.ACCEPTED, "")}
    assert 2 not in ledger.snapshot()


def test_an_update_of_an_earlier_round_is_remembered_under_its_own() -> None:
    ledger = closed(3)
    ledger.open()
    ledger.entries["bob", 2], ledger.entries["eve", 4] = Entry(b"v"), Entry(b"w")
    ledger.settle("bob", 2, Verdict.ACCEPTED)
    assert ledger.snapshot(4)[2] == {
        "ada": (b"u2", Verdict.REJECTED, "why"),
        "bob": (b"v", Verdict.ACCEPTED, ""),
    }
    assert ledger.snapshot(4)[4] == {}
    ledger.close(4)
    assert (ledger.closed(4), ledger.settled("bob", 2), ledger.settled("bob", 4)) == (True, True, False)
    assert ledger.find("eve", 4) is None


def test_what_is_whole_comes_first_among_the_unsettled_and_has_its_turn_once() -> None:
    ledger = Ledger()
    ledger.entries["ada", 1], ledger.entries["bob", 1] = Entry(b"u"), Entry(b"v")
    ledger.ready("bob", 1)
    assert ledger.unsettled() == [(("bob", 1), b"v"), (("ada", 1), b"u")]
    assert [ledger.next_ready(), ledger.next_ready()] == [("bob", 1), None]


def test_staleness_is_summed_and_its_highest_kept() -> None:
    tally = Tally()
    for staleness in (3, 1):
        tally.add(Facts(1), staleness)
    assert (tally.staleness, tally.stalest) == (4, 3)


def test_what_the_open_round_has_taken_are_its_accepted_updates() -> None:
    ledger = closed(1)
    ledger.open()
    for device, verdict in (("ada", Verdict.ACCEPTED), ("bob", Verdict.REJECTED)):
        ledger.entries[device, 2] = Entry(device.encode())
        ledger.settle(device, 2, verdict)
    assert ledger.taken() == [("ada", b"ada")]
