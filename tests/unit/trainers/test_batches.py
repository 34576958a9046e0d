"""Schedules, settings and shares: what all engines have in common."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmq.errors import ConfigError
from fedmq.trainers.batches import Schedule, layer_seeds
from fedmq.trainers.settings import Settings, finite
from fedmq.trainers.shares import leaves, share

WHOLE = st.integers(1, 40)


@given(rows=WHOLE, batch=WHOLE, epochs=st.integers(1, 5), most=st.none() | WHOLE)
def test_every_epoch_holds_every_row_once(rows: int, batch: int, epochs: int, most: int | None) -> None:
    schedule = Schedule(rows, Settings(epochs=epochs, batch_size=batch, max_steps=most))
    sizes = np.diff(schedule.cuts)
    assert sizes.sum() == rows
    assert (sizes[:-1] == batch).all()
    assert 1 <= sizes[-1] <= batch
    seen = list(schedule.epochs(seed=1))
    assert all(sorted(order) == list(range(rows)) for order, _ in seen)
    assert sum(limit for _, limit in seen) == schedule.steps == min(epochs * len(sizes), most or 10**9)
    assert all(limit == len(sizes) for _, limit in seen[:-1])


def test_epochs_differ_and_follow_the_seed() -> None:
    def orders(seed: int) -> list[list[int]]:
        return [order.tolist() for order, _ in Schedule(20, Settings(epochs=2)).epochs(seed)]

    assert orders(1) == orders(1)
    assert orders(1) != orders(2)
    assert orders(1)[0] != orders(1)[1]


def test_order_is_pinned() -> None:
    """Both engines, on every device, go through the rows in this order."""
    order, _ = next(Schedule(8, Settings()).epochs(seed=1))
    assert order.tolist() == [1, 7, 0, 4, 6, 3, 5, 2]


def test_layer_seeds_follow_the_seed() -> None:
    assert layer_seeds(1, 3).tolist() == layer_seeds(1, 3).tolist()
    assert layer_seeds(1, 3).tolist() != layer_seeds(2, 3).tolist()
    assert len(set(layer_seeds(2**64 - 1, 3).tolist())) == 3
    assert layer_seeds(1, 0).size == 0


def test_settings() -> None:
    parsed = Settings.parse(
        {"epochs": 3, "batch_size": 4, "learning_rate": 1, "max_steps": 5, "proximal": 0.5}
    )
    assert parsed == Settings(3, 4, 1.0, 5, 0.5)
    assert Settings.parse({}) == Settings()


@pytest.mark.parametrize(
    ("name", "says"),
    [("batchsize", "did you mean 'batch_size'"), ("zzz", "known are batch_size, epochs, learning_rate")],
)
def test_unknown_settings(name: str, says: str) -> None:
    with pytest.raises(ConfigError, match=f"'{name}' is not known: {says}"):
        Settings.parse({name: 1})


@pytest.mark.parametrize("value", [0, -1, 1.0, True, "1", 2.5])
@pytest.mark.parametrize("name", ["epochs", "batch_size", "max_steps"])
def test_whole_numbers(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{name} is {value!r}: give a whole number of at least 1"):
        Settings.parse({name: value})


@pytest.mark.parametrize("value", [-1e-9, float("inf"), float("nan"), True, "1"])
@pytest.mark.parametrize("name", ["learning_rate", "proximal"])
def test_real_numbers(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{name} is .*: give a finite number of at least 0"):
        Settings.parse({name: value})


def test_only_finite_figures_are_kept() -> None:
    assert finite({"a": 1, "b": float("nan"), "c": float("-inf"), "d": 2.5}) == {"a": 1.0, "d": 2.5}


def test_a_share_may_be_nested() -> None:
    held = share(
        ({"b": [[1.0], [2.0]], "a": np.zeros((2, 3), np.uint8)}, (np.zeros(2), np.ones(2)), None), "data"
    )
    assert held.rows == 2
    assert [leaf.dtype for leaf in leaves(held.parts)] == [np.uint8, np.float32, np.float32, np.float32]
