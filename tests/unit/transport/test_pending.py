from __future__ import annotations

import asyncio

import pytest

from fedmq.transport.pending import Patience, Pending

pytestmark = pytest.mark.looptime

PUBACK, SUBACK = 4, 9


class Watched:
    """Pending requests, and what was found late, when (seconds of virtual time), and after how long a patience."""

    def __init__(self, *, seconds: float = 10.0, slowest: float = 100.0) -> None:
        self.loop = asyncio.get_running_loop()
        self.begin = self.loop.time()
        self.late: list[tuple[str, float, float]] = []
        self.heard = self.begin
        self.pending = Pending(Patience(seconds, slowest, longest_s=60.0), self.note, lambda: self.heard)

    def note(self, what: str, patience_s: float) -> None:
        self.late.append((what, round(self.loop.time() - self.begin, 3), patience_s))
        self.pending.give_up()


async def test_an_answer_that_does_not_come_is_noticed_when_patience_ends() -> None:
    watched = Watched()
    answer = watched.pending.add(1, PUBACK, "the message")
    await asyncio.sleep(9.9)
    assert not answer.done()
    assert await answer is None
    assert watched.late == [("the message", 10.0, 10.0)]


async def test_what_is_answered_in_time_is_never_late() -> None:
    watched = Watched()
    for identifier in range(1, 30):
        answer = watched.pending.add(identifier, PUBACK, "the message")
        await asyncio.sleep(9.0)
        watched.pending.settle(PUBACK, identifier, (0,))
        assert await answer == (0,)
    await asyncio.sleep(100.0)
    assert watched.late == []
    assert len(watched.pending) == 0


async def test_the_watchdog_moves_on_to_the_next_oldest() -> None:
    watched = Watched()
    watched.pending.add(1, PUBACK, "first")
    await asyncio.sleep(4.0)
    second = watched.pending.add(2, SUBACK, "second")
    await asyncio.sleep(5.0)
    watched.pending.settle(PUBACK, 1, (0,))
    await second
    assert watched.late == [("second", 14.0, 10.0)]


async def test_patience_grows_with_all_bytes_under_way() -> None:
    watched = Watched()
    watched.pending.add(1, PUBACK, "large", size=1_000)
    watched.pending.add(2, PUBACK, "larger", size=2_000)
    assert watched.pending.under_way == 3_000
    watched.pending.settle(PUBACK, 1, (0,))
    assert watched.pending.under_way == 2_000
    await asyncio.sleep(39.9)
    assert watched.late == []
    await asyncio.sleep(0.2)
    assert watched.late == [("larger", 40.0, 40.0)]


async def test_a_request_that_is_due_before_an_older_one_is_noticed_first() -> None:
    watched = Watched()
    watched.pending.add(1, PUBACK, "large", size=9_000)
    watched.pending.add(2, PUBACK, "larger", size=90_000)
    watched.pending.settle(PUBACK, 2, (0,))
    watched.pending.settle(PUBACK, 1, (0,))
    await watched.pending.add(3, PUBACK, "small")
    assert watched.late == [("small", 10.0, 10.0)]


async def test_who_stopped_waiting_still_counts() -> None:
    landed: list[str] = []
    watched = Watched()
    for identifier in (1, 2):
        watched.pending.add(
            identifier, PUBACK, "the message", size=50, landed=lambda: landed.append("landed")
        ).cancel()
    watched.pending.settle(PUBACK, 1, (0,))
    assert landed == ["landed"]
    assert 1 not in watched.pending
    assert 2 in watched.pending
    await asyncio.sleep(11.1)
    assert watched.late == [("the message", 11.0, 11.0)]
    assert landed == ["landed"] * 2
    assert watched.pending.under_way == 0


async def test_an_answer_of_another_kind_is_none() -> None:
    watched = Watched()
    answer = watched.pending.add(1, SUBACK, "a subscription")
    watched.pending.settle(PUBACK, 1, (0,))
    assert not answer.done()
    watched.pending.settle(SUBACK, 1, (1, 0x87))
    assert await answer == (1, 0x87)


async def test_giving_up_answers_everybody_and_ends_the_watch() -> None:
    watched = Watched()
    answers = [watched.pending.add(identifier, PUBACK, "the message") for identifier in (1, 2, 3)]
    watched.pending.give_up()
    watched.pending.give_up()
    assert await asyncio.gather(*answers) == [None] * 3
    await asyncio.sleep(100.0)
    assert watched.late == []


async def test_a_broker_that_sends_all_the_while_is_slow_and_not_dead() -> None:
    watched = Watched()
    answer = watched.pending.add(1, PUBACK, "behind a whole model")
    for _ in range(5):
        await asyncio.sleep(8.0)
        watched.heard = watched.loop.time()
    assert not watched.late
    assert await answer is None
    assert watched.late == [("behind a whole model", 50.0, 10.0)], "ten seconds after the last byte"


async def test_an_answer_that_a_talkative_broker_owes_is_not_awaited_for_ever() -> None:
    watched = Watched()
    watched.pending.add(1, PUBACK, "the message")
    for _ in range(20):
        await asyncio.sleep(4.0)
        watched.heard = watched.loop.time()
    assert watched.late == [("the message", 60.0, 10.0)]
