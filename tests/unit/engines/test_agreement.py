"""One training, every engine, the same weights: what the Keras trainer gives is what all are held to.

Each engine runs in a process of its own, as Keras has one backend in each. All begin with the same vector: first
weights are drawn by Keras' backend, and differ.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from fedmq.engines.choice import installed

if TYPE_CHECKING:
    from collections.abc import Mapping

pytestmark = [pytest.mark.slow, pytest.mark.keras, pytest.mark.timeout(600)]

TOLERANCE = 2e-6
"""Largest difference of any weight; they are of the order of 0.1, and float32 has seven digits."""

WAYS = {
    "tensorflow, single": ("tensorflow", {"way": "single"}),
    "tensorflow, stacked": ("tensorflow", {"way": "stacked"}),
    "jax": ("jax", {}),
    "litert": ("litert", {"batch_size": 8}),
    "numpy": ("numpy", {}),
}
MODELS = ("mlp", "cnn", "conv1d", "pooled")
IN_NUMPY = ("mlp", "pooled")
CASES = ("plain", "rows", "epochs", "most", "proximal", "pull")


def run(folder: Path, way: str) -> Mapping[str, Any]:
    """Return what an engine gave: vectors and facts of each model and case."""
    engine, options = WAYS[way]
    if engine not in installed():
        pytest.skip(f"{engine} is not installed")
    path = folder / f"{way.replace(', ', '-')}" / "found.npz"
    path.parent.mkdir()
    models = IN_NUMPY if engine == "numpy" else MODELS
    asked = {"engine": engine, "options": options, "models": models, "file": str(path)}
    program = Path(__file__).with_name("one_engine.py")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OPENBLAS_NUM_THREADS": "1"}
    environment.pop("KERAS_BACKEND", None)
    done = subprocess.run(
        [sys.executable, str(program), json.dumps(asked)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    with np.load(path) as found:
        return dict(found)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("agreement")


@pytest.fixture(scope="module")
def wanted(folder: Path) -> Mapping[str, Any]:
    """What Keras' own training loop gives, one device after the other."""
    return run(folder, "tensorflow, single")


@pytest.mark.parametrize("way", [way for way in WAYS if way != "tensorflow, single"])
def test_all_engines_agree(way: str, folder: Path, wanted: Mapping[str, Any]) -> None:
    found = run(folder, way)
    for model in MODELS:
        if f"{model} start" not in found:
            assert way == "numpy"
            assert model not in IN_NUMPY
            continue
        assert found[f"{model} digest"].tobytes() == wanted[f"{model} digest"].tobytes()
        for case in (f"{model} {name}" for name in CASES):
            assert np.abs(found[case] - wanted[case]).max() < TOLERANCE, case
            assert found[f"{case} facts"] == pytest.approx(wanted[f"{case} facts"], abs=1e-5), case
            assert np.abs(wanted[case] - wanted[f"{model} start"]).max() > 1e-3  # else nothing was shown
        # company changes no bit
        assert found[f"{model} alone"].tobytes() == found[f"{model} plain"][2].tobytes()
