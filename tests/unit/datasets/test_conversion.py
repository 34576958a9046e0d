"""The developer's tool that made the data files."""

from __future__ import annotations

import importlib.util
import io
import pickle
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from types import ModuleType

TOOL = Path(__file__).parents[3] / "tools" / "convert_datasets.py"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("convert_datasets", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _npy(content: object) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array(content, dtype=object), allow_pickle=True)
    return file.getvalue()


class Bomb:
    """Would end the process when unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return sys.exit, (3,)


def test_refuses_a_pickle_that_calls_anything(tool: ModuleType) -> None:
    with pytest.raises(pickle.UnpicklingError, match=r"the file asks for \w+\.exit, which no array needs"):
        tool.ArraysOnly(io.BytesIO(pickle.dumps(Bomb(), protocol=2)), encoding="latin1").load()


def test_refuses_another_wheel(tool: ModuleType, tmp_path: Path) -> None:
    wheel = tmp_path / "other.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(tool.SMARTWATCH.member, _npy({}))
    with pytest.raises(SystemExit, match=r"other\.whl is not the file this tool was written for"):
        tool.extract(wheel, tool.SMARTWATCH)


def test_rounds_to_the_nearest_step(tool: ModuleType) -> None:
    signal = np.random.default_rng(0).uniform(-6, 6, (1000, 6))
    error = tool.quantised(signal) * tool.SCALE - signal
    assert (np.abs(error).max(0) <= tool.SCALE * 0.501).all()


def test_stops_at_a_sample_too_large(tool: ModuleType) -> None:
    with pytest.raises(SystemExit, match="too large for an int16"):
        tool.quantised(np.full((1, 6), 7.0))


def test_what_it_writes_reads_back(tool: ModuleType) -> None:
    """Running sums of the stored differences give the samples, in the order of exercise and arm."""
    rng = np.random.default_rng(1)
    signals = [rng.uniform(-6, 6, (length, 6)) for length in (5, 3, 4)]
    made = {
        "X": signals,
        "subject": np.array([2, 1, 2]),
        "y": np.array([4, 0, 1]),
        "side": np.array([0.0, 1.0, 1.0]),
    }
    arrays = tool.person_arrays(made, 2)
    samples = np.cumsum(arrays["deltas"], axis=1, dtype=np.int16).T * arrays["scale"]
    np.testing.assert_allclose(samples, np.concatenate([signals[2], signals[0]]), atol=6e-4)
    assert (arrays["lengths"].tolist(), arrays["exercise"].tolist()) == ([4, 5], [1, 4])
    assert arrays["right"].tolist() == [True, False]
