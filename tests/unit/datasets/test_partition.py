"""Laws over the whole table of partitions, and what is particular to each."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmq.datasets import PARTITIONS, ByOwner, Dirichlet, Iid, QuantitySkew, Shards, parse
from fedmq.datasets.spelling import EXAMPLES
from fedmq.errors import MisuseError

if TYPE_CHECKING:
    from fedmq.datasets import Partition
    from fedmq.datasets.dataset import Integers
    from fedmq.datasets.partition import Parts

WAYS: dict[str, st.SearchStrategy[Partition]] = {
    "iid": st.just(Iid()),
    "by_owner": st.just(ByOwner()),
    "dirichlet": st.builds(Dirichlet, st.floats(5e-324, sys.float_info.max), st.integers(1, 3)),
    "shards": st.builds(Shards, st.integers(1, 3)),
    "quantity": st.builds(QuantitySkew, st.floats(0, 20)),
}
"""Settings of each row of the table with which three examples per device are enough."""


@dataclass(frozen=True)
class Task:
    """Something to deal out: at least three examples per device, and per device of one owner."""

    y: Integers
    owner: Integers
    devices: int
    seed: int

    def dealt(self, way: Partition) -> Parts:
        return way.split(self.y, self.owner, self.devices, np.random.Generator(np.random.Philox(self.seed)))


@st.composite
def tasks(draw: st.DrawFn) -> Task:
    devices, owners, labels = draw(st.integers(1, 12)), draw(st.integers(1, 5)), draw(st.integers(1, 6))
    each = 3 * -(-devices // owners)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    sizes = each + rng.integers(0, 20, owners) if devices >= owners else 3 + rng.integers(0, 20, owners)
    owner = rng.permutation(np.repeat(rng.permutation(9)[:owners], sizes))
    return Task(rng.integers(0, labels, len(owner)), owner, devices, draw(st.integers(0, 2**64)))


def test_the_laws_cover_the_table() -> None:
    assert WAYS.keys() == PARTITIONS.keys()


@pytest.mark.parametrize("name", PARTITIONS)
@given(data=st.data(), task=tasks())
def test_every_example_goes_to_one_device_and_none_is_left_empty(
    name: str, data: st.DataObject, task: Task
) -> None:
    parts = task.dealt(data.draw(WAYS[name]))
    assert len(parts) == task.devices
    assert all(part.size and part.dtype == np.int64 for part in parts)
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(len(task.y)))


@pytest.mark.parametrize("name", PARTITIONS)
@given(data=st.data(), task=tasks())
def test_rows_rise_and_the_seed_alone_decides(name: str, data: st.DataObject, task: Task) -> None:
    way = data.draw(WAYS[name])
    for part, again in zip(task.dealt(way), task.dealt(way), strict=True):
        np.testing.assert_array_equal(part, again)
        assert (np.diff(part) > 0).all()


@pytest.mark.parametrize("name", sorted(PARTITIONS.keys() - {"by_owner"}))
def test_another_seed_deals_otherwise(name: str) -> None:
    y = np.arange(300) % 6
    way = parse(EXAMPLES[name])
    one, two = (way.split(y, None, 5, np.random.default_rng(seed)) for seed in (1, 2))
    assert any(len(a) != len(b) or (a != b).any() for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("name", PARTITIONS)
@given(data=st.data())
def test_too_few_examples_are_refused(name: str, data: st.DataObject) -> None:
    few = Task(np.zeros(4, np.int64), np.zeros(4, np.int64), devices=5, seed=0)
    with pytest.raises(MisuseError, match="4 examples cannot give 5 devices"):
        few.dealt(data.draw(WAYS[name]))


@pytest.mark.parametrize("name", PARTITIONS)
@given(data=st.data())
def test_no_devices_are_refused(name: str, data: st.DataObject) -> None:
    none = Task(np.zeros(4, np.int64), np.zeros(4, np.int64), devices=0, seed=0)
    with pytest.raises(MisuseError, match="devices is 0"):
        none.dealt(data.draw(WAYS[name]))


@pytest.mark.parametrize("way", [Iid(), Dirichlet(1.0), QuantitySkew(1.0)])
def test_rows_are_mixed(way: Partition) -> None:
    """Neighbours in time (which may share samples) do not stay together."""
    assert all(np.diff(part).max() > 1 for part in _dealt(way, 1000, 4))


@given(task=tasks())
def test_iid_parts_are_of_one_size(task: Task) -> None:
    sizes = [len(part) for part in task.dealt(Iid())]
    assert max(sizes) - min(sizes) <= 1


@given(task=tasks())
def test_by_owner_keeps_owners_apart(task: Task) -> None:
    """A device has one owner where there are devices enough, and an owner one device where there are not."""
    owners = [set(task.owner[part].tolist()) for part in task.dealt(ByOwner())]
    if task.devices >= len(set(task.owner.tolist())):
        assert all(len(of) == 1 for of in owners)
    else:
        assert sum(map(len, owners)) == len(set.union(*owners))


@given(task=tasks())
def test_by_owner_gives_an_owners_devices_equal_stretches_of_every_label(task: Task) -> None:
    parts = task.dealt(ByOwner())
    for one in np.unique(task.owner) if task.devices >= len(np.unique(task.owner)) else ():
        mine = [part for part in parts if task.owner[part[0]] == one]
        assert max(map(len, mine)) - min(map(len, mine)) <= 1
        for label in np.unique(task.y):
            stretches = [part[task.y[part] == label] for part in mine]
            counts = list(map(len, stretches))
            assert max(counts) - min(counts) <= 1
            assert (np.diff(np.concatenate(stretches)) > 0).all()


def test_by_owner_wants_owners() -> None:
    with pytest.raises(MisuseError, match="by_owner needs a dataset that says who owns"):
        ByOwner().split(np.zeros(9, np.int64), None, 3, np.random.default_rng(0))


@given(task=tasks(), minimum=st.integers(1, 3), alpha=st.floats(1e-3, 1.0))
def test_dirichlet_gives_everyone_the_minimum(task: Task, minimum: int, alpha: float) -> None:
    assert min(map(len, task.dealt(Dirichlet(alpha, minimum)))) >= minimum


def test_a_smaller_alpha_skews_the_labels_more() -> None:
    even, some, much = (_label_skew(Dirichlet(alpha)) for alpha in (1000.0, 1.0, 0.05))
    assert even < 0.05 < some < 0.6 < much


def test_dirichlet_proportions_have_the_right_spread() -> None:
    """A share is Beta(a, (n - 1) a): its variance is (n - 1) / n^2 / (n a + 1)."""
    y, devices, alpha = np.zeros(2_000, np.int64), 4, 0.7
    rng = np.random.default_rng(0)
    shares = [
        len(part) / len(y) for _ in range(500) for part in Dirichlet(alpha).split(y, None, devices, rng)
    ]
    assert np.var(shares) == pytest.approx(3 / 16 / (devices * alpha + 1), rel=0.1)


@given(devices=st.integers(1, 10), per_device=st.integers(1, 4), each=st.integers(1, 5))
def test_a_device_sees_no_more_labels_than_it_has_shards(devices: int, per_device: int, each: int) -> None:
    y = np.arange(devices * per_device * each) // each
    parts = Shards(per_device).split(y, None, devices, np.random.default_rng(each))
    assert {len(np.unique(y[part])) for part in parts} == {per_device}


@given(devices=st.integers(1, 20), exponent=st.floats(0, 4))
def test_amounts_follow_the_power_law(devices: int, exponent: float) -> None:
    total = 5000
    sizes = sorted(map(len, _dealt(QuantitySkew(exponent), total, devices)), reverse=True)
    weight = np.arange(1, devices + 1) ** -exponent
    np.testing.assert_allclose(sizes, 1 + (total - devices) * weight / weight.sum(), atol=1.5)


def test_the_rich_device_is_chance() -> None:
    richest = {int(np.argmax(list(map(len, _dealt(QuantitySkew(2.0), 200, 4, seed))))) for seed in range(40)}
    assert richest == {0, 1, 2, 3}


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_settings_outside_their_range_are_refused(value: float) -> None:
    with pytest.raises(MisuseError, match="alpha is"):
        Dirichlet(value)
    with pytest.raises(MisuseError, match="minimum is"):
        Dirichlet(1.0, minimum=value)  # type: ignore[arg-type]
    with pytest.raises(MisuseError, match="per_device is"):
        Shards(value)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf")])
def test_an_exponent_outside_its_range_is_refused(value: float) -> None:
    with pytest.raises(MisuseError, match="exponent is"):
        QuantitySkew(value)


def _dealt(way: Partition, total: int, devices: int, seed: int = 0) -> Parts:
    return way.split(np.zeros(total, np.int64), None, devices, np.random.default_rng(seed))


def _label_skew(way: Partition) -> float:
    """Mean distance, 0 to 1, of a device's mix of ten labels from the whole's."""
    y = np.arange(10_000) % 10
    parts = way.split(y, None, 10, np.random.default_rng(0))
    return float(
        np.mean([abs(np.bincount(y[part], minlength=10) / len(part) - 0.1).sum() / 2 for part in parts])
    )
