"""Convolutions in NumPy: layers against plain loops, and the engine as a trainer."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmq.descent import Pull
from fedmq.engines import Front, Job
from fedmq.engines.numpy.convolving import ConvolvingEngine
from fedmq.engines.numpy.layers import Convolution, ConvolutionSizes, DenseSizes
from fedmq.engines.numpy.models import KerasModel
from fedmq.engines.numpy.networks import Network
from fedmq.engines.numpy.stacks import ROOM
from fedmq.errors import ConfigError
from fedmq.testing.trainer import CLASSES, Points, TrainerConformance, points
from fedmq.trainers.numpy import Mlp, NumpyTrainer
from fedmq.vectors import Layout, Variable

if TYPE_CHECKING:
    from pathlib import Path

    from fedmq.device.interface import Trainer
    from fedmq.engines.numpy.networks import Sizes

PAIRS = st.tuples(st.integers(1, 3), st.integers(1, 3))


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[ConvolutionSizes, tuple[int, int, int]]:
    kernel, pool, more = draw(PAIRS), draw(PAIRS), draw(st.tuples(st.integers(0, 4), st.integers(0, 4)))
    sizes = ConvolutionSizes(kernel, draw(st.integers(1, 3)), draw(st.booleans()), draw(st.booleans()), pool)
    rows, columns = (k + p - 1 + extra for k, p, extra in zip(kernel, pool, more, strict=True))
    return sizes, (rows, columns, draw(st.integers(1, 3)))


@settings(max_examples=60, deadline=None)
@given(convolutions(), st.integers(0, 99), st.integers(1, 2))
def test_a_convolution_is_what_plain_loops_say(
    which: tuple[ConvolutionSizes, tuple[int, int, int]], seed: int, devices: int
) -> None:
    sizes, image = which
    generator = np.random.Generator(np.random.Philox(seed))

    def draw(*shape: int) -> np.ndarray:  # few values, so that there are ties, and sums are exact
        return generator.integers(-2, 3, (devices, *shape)).astype(np.float32)

    layer = Convolution(sizes, image)
    x, kernel, bias = draw(2, *image), draw(*sizes.kernel, image[2], sizes.filters), draw(sizes.filters)
    back = draw(2, *layer.outputs)
    slopes = np.empty_like(kernel), np.empty_like(bias)
    found = layer.forward(x, kernel, bias)
    inputs = layer.backward(back.copy(), kernel, slopes, last=False)
    for device in range(devices):
        wanted = plain(sizes, x[device], kernel[device], bias[device], back[device])
        for mine, theirs in zip((found, inputs, *slopes), wanted, strict=True):
            assert np.array_equal(mine[device], theirs)


def plain(
    sizes: ConvolutionSizes, x: np.ndarray, kernel: np.ndarray, bias: np.ndarray, back: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Return outputs, and slopes of inputs, kernel and bias: window by window, pool by pool."""
    around = [((k - 1) // 2, k // 2) if sizes.same else (0, 0) for k in sizes.kernel]
    padded = np.pad(x, [(0, 0), *around, (0, 0)])
    outputs, inputs = np.zeros(back.shape), np.zeros(padded.shape)
    kernels, biases = np.zeros(kernel.shape), np.zeros(bias.shape)
    (rows, columns), (high, wide) = sizes.kernel, sizes.pool
    for at in np.ndindex(back.shape):
        example, row, column, filter_ = at
        places = list(
            itertools.product(range(row * high, (row + 1) * high), range(column * wide, (column + 1) * wide))
        )
        cuts = [(example, slice(i, i + rows), slice(j, j + columns)) for i, j in places]
        answers = [(padded[cut] * kernel[..., filter_]).sum() + bias[filter_] for cut in cuts]
        best = int(np.argmax(answers))  # the first of equal ones
        outputs[at] = max(answers[best], 0) if sizes.relu else answers[best]
        if answers[best] > 0 or not sizes.relu:
            inputs[cuts[best]] += back[at] * kernel[..., filter_]
            kernels[..., filter_] += back[at] * padded[cuts[best]]
            biases[filter_] += back[at]
    (top, _), (left, _) = around
    return outputs, inputs[:, top : top + x.shape[1], left : left + x.shape[2]], kernels, biases


def test_layers_keep_apart_what_they_need_on_the_way_back() -> None:
    sizes = ConvolutionSizes((3, 3), 3, same=False, relu=True, pool=(2, 2))
    generator = np.random.Generator(np.random.Philox(1))
    x, first, second, bias, back = (
        generator.standard_normal((2, *shape), np.float32)
        for shape in ((4, 14, 14, 1), (3, 3, 1, 3), (3, 3, 3, 3), (3,), (4, 2, 2, 3))
    )
    one, two = Network((14, 14, 1), (sizes, sizes)).begin()
    slopes, wanted = ((np.empty_like(first), np.empty_like(bias)) for _ in range(2))
    two.forward(one.forward(x, first, bias), second, bias)
    between = two.backward(back, second, (np.empty_like(second), np.empty_like(bias)), last=False).copy()
    one.backward(between, first, slopes, last=True)
    one.forward(x, first, bias)
    one.backward(between, first, wanted, last=True)
    for mine, theirs in zip(slopes, wanted, strict=True):
        assert mine.tobytes() == theirs.tobytes()


def model(momentum: float = 0.0) -> KerasModel:
    """Return a small one for the points of the conformance suite, as images of 2 x 3."""
    convolution = ConvolutionSizes((2, 2), 16, same=True, relu=True, pool=(1, 2))
    network = Network((2, 3, 1), (convolution, DenseSizes(12, relu=True), DenseSizes(CLASSES, relu=False)))
    shapes = {
        "k": (2, 2, 1, 16),
        "b": (16,),
        "k1": (32, 12),
        "b1": (12,),
        "k2": (12, CLASSES),
        "b2": (CLASSES,),
    }
    layout = Layout(tuple(Variable(name, shape) for name, shape in shapes.items()))
    generator = np.random.Generator(np.random.Philox(5))
    return KerasModel(
        network, layout, generator.normal(0, 0.3, layout.size).astype(np.float32), 0.1, momentum
    )


class TestConformance(TrainerConformance):
    def make(self, train: Points, held_out: Points | None) -> Trainer:
        held = {} if held_out is None else {"d": (held_out.x, held_out.y)}
        return Front(ConvolvingEngine(model(), {"d": (train.x, train.y)}, held)).trainer("d")


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_company_does_not_change_a_bit(momentum: float) -> None:
    shares = {f"d{rows}": points(rows) for rows in (1, 7, 30, 33, 50)}
    held = {"d7": (points(70).x, points(70).y)}
    engine = ConvolvingEngine(model(momentum), {name: (own.x, own.y) for name, own in shares.items()}, held)
    pull = Pull(np.full(engine.layout.size, 0.01, np.float32), 0.1)
    jobs = [
        Job(name, engine.initial() + seed, {"batch_size": 8, "epochs": 2}, seed, own, rows)
        for seed, name in enumerate(shares)
        for own in (None, pull, Pull(None, 0.2))
        for rows in (None, np.zeros(30, np.int64))
    ]
    for job, found in zip(jobs, engine.train(jobs), strict=True):
        alone = engine.train([job])[0]
        assert alone.vector.tobytes() == found.vector.tobytes()
        assert (alone.metrics, alone.steps, alone.reach) == (found.metrics, found.steps, found.reach)


def test_what_a_thread_had_in_its_memory_before_says_nothing() -> None:
    own = points(50)
    engine = ConvolvingEngine(model(), {"d": (own.x, own.y)}, {})
    job = Job("d", engine.initial(), {"batch_size": 8}, 1)
    found = set()
    for byte in (0, 255):  # zeros, and no numbers
        for kept in ROOM._kept.values():
            kept[:] = byte
        found.add(engine.train([job])[0].vector.tobytes())
    assert len(found) == 1


def test_threads_side_by_side_get_what_each_gets_alone() -> None:
    shares = {f"d{number}": points(50) for number in range(8)}
    engine = ConvolvingEngine(model(), {name: (own.x, own.y) for name, own in shares.items()}, {})
    jobs = [Job(name, engine.initial() + seed, {"epochs": 4}, seed) for seed, name in enumerate(shares)]
    alone = [engine.train([job])[0].vector.tobytes() for job in jobs]
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(engine.train, [jobs] * 16):
            assert [each.vector.tobytes() for each in found] == alone


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=3),
    st.integers(1, 12),
    st.integers(1, 3),
    st.sampled_from((0.0, 0.9)),
    st.booleans(),
)
def test_dense_layers_learn_what_they_learn_in_the_numpy_trainer(
    sizes: list[int],
    batch: int,
    epochs: int,
    momentum: float,
    pulled: bool,  # noqa: FBT001  # hypothesis fills it in
) -> None:
    mlp, network = (
        Mlp(6, (5,), classes=CLASSES),
        Network((6,), (DenseSizes(5, relu=True), DenseSizes(3, relu=False))),
    )
    shares = {f"d{k}": points(rows) for k, rows in enumerate(sizes)}
    trainers = {name: NumpyTrainer(mlp, own.x, own.y, momentum=momentum) for name, own in shares.items()}
    start = mlp.initial(1)
    engine = ConvolvingEngine(
        KerasModel(network, mlp.layout, start, 0.1, momentum),
        {name: (own.x, own.y) for name, own in shares.items()},
        {},
    )
    pull = Pull(np.full(start.size, 0.01, np.float32), 0.1) if pulled else None
    jobs = [
        Job(name, start, {"batch_size": batch, "epochs": epochs, "learning_rate": 0.01}, 3, pull)
        for name in shares
    ]
    for job, found in zip(jobs, engine.train(jobs), strict=True):
        wanted = trainers[job.device].train(start, job.settings, seed=3, pull=pull)
        assert found.vector == pytest.approx(wanted.vector, abs=2e-6)
        loss = found.metrics["train_loss"]  # equal scores may fall out either way by their rounding
        assert loss == pytest.approx(wanted.metrics["train_loss"], abs=1e-5)
        assert (found.steps, found.examples) == (wanted.steps, wanted.examples)
        assert found.reach == pytest.approx(wanted.reach)


