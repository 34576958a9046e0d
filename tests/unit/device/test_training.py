"""From a task to an update and what is kept of it, without an event loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from fedmq.algorithms import Clusters, Scaffold
from fedmq.codecs import parse
from fedmq.device.interface import Trained
from fedmq.device.keepsakes import MemoryKeepsakes
from fedmq.device.kept import End, Origin
from fedmq.device.outbox import MemoryOutbox, Stored
from fedmq.device.training import Training
from fedmq.errors import ConfigError, Refused
from fedmq.protocol.messages import DELTA, Setting, Task, TaskKind, Update
from fedmq.protocol.seeds import update_seed
from fedmq.testing.federation import ShiftTrainer
from fedmq.trainers.numpy import Mlp, NumpyTrainer
from fedmq.vectors import Vector
from fedmq.wire.envelope import decode

RUN = b"run-0001"
MODEL = Mlp(3, classes=2)
LAYOUT = Scaffold().extend(MODEL.layout)
TRAINING: dict[str, Setting] = {"epochs": 2, "learning_rate": 0.1}


def trainer() -> NumpyTrainer:
    chance = np.random.default_rng(2)
    return NumpyTrainer(MODEL, chance.normal(size=(20, 3)), chance.integers(0, 2, 20))


SCAFFOLD: dict[str, Setting] = {**TRAINING, "algorithm": "scaffold"}


def task(training: dict[str, Setting], codec: str = "float32", update_bytes: int = 9999) -> Task:
    return Task(
        RUN, 3, 3, TaskKind.TRAIN, 7, MODEL.layout.digest, bytes(16), 1.0, 60.0, codec, update_bytes, training
    )


def whole(seed: int = 0) -> Vector:
    return np.random.default_rng(seed).normal(size=LAYOUT.size).astype(np.float32)


class Bench:
    def __init__(self) -> None:
        self.outbox, self.keepsakes = MemoryOutbox(), MemoryKeepsakes()
        self.training = Training("device", trainer(), self.outbox, self.keepsakes)


@pytest.mark.parametrize("codec", ["float32", "int8"])
def test_scaffold_trains_sends_and_keeps(codec: str) -> None:
    bench, model = Bench(), whole()
    asked = task(SCAFFOLD, codec)
    stored = bench.training.answer(asked, model)
    assert bench.outbox.get(stored.update) == stored.body
    update = decode(stored.body, Update)
    seed = update_seed(RUN, 3, update.update)
    delta = parse(codec).decode(update.sections[DELTA], LAYOUT.sizes, seed=seed)
    assert bench.keepsakes.waiting() == {stored.update: Origin(RUN, 3, 7)}
    bench.keepsakes.settle(stored.update, End.MOVED)
    kept = bench.keepsakes.kept(RUN)["scaffold.control"]
    assert (
        kept.tobytes() == delta[MODEL.layout.size :].tobytes()
    )  # what the aggregator decodes, to the last bit
    size = MODEL.layout.size
    reach = 2 * 1 * 0.1  # two epochs of one batch
    np.testing.assert_allclose(
        kept, -delta[:size] / reach - model[size:], atol=1e-5 if codec == "float32" else 0.1
    )


def test_what_is_kept_steers_the_next_training() -> None:
    """With c_i = c, the second training is as if there were no control at all."""
    bench, model = Bench(), whole()
    plain = decode(bench.training.answer(task(TRAINING), model[: MODEL.layout.size]).body, Update)
    bench.keepsakes.put(Origin(RUN, 2, 6), b"update-1", {"scaffold.control": model[MODEL.layout.size :]})
    bench.keepsakes.settle(b"update-1", End.MOVED)
    other = decode(bench.training.answer(task(SCAFFOLD), model).body, Update)
    moved = np.frombuffer(other.sections[DELTA], "<f4")[: MODEL.layout.size]
    np.testing.assert_allclose(moved, np.frombuffer(plain.sections[DELTA], "<f4"), atol=1e-6)
    another = Training("device", trainer(), MemoryOutbox(), MemoryKeepsakes())
    free = decode(another.answer(task(SCAFFOLD), model).body, Update)
    assert np.abs(np.frombuffer(free.sections[DELTA], "<f4")[: MODEL.layout.size] - moved).max() > 0.01


# --- error feedback

PLAIN = MODEL.layout.size
LOST = "feedback | float16"


def sent(bench: Bench, stored: Stored, codec: str, sizes: tuple[int, ...]) -> Vector:
    """Return the delta that the aggregator decodes."""
    data = decode(stored.body, Update).sections[DELTA]
    return parse(codec).decode(data, sizes, seed=update_seed(RUN, stored.round, stored.update))


def at(round_: int, codec: str, training: dict[str, Setting] = TRAINING) -> Task:
    return replace(task(training, codec), round=round_, oldest=round_, model=round_)


def test_what_a_codec_lost_is_in_the_next_update() -> None:
    bench, free, model = Bench(), Bench(), whole()[:PLAIN]
    deltas = [
        sent(free, free.training.answer(at(r, "float32"), model), "float32", MODEL.layout.sizes)
        for r in (3, 4)
    ]
    first = bench.training.answer(at(3, LOST), model)
    (piece,) = bench.keepsakes.owed(RUN)
    lost = deltas[0] - sent(bench, first, LOST, MODEL.layout.sizes)
    assert piece.vector.tobytes() == lost.tobytes()
    assert np.abs(lost).max() > 0
    second = bench.training.answer(at(4, LOST), model)
    (piece,) = bench.keepsakes.owed(RUN)
    assert (
        piece.vector.tobytes() == (deltas[1] + lost - sent(bench, second, LOST, MODEL.layout.sizes)).tobytes()
    )
    assert piece.round == 4


def test_an_update_that_came_late_is_in_the_next_less_what_has_aged() -> None:
    bench, free, model = Bench(), Bench(), whole()[:PLAIN]
    line = "feedback(0.5) | float32"
    first = bench.training.answer(at(3, line), model)
    bench.keepsakes.settle(first.update, End.RETURNED)
    second = bench.training.answer(at(5, line), model)
    one, two = (
        sent(free, free.training.answer(at(r, "float32"), model), "float32", MODEL.layout.sizes)
        for r in (3, 5)
    )
    assert sent(bench, second, line, MODEL.layout.sizes).tobytes() == (np.float32(0.25) * one + two).tobytes()


def test_the_same_history_leaves_the_same_bytes() -> None:
    model = whole()[:PLAIN]
    benches = [Bench(), Bench()]
    for bench in benches:
        for round_ in (3, 4, 6):
            stored = bench.training.answer(at(round_, "feedback(0.9) | int8"), model)
            bench.keepsakes.settle(stored.update, End.RETURNED if round_ == 3 else End.MOVED)
    one, two = ([piece.vector.tobytes() for piece in bench.keepsakes.owed(RUN)] for bench in benches)
    assert one == two


def test_a_round_that_is_trained_again_counts_once() -> None:
    """The power went when the residual was written, and the update was not in the outbox yet."""
    bench, model = Bench(), whole()[:PLAIN]
    lost = bench.training.answer(at(3, LOST), model)
    bench.outbox.forget(lost.update)
    again = bench.training.answer(at(3, LOST), model)
    assert list(bench.keepsakes.waiting()) == [again.update]
    one, two = (sent(bench, stored, LOST, MODEL.layout.sizes) for stored in (lost, again))
    np.testing.assert_allclose(one, two, rtol=1e-3)


def test_an_update_in_the_outbox_is_not_taken_back() -> None:
    bench, model = Bench(), whole()[:PLAIN]
    first = bench.training.answer(at(3, LOST), model)
    second = bench.training.answer(at(3, LOST), model)
    assert set(bench.keepsakes.waiting()) == {first.update, second.update}


def test_scaffolds_control_is_not_fed_back() -> None:
    """What its codec lost is in the next change anyhow: the control variate is short of it."""
    bench, model = Bench(), whole()
    stored = bench.training.answer(at(3, "feedback | int8", SCAFFOLD), model)
    (piece,) = bench.keepsakes.owed(RUN)
    assert np.abs(piece.vector[:PLAIN]).max() > 0
    assert not piece.vector[PLAIN:].any()
    bench.keepsakes.settle(stored.update, End.RETURNED)
    back = next(piece for piece in bench.keepsakes.owed(RUN) if piece.update)
    assert back.vector[:PLAIN].any()
    assert not back.vector[PLAIN:].any()


@pytest.mark.parametrize("codec", [LOST, "float16"])
def test_a_device_that_changes_its_cluster_sends_nothing_for_the_old_one(codec: str) -> None:
    mine = trainer()
    held = NumpyTrainer(MODEL, mine._x, mine._y, held_out=(mine._x, mine._y))
    keepsakes = MemoryKeepsakes()
    training = Training("device", held, MemoryOutbox(), keepsakes)
    settings: dict[str, Setting] = {**TRAINING, "algorithm": "clusters", "algorithm.models": 2}
    sizes = Clusters(2).extend(MODEL.layout).sizes
    model = np.zeros(2 * PLAIN, np.float32)
    training.answer(at(3, codec, settings), model)
    model[:PLAIN], model[PLAIN:] = 100 * whole(1)[:PLAIN], 0.01  # now the second is the better one
    stored = training.answer(at(4, codec, settings), model)
    delta = sent(Bench(), stored, codec, sizes)
    assert not delta[:PLAIN].any()
    assert delta[PLAIN:].any()
    if codec == LOST:
        (piece,) = keepsakes.owed(RUN)
        assert piece.vector[:PLAIN].any()


def test_differences_send_what_is_not_expected() -> None:
    bench, model = Bench(), whole()[:PLAIN]
    settings: dict[str, Setting] = {**TRAINING, "algorithm": "differences", "algorithm.rate": 0.5}
    first = bench.training.answer(at(3, "float32", settings), model)
    bench.keepsakes.settle(first.update, End.MOVED)
    one = sent(bench, first, "float32", MODEL.layout.sizes)
    expected = bench.keepsakes.kept(RUN)["differences.expected"]
    assert expected.tobytes() == (np.float32(0.5) * one).tobytes()
    second = sent(
        bench, bench.training.answer(at(3, "float32", settings), model), "float32", MODEL.layout.sizes
    )
    np.testing.assert_allclose(second, one - expected, atol=1e-6)


def test_a_training_that_fails_leaves_the_residual_as_it_was() -> None:
    bench, model = Bench(), whole()[:PLAIN]
    bench.training.answer(at(3, LOST), model)
    before = [piece.vector.tobytes() for piece in bench.keepsakes.owed(RUN)]
    with pytest.raises(Refused, match="diverged"):
        bench.training.answer(at(4, LOST), np.full_like(model, np.nan))
    with pytest.raises(Refused, match="the task allows 50"):
        bench.training.answer(replace(at(4, LOST), update_bytes=50), model)
    assert [piece.vector.tobytes() for piece in bench.keepsakes.owed(RUN)] == before


def test_without_an_algorithm_nothing_is_kept() -> None:
    bench = Bench()
    bench.training.answer(task(TRAINING), whole()[: MODEL.layout.size])
    assert not bench.keepsakes.waiting()


@pytest.mark.parametrize(
    ("training", "size", "says"),
    [
        ({"algorithm": "scaffold"}, MODEL.layout.size, "holds 8 numbers, scaffold wants 16"),
        ({}, LAYOUT.size, "holds 16 numbers, plain wants 8"),
        ({"algorithm": "moon"}, LAYOUT.size, "knows plain"),
        ({"algorithm": "scaffold", "learning_rate": 0.0}, LAYOUT.size, "above zero"),
    ],
)
def test_tasks_that_do_not_fit_are_declined(training: dict[str, Setting], size: int, says: str) -> None:
    bench = Bench()
    with pytest.raises(Refused, match=says):
        bench.training.answer(task(training), whole()[:size])
    assert not bench.outbox.entries()
    assert not bench.keepsakes.waiting()


def test_divergence_and_length_are_declined_and_leave_nothing() -> None:
    bench, model = Bench(), whole()
    with pytest.raises(Refused, match="diverged"):
        bench.training.answer(task(SCAFFOLD), np.full_like(model, np.nan))
    with pytest.raises(Refused, match="the task allows 50"):
        bench.training.answer(task(SCAFFOLD, update_bytes=50), model)
    with pytest.raises(ConfigError, match="'epoch'"):
        bench.training.answer(task({"epoch": 1}), model[: MODEL.layout.size])
    assert not bench.outbox.entries()
    assert not bench.keepsakes.waiting()


def test_a_trainer_that_takes_no_pull_declines_what_steers() -> None:
    class Plain(ShiftTrainer):
        def train(self, model: Vector, settings: Mapping[str, Setting], *, seed: int) -> Trained:  # type: ignore[override]
            return super().train(model, settings, seed=seed)

    training = Training("device", Plain(MODEL.layout), MemoryOutbox(), MemoryKeepsakes())
    with pytest.raises(Refused, match="shift cannot be steered"):
        training.answer(task(SCAFFOLD), whole())
    assert training.answer(task(TRAINING), whole()[: MODEL.layout.size]).body
