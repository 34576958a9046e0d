"""What the NumPy engine trains: an `Mlp` of the user's module, or what a Keras model was found to be."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fedmq.engines.apart import run_apart
from fedmq.trainers.numpy import Mlp
from fedmq.vectors import Layout, Variable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fedmq.vectors import Vector


@dataclass(frozen=True, slots=True, eq=False)
class PerceptronModel:
    """A Keras model as the NumPy trainer knows it: sizes, layout, first weights, and what it was compiled with."""

    mlp: Mlp
    layout: Layout
    initial: Vector
    learning_rate: float
    momentum: float

    def save(self, path: str) -> None:
        """Write it to an ``.npz`` file."""
        said = {
            "mlp": asdict(self.mlp),
            "layout": [asdict(variable) for variable in self.layout.variables],
            "learning_rate": self.learning_rate,
            "momentum": self.momentum,
        }
        np.savez(path, initial=self.initial, said=np.asarray(json.dumps(said)))

    @classmethod
    def load(cls, path: Path) -> PerceptronModel:
        """Read what `save` wrote, a moment ago."""
        with np.load(path, allow_pickle=False) as file:
            initial, said = file["initial"], json.loads(str(file["said"]))
        mlp = Mlp(said["mlp"]["inputs"], tuple(said["mlp"]["hidden"]), classes=said["mlp"]["classes"])
        layout = Layout(tuple(_variable(given) for given in said["layout"]))
        return cls(mlp, layout, initial, said["learning_rate"], said["momentum"])


def read_apart(module: str, options: Mapping[str, Any]) -> PerceptronModel:
    """Return what the Keras model of a user's module is, found in a process of its own. Raises ConfigError."""
    with tempfile.TemporaryDirectory(prefix="fedmq-numpy-") as folder:
        path = Path(folder) / "model.npz"
        run_apart(
            "fedmq.engines.numpy.reading",
            {"module": module, "file": str(path), "seed": options.get("seed")},
        )
        return PerceptronModel.load(path)


def _variable(given: Mapping[str, Any]) -> Variable:
    return Variable(given["name"], tuple(given["shape"]), given["kind"], given["scope"])
