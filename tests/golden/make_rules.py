"""Write rules.npz: what Flower's strategies make of a thousand small federations, for our rules to be held against.

Run it from the repository's root with a Python that has ``flwr==1.42.0``, as ``python -m tests.golden.make_rules``; the
tests read the file and need no Flower. Nothing here is ours but the inputs, which rule_cases.py makes from a seed.

Where Flower differs from Reddi et al. 2021, algorithm 2, which we follow: its second moments start from 0 and not from
at least ``tau^2``, and FedAdam corrects the bias of its first rounds. So that the rest of the arithmetic can be
compared, this sets `v_t` to ``tau^2`` first, and divides FedAdam's `eta` by the correction of each round.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict  # type: ignore[import-not-found]
from flwr.serverapp.strategy import (  # type: ignore[import-not-found]
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedYogi,
    QFedAvg,
)
from flwr.serverapp.strategy.fedopt import FedOpt  # type: ignore[import-not-found]

from tests.golden.rule_cases import SIZE, Case, cases


def average(_: dict[str, float]) -> FedAvg:
    return FedAvg()


def fedavgm(s: dict[str, float]) -> FedAvg:
    return FedAvgM(server_learning_rate=s["rate"], server_momentum=s["beta"])


def fedadam(s: dict[str, float]) -> FedAvg:
    return FedAdam(eta=s["rate"], beta_1=s["beta"], beta_2=s["beta2"], tau=s["tau"])


def fedyogi(s: dict[str, float]) -> FedAvg:
    return FedYogi(eta=s["rate"], beta_1=s["beta"], beta_2=s["beta2"], tau=s["tau"])


def fedadagrad(s: dict[str, float]) -> FedAvg:
    return FedAdagrad(eta=s["rate"], tau=s["tau"])


def qfedavg(s: dict[str, float]) -> FedAvg:
    return QFedAvg(client_learning_rate=s["learning_rate"], q=s["q"])


STRATEGIES: dict[str, Callable[[dict[str, float]], FedAvg]] = {
    "average": average,
    "fedavg": average,
    "fedavgm": fedavgm,
    "fedadam": fedadam,
    "fedyogi": fedyogi,
    "fedadagrad": fedadagrad,
    "qfedavg": qfedavg,
}


def arrays(vector: Any) -> ArrayRecord:  # noqa: ANN401 - Flower is untyped here
    return ArrayRecord({"w": Array(np.array(vector, np.float64))})


def reply(vector: Any, examples: int, loss: float) -> SimpleNamespace:  # noqa: ANN401
    metrics = MetricRecord({"num-examples": examples, "train_loss": loss})
    content = RecordDict({"arrays": arrays(vector), "metrics": metrics})
    return SimpleNamespace(content=content, has_error=lambda: False)


def as_reddi(strategy: FedOpt, number: int, settings: dict[str, float]) -> None:
    """Start the second moments from ``tau^2``, and undo FedAdam's correction, in round 1 that of Adam's second step."""
    if number == 1:
        strategy.v_t = {"w": np.full(SIZE, settings["tau"] ** 2)}
    if isinstance(strategy, FedAdam):
        power = number + 1
        correction = math.sqrt(1 - settings["beta2"] ** power) / (1 - settings["beta"] ** power)
        strategy.eta = settings["rate"] / correction


def last_model(name: str, case: Case) -> Any:  # noqa: ANN401
    strategy, model = STRATEGIES[name](case.settings), case.start
    examples = [1] * len(case.examples) if name == "average" else case.examples
    for number, deltas in enumerate(case.deltas, start=1):
        adaptive = isinstance(strategy, FedOpt)
        strategy.current_arrays = {"w": model} if adaptive else arrays(model)
        if adaptive:
            as_reddi(strategy, number, case.settings)
        replies = [
            reply(model + d, n, loss) for d, n, loss in zip(deltas, examples, case.losses, strict=True)
        ]
        model = strategy.aggregate_train(number, replies)[0]["w"].numpy()
    return model


def main() -> None:
    golden = {name: np.array([last_model(name, case) for case in cases()], np.float32) for name in STRATEGIES}
    golden["made_with"] = np.array(f"flwr {version('flwr')}, numpy {np.__version__}")
    np.savez_compressed(Path(__file__).with_name("rules.npz"), allow_pickle=False, **golden)


if __name__ == "__main__":
    main()
