"""Flower's simulation beside `benchmarks.fleet`: as many clients on Ray, the same perceptron, data and settings.

Runs under an interpreter that has ``flwr[simulation]`` and knows nothing of fedmq; `benchmarks.fleet` starts it. The
client is a `NumPyClient` that trains in plain NumPy with one BLAS thread, as fedmq's own does, so that what differs is
the simulation around it. Prints one JSON object: ``rounds``, the begin and the end of each in Unix time, and
``version``. The first round has Ray's start in it.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import flwr  # type: ignore[import-not-found]
import numpy as np
from flwr.client import ClientApp, NumPyClient  # type: ignore[import-not-found]
from flwr.common import ndarrays_to_parameters  # type: ignore[import-not-found]
from flwr.server import ServerApp, ServerAppComponents, ServerConfig  # type: ignore[import-not-found]
from flwr.server.strategy import FedAvg  # type: ignore[import-not-found]
from flwr.simulation import run_simulation  # type: ignore[import-not-found]

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float32]

INPUTS, HIDDEN, CLASSES = 784, 128, 10
EXAMPLES, BATCH, RATE, SHARES = 50, 10, np.float32(0.1), 100


class Timed(FedAvg):  # type: ignore[misc]
    """Federated averaging of all clients that notes when each round begins and ends."""

    def __init__(self, devices: int) -> None:
        """Ask all of `devices` in each round."""
        super().__init__(
            fraction_fit=1.0,
            fraction_evaluate=0.0,
            min_fit_clients=devices,
            min_available_clients=devices,
            initial_parameters=ndarrays_to_parameters(first()),
        )
        self.rounds: list[list[float]] = []

    def configure_fit(self, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - Flower's own types pass through
        """Note the time and go on."""
        self.rounds.append([time.time()])
        return super().configure_fit(*arguments, **options)

    def aggregate_fit(self, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - (same)
        """Go on and note the time."""
        aggregated = super().aggregate_fit(*arguments, **options)
        self.rounds[-1].append(time.time())
        return aggregated


class Trainee(NumPyClient):  # type: ignore[misc]
    """A client with one of the shares."""

    def __init__(self, number: int) -> None:
        """Train on this share."""
        self.number = number

    def fit(
        self,
        parameters: list[Array],
        config: dict[str, Any],  # noqa: ARG002 - Flower's signature
    ) -> tuple[list[Array], int, dict[str, Any]]:
        """Train one epoch."""
        weights = [array.astype(np.float32) for array in parameters]
        x, y = share(self.number % SHARES)
        order = np.random.default_rng(self.number).permutation(EXAMPLES)
        for start in range(0, EXAMPLES, BATCH):
            rows = order[start : start + BATCH]
            descend(weights, x[rows], y[rows])
        return weights, EXAMPLES, {}


def descend(weights: list[Array], x: Array, y: NDArray[np.int64]) -> None:
    """Take one step of SGD with cross-entropy, in place."""
    kernel, bias, last, last_bias = weights
    hidden = np.maximum(x @ kernel + bias, 0)
    scores = hidden @ last + last_bias
    scores -= scores.max(axis=1, keepdims=True)
    error = np.exp(scores)
    error /= error.sum(axis=1, keepdims=True)
    error[np.arange(len(y)), y] -= 1
    error *= RATE / np.float32(len(y))
    back = (error @ last.T) * (hidden > 0)
    last -= hidden.T @ error
    last_bias -= error.sum(axis=0)
    kernel -= x.T @ back
    bias -= back.sum(axis=0)


def first() -> list[Array]:
    """Return the first weights."""
    chance = np.random.default_rng(0)
    sides = ((INPUTS, HIDDEN), (HIDDEN, CLASSES))
    kernels = [chance.uniform(-0.08, 0.08, side).astype(np.float32) for side in sides]
    return [kernels[0], np.zeros(HIDDEN, np.float32), kernels[1], np.zeros(CLASSES, np.float32)]


@lru_cache(SHARES)
def share(number: int) -> tuple[Array, NDArray[np.int64]]:
    """Return the examples of one share."""
    chance = np.random.Generator(np.random.Philox(number))
    x = chance.standard_normal((EXAMPLES, INPUTS), dtype=np.float32)
    return x, chance.integers(0, CLASSES, EXAMPLES)


def main() -> None:
    """Simulate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("devices", type=int)
    parser.add_argument("rounds", type=int)
    chosen = parser.parse_args()
    logging.getLogger("flwr").setLevel(logging.ERROR)
    strategy, config = Timed(chosen.devices), ServerConfig(num_rounds=chosen.rounds)
    run_simulation(
        ServerApp(server_fn=lambda _: ServerAppComponents(strategy=strategy, config=config)),
        ClientApp(client_fn=lambda context: Trainee(int(context.node_config["partition-id"])).to_client()),
        num_supernodes=chosen.devices,
        backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0}},
    )
    print(json.dumps({"rounds": strategy.rounds, "version": flwr.__version__}))


if __name__ == "__main__":
    main()
