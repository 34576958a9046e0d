"""Write rules.json: what Flower's FedAvg, FedAvgM and FedAdam make of a few rounds, for our rules to be held against.

Run it with a Python that has ``flwr==1.42.0``; the tests read the file and need no Flower. Nothing here is ours but the
inputs: three devices, four rounds, six numbers, drawn from a seed.

Flower corrects FedAdam's bias and starts from ``v = 0``, where Reddi et al. 2021, algorithm 2, corrects nothing and
starts from ``v >= tau^2``. So that the rest of the arithmetic can be compared, this sets `v_t` to ``tau^2`` first, and
divides `eta` by Flower's correction each round.
"""

from __future__ import annotations

import json
import math
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict  # type: ignore[import-not-found]
from flwr.serverapp.strategy import FedAdam, FedAvg, FedAvgM  # type: ignore[import-not-found]
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

ROUNDS, DEVICES, SIZE = 4, 3, 6
RATE, BETA = 0.5, 0.9
ADAM = {"eta": 0.05, "beta_1": 0.9, "beta_2": 0.99, "tau": 1e-3}


def arrays(vector: Numbers) -> ArrayRecord:
    return ArrayRecord({"w": Array(np.asarray(vector, np.float64))})


def reply(model: Numbers, delta: Numbers, examples: int) -> SimpleNamespace:
    content = RecordDict(
        {"arrays": arrays(model + delta), "metrics": MetricRecord({"num-examples": examples})}
    )
    return SimpleNamespace(content=content, has_error=lambda: False)


def uncorrected(strategy: FedAdam, number: int) -> None:
    """Undo Flower's bias correction, which in round 1 is that of Adam's second step."""
    power = number + 1
    strategy.eta = ADAM["eta"] * (1 - ADAM["beta_1"] ** power) / math.sqrt(1 - ADAM["beta_2"] ** power)


def models(strategy: FedAvg, start: Numbers, deltas: Numbers, examples: list[int]) -> list[list[float]]:
    model, path = start, list[list[float]]()
    for number, devices in enumerate(deltas, start=1):
        strategy.current_arrays = {"w": model} if isinstance(strategy, FedAdam) else arrays(model)
        if isinstance(strategy, FedAdam):
            uncorrected(strategy, number)
        replies = [reply(model, delta, count) for delta, count in zip(devices, examples, strict=True)]
        model = strategy.aggregate_train(number, replies)[0]["w"].numpy()
        path.append(model.tolist())
    return path


def main() -> None:
    rng = np.random.default_rng(20_240_607)
    start = rng.standard_normal(SIZE).astype(np.float32).astype(np.float64)
    deltas = (0.1 * rng.standard_normal((ROUNDS, DEVICES, SIZE))).astype(np.float32).astype(np.float64)
    examples = [10, 250, 33]
    adam = FedAdam(**ADAM)
    adam.v_t = {"w": np.full(SIZE, ADAM["tau"] ** 2)}
    golden = {
        "made_with": f"flwr {version('flwr')}, numpy {np.__version__}",
        "start": start.tolist(),
        "deltas": deltas.tolist(),
        "examples": examples,
        "settings": {"rate": RATE, "beta": BETA, "adam": ADAM},
        "average": models(FedAvg(), start, deltas, [1] * DEVICES),
        "fedavg": models(FedAvg(), start, deltas, examples),
        "fedavgm": models(FedAvgM(server_learning_rate=RATE, server_momentum=BETA), start, deltas, examples),
        "fedadam": models(adam, start, deltas, examples),
    }
    Path(__file__).with_name("rules.json").write_text(json.dumps(golden, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
