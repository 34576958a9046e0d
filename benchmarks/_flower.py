"""Flower beside fedmq's intake: the same vector from as many senders, federated averaging, round after round.

Runs under an interpreter that has ``flwr`` and knows nothing of fedmq; `benchmarks.intake` starts it twice: once as the
server, and once as all the clients, a thread each, which return a prepared vector and train nothing. Both talk by
``start_server`` and ``start_client``, Flower's older gRPC path without SuperLink, which is its fastest by far: its
deployment engine starts a Python process for each message and polls every three seconds, and is not measured here. With
each task Flower sends the model to each client; it keeps no journal and gives no receipts.

    FLOWER_PYTHON=/path/to/python python -m benchmarks.intake
"""

from __future__ import annotations

import argparse
import json
import logging
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import flwr  # type: ignore[import-not-found]
import numpy as np
from flwr.client import NumPyClient, start_client  # type: ignore[import-not-found]
from flwr.common import ndarrays_to_parameters  # type: ignore[import-not-found]
from flwr.server import ServerConfig, start_server  # type: ignore[import-not-found]
from flwr.server.strategy import FedAvg  # type: ignore[import-not-found]

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_BYTES = 2**31 - 1
PATIENCE_S = 30.0


class Timed(FedAvg):  # type: ignore[misc]
    """Federated averaging that notes when each round begins."""

    def __init__(self, values: int, devices: int) -> None:
        """Wait for all devices, ask all of them."""
        super().__init__(
            fraction_fit=1.0,
            fraction_evaluate=0.0,
            min_fit_clients=devices,
            min_evaluate_clients=0,
            min_available_clients=devices,
            initial_parameters=ndarrays_to_parameters([np.zeros(values, np.float32)]),
        )
        self.starts: list[float] = []

    def configure_fit(self, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - Flower's own types pass through
        """Note the time and go on."""
        self.starts.append(time.perf_counter())
        return super().configure_fit(*arguments, **options)


class Sender(NumPyClient):  # type: ignore[misc]
    """A device that always returns the same vector."""

    def __init__(self, vector: NDArray[np.float32]) -> None:
        """Return `vector`."""
        self.vector = vector

    def fit(
        self,
        parameters: list[NDArray[Any]],  # noqa: ARG002 - Flower's signature
        config: dict[str, Any],  # noqa: ARG002 - (same)
    ) -> tuple[list[NDArray[Any]], int, dict[str, Any]]:
        """Return the vector as if trained on 100 examples."""
        return [self.vector], 100, {}


def serve(values: int, devices: int, rounds: int, address: str) -> None:
    """Serve all rounds, then print their durations, the processor time and the most memory as JSON."""
    strategy = Timed(values, devices)
    began = time.process_time()
    start_server(
        server_address=address,
        config=ServerConfig(num_rounds=rounds),
        strategy=strategy,
        grpc_max_message_length=MOST_BYTES,
    )
    ends = [*strategy.starts[1:], time.perf_counter()]
    times = [after - before for before, after in zip(strategy.starts, ends, strict=True)]
    cpu_s = time.process_time() - began
    print(
        json.dumps({"rounds": times[:-1], "cpu_s": cpu_s, "rss_mb": _peak_mb(), "version": flwr.__version__})
    )


def send(values: int, devices: int, address: str) -> None:
    """Be all the clients, until the server ends."""
    vector = (0.01 * np.random.default_rng(7).standard_t(3, values)).astype(np.float32)
    options = {
        "server_address": address,
        "grpc_max_message_length": MOST_BYTES,
        "insecure": True,
        "max_wait_time": PATIENCE_S,
    }
    threads = [
        threading.Thread(target=start_client, kwargs={"client": Sender(vector).to_client(), **options})
        for _ in range(devices)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _peak_mb() -> float:
    """Return the most memory that this process has had resident (Linux)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) / 1000


def main() -> None:
    """Be the server or the clients."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", choices=["server", "clients"])
    parser.add_argument("values", type=int)
    parser.add_argument("devices", type=int)
    parser.add_argument("rounds", type=int)
    parser.add_argument("address")
    chosen = parser.parse_args()
    logging.getLogger("flwr").setLevel(logging.ERROR)
    if chosen.role == "server":
        serve(chosen.values, chosen.devices, chosen.rounds, chosen.address)
    else:
        send(chosen.values, chosen.devices, chosen.address)


if __name__ == "__main__":
    main()
