"""What a simulation says of its models: one on everyone's data, several each on the data of those who chose it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from fedmq.algorithms import Clusters, Plain
from fedmq.simulate.judging import Judge
from fedmq.testing.federation import SMALL, ShiftTrainer
from fedmq.vectors import Vector


class Fond(ShiftTrainer):
    """Is the more accurate, the nearer a model's first number is to its own."""

    def __init__(self, own: float, held_out: float) -> None:
        super().__init__()
        self.own, self.held_out = own, held_out

    def evaluate(self, model: Vector) -> Mapping[str, float]:
        if not self.held_out:
            return {}
        loss = abs(float(model[0]) - self.own)
        return {"loss": loss, "accuracy": 1 / (1 + loss), "held_out": self.held_out}


def vector(*firsts: float) -> Vector:
    found = np.zeros((len(firsts), SMALL.size), np.float32)
    found[:, 0] = firsts
    return found.ravel()


def test_one_model_is_judged_on_everyone_s_data() -> None:
    pooled = Fond(2.0, 100)
    assert Judge(Plain(), {}, pooled)(vector(3.0)) == {"loss": 1.0, "accuracy": 0.5, "held_out": 100}
    assert Judge(Clusters(2), {"a": Fond(5.0, 1)}, pooled)(vector(3.0, 0.0))["held_out"] == 100


def test_where_data_cannot_be_joined_one_model_has_no_figures() -> None:
    assert Judge(Plain(), {"a": Fond(2.0, 1)}, None)(vector(3.0)) == {}


@pytest.mark.parametrize("pooled", [None, Fond(2.0, 100)])
def test_several_are_judged_by_those_who_choose_them(pooled: Fond | None) -> None:
    devices = {"a": Fond(1.0, 10), "b": Fond(5.0, 30), "c": Fond(6.0, 10), "without": Fond(0.0, 0)}
    assert Judge(Clusters(2), devices, pooled)(vector(1.0, 5.0)) == {
        "accuracy": pytest.approx((10 * 1 + 30 * 1 + 10 * 0.5) / 50),
        "loss": pytest.approx(10 / 50),
        "held_out": 50,
        "cluster-0.devices": 1,
        "cluster-0.accuracy": 1,
        "cluster-1.devices": 2,
        "cluster-1.accuracy": pytest.approx((30 + 5) / 40),
    }


def test_nobody_who_holds_data_back_can_say_nothing() -> None:
    assert Judge(Clusters(2), {"a": Fond(0.0, 0)}, None)(vector(1.0, 5.0)) == {}


def test_figures_without_accuracy_are_told_as_well() -> None:
    class Bare(Fond):
        def evaluate(self, model: Vector) -> Mapping[str, float]:
            return {"loss": float(model[0]), "held_out": 1.0}

    told = Judge(Clusters(2), {"a": Bare(0.0, 1)}, None)(vector(1.0, 5.0))
    assert told == {"loss": 1.0, "held_out": 1.0, "cluster-0.devices": 1}


def test_many_models_leave_room_in_a_report() -> None:
    devices = {str(number): Fond(number, 1) for number in range(16)}
    told = Judge(Clusters(16), devices, None)(vector(*range(1, 17)))
    assert len(told) <= 32
    assert [told[f"cluster-{number}.devices"] for number in range(15)] == [2, *[1] * 14]