def test_a_model_survives_its_file(tmp_path: Path) -> None:
    written = model(0.5)
    written.save(str(tmp_path / "model.npz"))
    read = KerasModel.load(tmp_path / "model.npz")
    assert (read.network, read.layout, read.momentum) == (written.network, written.layout, 0.5)
    assert read.initial.tobytes() == written.initial.tobytes()


def test_dense_layers_alone_are_a_perceptron() -> None:
    def mlp(*layers: Sizes) -> Mlp | None:
        return KerasModel(Network((4, 2), layers), Layout(()), np.zeros(0, np.float32), 0.1, 0.0).mlp

    relu, linear, scores = DenseSizes(5, relu=True), DenseSizes(5, relu=False), DenseSizes(3, relu=False)
    assert mlp(relu, scores) == Mlp(8, (5,), classes=3)
    assert mlp(linear, scores) is None
    assert mlp(ConvolutionSizes((1, 1), 1, same=False, relu=False), scores) is None


@pytest.mark.parametrize(
    ("x", "y", "says"),
    [
        (
            np.zeros((4, 5)),
            np.zeros(4, int),
            r"d: the training data has examples of shape \(5,\), the model takes",
        ),
        (np.zeros((4, 6)), np.zeros((4, 3), int), "labels of shape"),
        (np.zeros((4, 6)), np.full(4, 3), "tells 3 classes apart"),
    ],
)
def test_data_that_do_not_fit_are_refused(x: np.ndarray, y: np.ndarray, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        ConvolvingEngine(model(), {"d": (x, y)}, {})
