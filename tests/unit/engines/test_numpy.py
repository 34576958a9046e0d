"""The NumPy engine: the NumPy trainers' results, in stacks."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmq.descent import Pull
from fedmq.engines import Front, Job
from fedmq.engines.numpy import NumpyEngine, from_module
from fedmq.engines.numpy.blocks import Batches
from fedmq.engines.numpy.stacks import ROOM
from fedmq.engines.steps import Steps
from fedmq.errors import ConfigError, MisuseError
from fedmq.testing.trainer import CLASSES, INPUTS, Points, TrainerConformance, points
from fedmq.trainers.batches import Schedule
from fedmq.trainers.module import Supply
from fedmq.trainers.numpy import Mlp, NumpyTrainer

if TYPE_CHECKING:
    from pathlib import Path

    from fedmq.device.interface import Setting, Trained, Trainer

SIZES = (1, 3, 8, 9, 24, 25, 50, 70)
TOLERANCE = 2e-6


def trainers(momentum: float = 0.0) -> dict[str, NumpyTrainer]:
    """Eight devices of all sizes; 320 inputs, so that several steps fit into a block, and a round into several."""
    generator = np.random.Generator(np.random.Philox(1))
    model = Mlp(320, (24, 17), classes=5)

    def share(rows: int) -> tuple[np.ndarray, np.ndarray]:
        return generator.normal(scale=0.3, size=(rows, 320)).astype(np.float32), generator.integers(
            0, 5, rows
        )

    return {
        f"d{rows}": NumpyTrainer(model, *share(rows), held_out=share(4), momentum=momentum, seed=2)
        for rows in SIZES
    }


class TestConformance(TrainerConformance):
    def make(self, train: Points, held_out: Points | None) -> Trainer:
        model = Mlp(INPUTS, (8,), classes=CLASSES)
        held = None if held_out is None else (held_out.x, held_out.y)
        engine = NumpyEngine({"d": NumpyTrainer(model, train.x, train.y, held_out=held)})
        return Front(engine).trainer("d")


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize(
    "settings",
    [
        {"batch_size": 10, "learning_rate": 0.2},
        {"epochs": 3, "batch_size": 8, "max_steps": 7},
        {"epochs": 2, "batch_size": 16, "proximal": 0.3},
        {"epochs": 2, "batch_size": 1000},
    ],
)
def test_stacked_devices_get_what_they_would_alone(settings: dict[str, Setting], momentum: float) -> None:
    alone = trainers(momentum)
    engine = NumpyEngine(alone)
    jobs = [Job(name, engine.initial(), settings, seed) for seed, name in enumerate(alone)]
    for job, found in zip(jobs, engine.train(jobs), strict=True):
        wanted = alone[job.device].train(job.model, settings, seed=job.seed)
        assert found.vector == pytest.approx(wanted.vector, abs=TOLERANCE)
        assert (found.examples, found.steps) == (wanted.examples, wanted.steps)
        assert found.reach == pytest.approx(wanted.reach)
        assert found.metrics == pytest.approx(dict(wanted.metrics), abs=TOLERANCE)


@st.composite
def fleets(draw: st.DrawFn) -> tuple[NumpyEngine, list[Job]]:
    """Some devices of one model, and a job for each: all epochs in one block, in several, and a block for each step."""
    inputs, hidden = draw(st.sampled_from((5, 60, 250))), tuple(draw(st.lists(st.integers(1, 9), max_size=2)))
    model = Mlp(inputs, hidden, classes=draw(st.integers(1, 4)))
    generator = np.random.Generator(np.random.Philox(draw(st.integers(0, 999))))
    held = {}
    for device, rows in enumerate(draw(st.lists(st.integers(1, 70), min_size=1, max_size=4))):
        x = generator.normal(scale=inputs**-0.5, size=(rows, inputs)).astype(np.float32)
        held[f"d{device}"] = NumpyTrainer(model, x, generator.integers(0, model.classes, rows), seed=device)
    settings = {"epochs": draw(st.integers(1, 4)), "batch_size": draw(st.integers(1, 30))}
    settings |= draw(st.sampled_from(({}, {"max_steps": 3})))
    jobs = []
    for seed, (name, trainer) in enumerate(held.items()):
        count = draw(st.integers(0, 40))
        some = generator.integers(0, trainer.examples, count) if count else None
        jobs.append(Job(name, trainer.initial(), settings, seed, rows=some))
    return NumpyEngine(held), jobs


@settings(max_examples=40, deadline=None)
@given(fleets())
def test_any_fleet_gets_what_its_trainers_give_and_the_same_bits_alone(
    fleet: tuple[NumpyEngine, list[Job]],
) -> None:
    engine, jobs = fleet
    for job, found in zip(jobs, engine.train(jobs), strict=True):
        wanted = plain(engine, job)
        assert found.vector == pytest.approx(wanted.vector, abs=TOLERANCE)
        loss = found.metrics["train_loss"]  # equal scores may fall out either way by their rounding
        assert loss == pytest.approx(wanted.metrics["train_loss"], abs=1e-5)
        assert (found.examples, found.steps) == (wanted.examples, wanted.steps)
        assert engine.train([job])[0].vector.tobytes() == found.vector.tobytes()


def plain(engine: NumpyEngine, job: Job) -> Trained:
    """Return what the device's trainer gives, one step after the other."""
    trainer = engine._trainers[job.device]
    trainer = trainer if job.rows is None else trainer.picked(job.rows)
    return trainer.train(job.model, job.settings, seed=job.seed)


