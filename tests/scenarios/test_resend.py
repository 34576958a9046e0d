"""Updates in many chunks over links that break in the middle of them: they come through, and little goes twice."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmq.protocol import coordination as co
from fedmq.protocol import participation as pa
from fedmq.protocol.coordinator import Coordinator
from fedmq.protocol.participant import LONGEST_PAUSE_S, Participant
from fedmq.protocol.policy import Policy
from fedmq.protocol.spans import EVERYTHING
from fedmq.testing.world import Parts, World
from fedmq.testing.world_aggregator import AggregatorShell, SimulatedJournal
from fedmq.testing.world_broker import Question
from fedmq.testing.world_faults import CALM, Faults, Setting

STORM_S = 200.0


def setting(chunks: int, faults: Faults) -> Setting:
    """Return a world whose rounds end when everybody's update is in, and not before."""
    policy = Policy(min_devices=3, quorum=3, soft_deadline_s=1e5, hard_deadline_s=1e5)
    return Setting(devices=3, policy=policy, chunks=chunks, keeps_replica=True, faults=faults)


def heals(world: World) -> bool:
    """Let a storm pass; tell whether the round that is open then ends soon after."""
    world.begin()
    world.run_until(STORM_S)
    world.faults = CALM
    for name, shell in world.shells.items():
        if not shell.alive:
            world._revive(name)
    seen = len(world.invariants.models)
    return world.run_until(world.now + 3 * LONGEST_PAUSE_S, lambda: len(world.invariants.models) > seen)


storms = st.builds(
    Faults,
    drop=st.sampled_from([0.0, 0.1, 0.5]),
    duplicate=st.sampled_from([0.0, 0.3]),
    stray=st.sampled_from([0.0, 0.1]),
    cut_every_s=st.sampled_from([2.0, 5.0, 20.0]),
    crash_every_s=st.sampled_from([0.0, 40.0]),
    restart_every_s=st.sampled_from([0.0, 15.0, 40.0]),
    rollback_every_s=st.sampled_from([0.0, 60.0]),
    disk_full=st.sampled_from([0.0, 0.2]),
)


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10**6), chunks=st.sampled_from([1, 2, 30, 80]), faults=storms)
def test_an_update_comes_through_once_the_links_heal(seed: int, chunks: int, faults: Faults) -> None:
    assert heals(World(seed, setting=setting(chunks, faults)))


class KnowsNoQuestions(AggregatorShell):
    """An aggregator that leaves every question unanswered."""

    def _answer(self, question: Question) -> None:
        pass


class OverlooksTheLastPiece(AggregatorShell):
    """Names all that is missing but the last piece."""

    def _answer(self, question: Question) -> None:
        journal, update = self.disk.journal, question.update
        missing = journal.missing(update) if journal is not None else ()
        if missing:
            but_one = (*missing[:-1], missing[-1] - 1)
            self.tell(co.Searched(update.device, update.round, update.id, but_one, question.number))


class NamesNothing(Coordinator):
    """Says that something is missing, never what."""

    def _searched(self, event: co.Searched) -> None:
        if event.missing:
            super()._searched(co.Searched(event.device, event.round, event.update, (1, 0), event.question))


class AsksForEver(Participant):
    """Relies on being answered."""

    def _sent(self, update: bytes, now: float) -> None:
        super()._sent(update, now)
        if update in self.outbox:
            self.outbox[update].missing = ()


TORN = Faults(cut_every_s=4.0, drop=0.2)


def healed(parts: Parts, seeds: int = 4) -> int:
    return sum(heals(World(seed, setting=setting(30, TORN), parts=parts)) for seed in range(seeds))


def test_an_aggregator_that_knows_no_questions_gets_everything() -> None:
    assert healed(Parts(aggregator=KnowsNoQuestions)) == 4


@pytest.mark.parametrize(
    "parts",
    [
        Parts(aggregator=OverlooksTheLastPiece),
        Parts(coordinator=NamesNothing),
        Parts(aggregator=KnowsNoQuestions, participant=AsksForEver),
    ],
    ids=["overlooks the last piece", "names nothing", "asks for ever"],
)
def test_a_planted_fault_keeps_updates_out(parts: Parts) -> None:
    assert healed(parts) < 4


class SendsEverythingAgain(Participant):
    """Begins at the first chunk each time, as fedmq did before it asked."""

    def _send_what_is_due(self, now: float) -> None:
        before = len(self._out)
        super()._send_what_is_due(now)
        self._out[before:] = [
            pa.Send(effect.round, effect.update, EVERYTHING) if isinstance(effect, pa.Send) else effect
            for effect in self._out[before:]
        ]


def pieces_for_each(parts: Parts, chunks: int = 40) -> float:
    """Return how many pieces are sent for each that is counted, over links that are cut in mid-transfer."""
    sent = counted = 0
    for seed in range(3):
        world = World(seed, setting=setting(chunks, Faults(cut_every_s=3.0)), parts=parts)
        world.begin()
        world.run_until(2 * STORM_S)
        sent += world.broker.pieces
        counted += chunks * sum(map(len, world.invariants.models.values()))
    return sent / counted


def test_hardly_anything_is_sent_twice() -> None:
    ours, theirs = pieces_for_each(Parts()), pieces_for_each(Parts(participant=SendsEverythingAgain))
    assert ours < 1.1
    assert theirs > 1.25


def test_in_good_weather_nobody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Question] = []
    monkeypatch.setattr(AggregatorShell, "_search", lambda self, question: asked.append(question))
    monkeypatch.setattr(SimulatedJournal, "missing", None)
    world = World(1, setting=setting(40, CALM))
    world.begin()
    world.run_until(200.0)
    assert len(world.invariants.models) > 5
    assert asked == []
    in_transit = 3 * 40
    assert world.broker.pieces <= 40 * 3 * len(world.invariants.models) + in_transit
