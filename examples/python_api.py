"""fedmq from Python: an aggregator, five devices, a trainer of one's own, and a rule with a part of one's own.

Five greenhouses learn together how warm it gets from sun, outside temperature and open windows. The trainer is a few
lines of NumPy; the rule weighs each greenhouse by the square root of its number of examples.

    python examples/python_api.py                                   # on a broker in memory
    python examples/python_api.py --broker mqtt://localhost:1883    # over the network
"""

from __future__ import annotations

import argparse
import asyncio
import math
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

import numpy as np

from fedmq.aggregator.aggregator import Aggregator
from fedmq.aggregator.settings import Federation
from fedmq.device.device import Device, Identity
from fedmq.device.interface import Trained
from fedmq.protocol.policy import Policy, StopWhen
from fedmq.rules import Momentum, NormClip, Rule, Weigher
from fedmq.store.checkpoint import CheckpointFolder
from fedmq.store.modelfile import StoredModel
from fedmq.transport.address import Credentials, open_transport
from fedmq.transport.memory import MemoryBroker
from fedmq.vectors import Layout, Variable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fedmq.device.interface import Setting
    from fedmq.protocol.messages import Report
    from fedmq.rules import Claim
    from fedmq.transport.interface import Transport
    from fedmq.vectors import Vector

LAYOUT: Final = Layout((Variable("effects", (3,)), Variable("offset", (1,))))
TRUTH: Final = np.array([9.0, 0.8, -4.0, 6.0], np.float32)
"""What the greenhouses are to find out: degrees for full sun, for a degree outside, for open windows, and at rest."""


class Greenhouse:
    """Trains a linear model on one greenhouse's readings. Any class with these members is a trainer."""

    name = "least squares"
    layout = LAYOUT

    def __init__(self, number: int) -> None:
        """Make up the readings: greenhouse 1 has 20 of them, greenhouse 2 has 40, and so on."""
        chance = np.random.default_rng(number)
        self.examples = 20 * number
        self._x = np.ones((self.examples, 4), np.float32)
        self._x[:, :3] = chance.uniform(0, 1, (self.examples, 3))
        self._y = self._x @ TRUTH + chance.normal(0, 0.5, self.examples).astype(np.float32)

    def initial(self) -> Vector:
        """Return zeros."""
        return np.zeros(LAYOUT.size, np.float32)

    def train(self, model: Vector, settings: Mapping[str, Setting], *, seed: int) -> Trained:  # noqa: ARG002
        """Go down the slope of the mean squared error; `seed` has nothing to decide here."""
        steps, rate = int(settings.get("steps", 10)), np.float32(settings.get("learning_rate", 0.2))
        vector = model.copy()
        for _ in range(steps):
            vector -= rate * self._x.T @ (self._x @ vector - self._y) / np.float32(self.examples)
        return Trained(vector, self.examples, steps, self.evaluate(model))

    def evaluate(self, model: Vector) -> Mapping[str, float]:
        """Return the mean squared error."""
        return {"loss": float(np.mean((self._x @ model - self._y) ** 2))}


@dataclass(frozen=True, slots=True)
class ByRoot(Weigher):
    """A weigher: between one voice for each device and one for each example."""

    def weigh(self, claim: Claim) -> tuple[float, ...]:
        """Return the root of the number of examples that the device claims."""
        return (math.sqrt(max(1, claim.examples)),)

    def __str__(self) -> str:
        return "by root of examples"


FEDERATION: Final = Federation(
    "greenhouses",
    rule=Rule(guards=(NormClip(20.0),), weigh=ByRoot(), step=Momentum(beta=0.5)),
    policy=Policy(min_devices=5, quorum=5),
    stop=StopWhen(rounds=30),
    training={"steps": 10, "learning_rate": 0.2},
)


async def federate(transport: Callable[[], Transport], folder: Path) -> Vector:
    """Run aggregator and devices to the end; return the model. The aggregator keeps its state in `folder`."""
    greenhouses = {f"greenhouse-{number}": Greenhouse(number) for number in range(1, 6)}
    first = StoredModel(LAYOUT, np.zeros(LAYOUT.size, np.float32))
    aggregator = Aggregator(FEDERATION, transport(), CheckpointFolder(folder), first, on_report=tell)
    devices = [Device(Identity(FEDERATION.name, name), transport(), one) for name, one in greenhouses.items()]
    async with asyncio.TaskGroup() as group:
        for device in devices:
            group.create_task(device.run())
        print(f"ended: {await aggregator.run()}")
    return aggregator.modelling.weights.vector


def tell(report: Report) -> None:
    """Print every fifth round."""
    if report.round % 5 == 0:
        print(f"round {report.round}: {report.accepted} updates, error {report.metrics['loss']:.2f}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Learn, and print what was learned beside the truth."""
    parser = argparse.ArgumentParser(description="Five greenhouses learn a linear model together.")
    parser.add_argument("--broker", metavar="URL", help="an MQTT broker instead of the one in memory")
    address = parser.parse_args(arguments).broker
    broker = MemoryBroker()

    def transport() -> Transport:
        return broker if address is None else open_transport(address, Credentials())

    with TemporaryDirectory() as folder:
        model = asyncio.run(federate(transport, Path(folder)))
    names = ("sun", "outside", "windows", "at rest")
    for name, learned, true in zip(names, model, TRUTH, strict=True):
        print(f"{name:<8} learned {learned:5.1f}   true {true:5.1f}")


if __name__ == "__main__":
    main()