@pytest.mark.parametrize(
    ("devices", "settings", "size", "blocks"),
    [
        (("d8", "d8"), {"batch_size": 4}, 8, 1),
        (("d50",), {"batch_size": 10}, 30, 2),  # more examples than one epoch pays for
        (("d50",), {"batch_size": 10, "epochs": 2}, 50, 1),
        (("d70",), {"batch_size": 30, "epochs": 2}, 30, 6),  # a block for each step
    ],
)
def test_steps_share_a_block_where_that_pays(
    devices: tuple[str, ...], settings: dict[str, Setting], size: int, blocks: int
) -> None:
    everyone = trainers()
    few = [everyone[device] for device in devices]
    jobs = [Job(device, few[0].initial(), settings, 1) for device in devices]
    steps = Steps.of(jobs, [trainer.examples for trainer in few])
    epoch = Schedule(few[0].examples, jobs[0].chosen)
    found = list(Batches(jobs, few, steps, -(-epoch.rows // epoch.width)).blocks(24))
    assert (found[0].xs.shape[1], len(found)) == (size, blocks)


def test_company_does_not_change_a_bit() -> None:
    engine = NumpyEngine(trainers())
    pull = Pull(np.full(engine.layout.size, 0.01, np.float32), 0.1)
    jobs = [
        Job(name, engine.initial(), {"batch_size": 8}, seed, own)
        for seed, name in enumerate(f"d{rows}" for rows in SIZES)
        for own in (None, pull)
    ]
    together = engine.train(jobs)
    for job, found in zip(jobs, together, strict=True):
        assert engine.train([job])[0].vector.tobytes() == found.vector.tobytes()


@pytest.mark.parametrize("settings", [{"batch_size": 10}, {"batch_size": 10, "epochs": 3}])
@pytest.mark.parametrize("count", [1, 2, 5, 23, 24, 25])
def test_one_model_for_all_or_a_copy_for_each_gives_the_same_bits(
    settings: dict[str, Setting], count: int
) -> None:
    generator = np.random.Generator(np.random.Philox(7))
    x, y = generator.standard_normal((26, 50, 784), np.float32), generator.integers(0, 10, (26, 50))
    shares = [(x[k], y[k]) for k in range(25)] + [(x[25, :41], y[25, :41])]
    model = Mlp(784, (128,), classes=10)
    engine = NumpyEngine({f"d{k}": NumpyTrainer(model, *share) for k, share in enumerate(shares)})
    start = engine.initial()
    for device in ("d25", f"d{count - 1}"):
        jobs = [Job(f"d{k}", start, settings, k) for k in range(count - 1)]
        last = Job(device, start, settings, 99)
        alone = engine.train([last])[0].vector.tobytes()
        assert engine.train([*jobs, last])[-1].vector.tobytes() == alone
        each = [Job(job.device, start.copy(), settings, job.seed) for job in (*jobs, last)]
        assert engine.train(each)[-1].vector.tobytes() == alone


def test_threads_side_by_side_get_what_each_gets_alone() -> None:
    engine = NumpyEngine(trainers())
    jobs = [Job(f"d{rows}", engine.initial(), {"batch_size": 8}, rows) for rows in SIZES]
    alone = [engine.train([job])[0].vector.tobytes() for job in jobs]
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(engine.train, [jobs] * 24):
            assert [each.vector.tobytes() for each in found] == alone


@pytest.mark.parametrize("epochs", [1, 2])
def test_what_a_thread_had_in_its_memory_before_says_nothing(epochs: int) -> None:
    engine = NumpyEngine(trainers())
    for rows in SIZES:
        job = Job(f"d{rows}", engine.initial(), {"batch_size": 10, "epochs": epochs}, rows)
        found = set()
        for byte in (0, 255):  # zeros, and no numbers: a device's broken sensor may leave such
            for kept in ROOM._kept.values():
                kept[:] = byte
            found.add(engine.train([job])[0].vector.tobytes())
        assert len(found) == 1


def test_what_was_handed_out_stays_as_it_was() -> None:
    engine = NumpyEngine(trainers())
    jobs = [Job(name, engine.initial(), {"batch_size": 8}, 1) for name in ("d50", "d70")]
    found = engine.train(jobs)
    kept = [each.vector.tobytes() for each in found]
    engine.train([Job(job.device, job.model, job.settings, 2) for job in jobs])
    assert [each.vector.tobytes() for each in found] == kept


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_job_may_name_the_rows_it_trains_on(momentum: float) -> None:
    everyone = trainers(momentum)
    engine, whole = NumpyEngine(everyone), everyone["d70"]
    picks = [np.array(rows) for rows in ([69, 0, 3], list(range(30, 60)), [5] * 4)]
    jobs = [
        Job("d70", engine.initial(), {"batch_size": 8}, seed, rows=rows) for seed, rows in enumerate(picks)
    ]
    everything = Job("d70", engine.initial(), {"batch_size": 8}, 1)
    *found, last = engine.train([*jobs, everything])
    for job, rows, trained in zip(jobs, picks, found, strict=True):
        held = whole.evaluate(engine.initial())
        alone = NumpyTrainer(Mlp(320, (24, 17), classes=5), whole.x[rows], whole.y[rows], momentum=momentum)
        wanted = alone.train(job.model, job.settings, seed=job.seed)
        assert trained.vector == pytest.approx(wanted.vector, abs=TOLERANCE)
        assert (trained.examples, trained.steps) == (len(rows), wanted.steps)
        assert trained.metrics == pytest.approx({**held, **wanted.metrics}, abs=TOLERANCE)
    assert (last.examples, len(whole.x)) == (70, 70)  # the trainer itself is as it was


@pytest.mark.parametrize("rows", [[], [0, 70], [-1]])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_rows_that_are_not_there_are_refused(rows: list[int], momentum: float) -> None:
    engine = NumpyEngine(trainers(momentum))
    with pytest.raises(MisuseError, match=r"of the 70 examples of d70: name one at least"):
        engine.train([Job("d70", engine.initial(), {}, 1, rows=np.array(rows, np.int64))])


def test_more_jobs_than_a_stack_and_models_of_their_own() -> None:
    alone = trainers()
    engine = NumpyEngine(alone)
    generator = np.random.Generator(np.random.Philox(3))
    models = [
        generator.normal(scale=0.1, size=engine.layout.size).astype(np.float32)
        for _ in range(engine.stack + 3)
    ]
    results = engine.train([Job("d25", model, {}, 1) for model in models])
    for model, found in zip(models, results, strict=True):
        assert found.vector == pytest.approx(alone["d25"].train(model, {}, seed=1).vector, abs=TOLERANCE)


def test_an_mlp_needs_no_framework(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from fedmq.trainers.numpy import Mlp\n"
        "def model():\n    return Mlp(6, classes=3)\n"
        "def data(device):\n    raise AssertionError\n"
    )
    data = points(10)
    loaded = "keras" in sys.modules
    engine = from_module(str(path), {"d": Supply((data.x, data.y))}, {"learning_rate": 0.2, "seed": 1})
    assert engine.examples("d") == 10
    assert engine.train([Job("d", engine.initial(), {}, 1)])[0].reach == pytest.approx(0.2)
    assert ("keras" in sys.modules) == loaded


def test_wrong_data_are_named_by_device(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from fedmq.trainers.numpy import Mlp\ndef model():\n    return Mlp(5, classes=3)\ndef data(device): ..."
    )
    data = points(10)
    with pytest.raises(ConfigError, match=r"sensor-3: the training data has 6 numbers"):
        from_module(str(path), {"sensor-3": Supply((data.x, data.y))}, {})
