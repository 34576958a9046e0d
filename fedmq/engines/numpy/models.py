"""What a Keras model was found to be, as the NumPy engine can train it, and how one process tells another."""

from __future__ import annotations

import json
import math
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fedmq.engines.apart import run_apart
from fedmq.engines.numpy.layers import ConvolutionSizes, DenseSizes
from fedmq.engines.numpy.networks import Network, Sizes
from fedmq.trainers.numpy import Mlp
from fedmq.vectors import Layout, Variable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fedmq.vectors import Vector


@dataclass(frozen=True, slots=True, eq=False)
class KerasModel:
    """A Keras model as the NumPy engine knows it: layers, layout, first weights, and what it was compiled with."""

    network: Network
    layout: Layout
    initial: Vector
    learning_rate: float
    momentum: float

    @property
    def mlp(self) -> Mlp | None:
        """The same as a perceptron, where it is one."""
        dense = [layer for layer in self.network.layers if isinstance(layer, DenseSizes)]
        if len(dense) < len(self.network.layers) or not all(layer.relu for layer in dense[:-1]):
            return None
        *hidden, classes = (layer.outputs for layer in dense)
        return Mlp(math.prod(self.network.image), tuple(hidden), classes=classes)

    def save(self, path: str) -> None:
        """Write it to an ``.npz`` file."""
        said = {
            "image": self.network.image,
            "layers": [asdict(layer) for layer in self.network.layers],
            "layout": [asdict(variable) for variable in self.layout.variables],
            "learning_rate": self.learning_rate,
            "momentum": self.momentum,
        }
        np.savez(path, initial=self.initial, said=np.asarray(json.dumps(said)))

    @classmethod
    def load(cls, path: Path) -> KerasModel:
        """Read what `save` wrote, a moment ago."""
        with np.load(path, allow_pickle=False) as file:
            initial, said = file["initial"], json.loads(str(file["said"]))
        network = Network(tuple(said["image"]), tuple(_layer(given) for given in said["layers"]))
        layout = Layout(tuple(_variable(given) for given in said["layout"]))
        return cls(network, layout, initial, said["learning_rate"], said["momentum"])


def read_apart(module: str, options: Mapping[str, Any]) -> KerasModel:
    """Return what the Keras model of a user's module is, found in a process of its own. Raises ConfigError."""
    with tempfile.TemporaryDirectory(prefix="fedmq-numpy-") as folder:
        path = Path(folder) / "model.npz"
        run_apart(
            "fedmq.engines.numpy.reading",
            {"module": module, "file": str(path), "seed": options.get("seed")},
        )
        return KerasModel.load(path)


def _variable(given: Mapping[str, Any]) -> Variable:
    return Variable(given["name"], tuple(given["shape"]), given["kind"], given["scope"])


def _layer(given: Mapping[str, Any]) -> Sizes:
    if "outputs" in given:
        return DenseSizes(**given)
    pairs = {name: tuple(given[name]) for name in ("kernel", "pool")}
    return ConvolutionSizes(**{**given, **pairs})
