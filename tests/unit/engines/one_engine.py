"""Trains five devices of different sizes on one engine, as tasks may ask for it, and saves what came out."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fedmq.descent import Pull
from fedmq.engines import Front, Job
from fedmq.engines.choice import load
from fedmq.trainers.module import Supply

if TYPE_CHECKING:
    from collections.abc import Callable

    from fedmq.engines import Engine

ROWS = (3, 8, 21, 21, 30)
SHAPES = {"mlp": (20,), "cnn": (10, 10, 1), "conv1d": (24, 6), "pooled": (11, 9, 2)}
COLUMNS = ("loss", "accuracy", "held_out", "train_loss", "train_accuracy")
MODULE = """
def model():
    import keras
    from keras import layers
    body = {body}
    network = keras.Sequential([keras.Input({shape}), *body, layers.Dense(4)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(keras.optimizers.SGD(0.1, momentum={momentum}), loss, metrics=["accuracy"])
    return network


def data(device):
    raise AssertionError
"""
BODIES = {
    "mlp": '[layers.Dense(12, activation="relu"), layers.Dense(7, activation="relu")]',
    "cnn": (
        '[layers.Conv2D(4, 3, activation="relu"), layers.MaxPooling2D(), '
        'layers.Conv2D(6, 3, strides=2, padding="same", activation="relu"), layers.Flatten()]'
    ),
    "pooled": (
        '[layers.Conv2D(5, 3, padding="same"), layers.MaxPooling2D((2, 3)), layers.ReLU(), '
        'layers.Conv2D(6, (2, 3), activation="relu"), layers.Flatten(), layers.Dense(7, activation="relu")]'
    ),
    "conv1d": (
        '[layers.Conv1D(8, 5, strides=2, padding="same"), layers.GroupNormalization(4), layers.ReLU(), '
        'layers.Conv1D(6, 3, dilation_rate=2, activation="relu"), layers.GlobalMaxPooling1D()]'
    ),
}


MOMENTUM = {"mlp": 0.0, "cnn": 0.9, "conv1d": 0.0, "pooled": 0.9}


def main(asked: dict[str, Any]) -> None:
    """Train every model that is asked for."""
    make = load(asked["engine"])
    found: dict[str, Any] = {}
    for model in asked["models"]:
        told = trained(model, make, asked["options"], Path(asked["file"]).with_name(f"{model}.py"))
        found |= {f"{model} {name}": value for name, value in told.items()}
    np.savez(asked["file"], **found)


def trained(model: str, make: Callable[..., Engine], options: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return vectors and facts of each case."""
    shape = SHAPES[model]
    path.write_text(
        MODULE.format(body=BODIES[model], shape=shape, momentum=MOMENTUM[model]), encoding="utf-8"
    )
    supplies = {f"d{k}": supply(k, rows, shape) for k, rows in enumerate(ROWS)}
    engine = make(str(path), supplies, {"seed": 1, **options})
    generator = np.random.Generator(np.random.Philox(4))
    start = engine.layout.pack(
        [
            np.ones(v.shape, np.float32) if v.name.endswith("gamma") else 0.2 * generator.normal(size=v.shape)
            for v in engine.layout.variables
        ]
    )
    linear = (0.02 * generator.normal(size=start.size)).astype(np.float32)
    found: dict[str, Any] = {"start": start, "digest": np.frombuffer(engine.layout.digest, np.uint8)}
    with Front(engine) as front:
        for case, settings, pull in (
            ("plain", {"batch_size": 8}, None),
            ("epochs", {"batch_size": 8, "epochs": 3, "learning_rate": 0.05}, None),
            ("most", {"batch_size": 8, "epochs": 4, "max_steps": 5}, None),
            ("proximal", {"batch_size": 8, "epochs": 2, "proximal": 0.5}, None),
            ("pull", {"batch_size": 8, "epochs": 2}, Pull(linear, 0.3)),
        ):
            jobs = [Job(name, start, settings, seed, pull) for seed, name in enumerate(supplies)]
            results = front.train_all(jobs)
            found[case] = np.stack([each.vector for each in results])
            figures = [[each.metrics[name] for name in COLUMNS] for each in results]
            facts = [[each.steps, each.examples, each.reach or -1.0] for each in results]
            found[f"{case} facts"] = np.concatenate([figures, facts], axis=1)
            found |= picked(front, start) if case == "plain" else {}
            if case == "plain":
                found["alone"] = engine.train([jobs[2]])[0].vector
    return found


def picked(front: Front, start: Any) -> dict[str, Any]:  # noqa: ANN401 # a vector
    """Return what comes of jobs that name some of one device's rows."""
    picks = [np.array([29, 0, 3]), np.arange(4, 25), np.array([7] * 9)]
    jobs = [Job("d4", start, {"batch_size": 8, "epochs": 2}, k, rows=rows) for k, rows in enumerate(picks)]
    results = front.train_all(jobs)
    figures = [[each.metrics[name] for name in COLUMNS] for each in results]
    facts = [[each.steps, each.examples, each.reach or -1.0] for each in results]
    return {
        "rows": np.stack([each.vector for each in results]),
        "rows facts": np.concatenate([figures, facts], axis=1),
    }


def supply(number: int, rows: int, shape: tuple[int, ...]) -> Supply:
    """Return a device's examples, and a few that it holds back."""
    generator = np.random.Generator(np.random.Philox(number))

    def draw(count: int) -> tuple[Any, Any]:
        return generator.normal(size=(count, *shape)).astype(np.float32), generator.integers(0, 4, count)

    return Supply(draw(rows), draw(5 + number))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
