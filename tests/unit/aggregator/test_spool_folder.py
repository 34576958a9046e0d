"""Rules that need every update keep them where the federation is kept, not in a folder that may be in memory."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from fedmq.aggregator.modelling import Modelling
from fedmq.aggregator.settings import Federation
from fedmq.errors import StoreError
from fedmq.protocol.messages import DELTA, Facts, Task, TaskKind, Update
from fedmq.rules import preset
from fedmq.testing.federation import SMALL

TASK = Task(b"r" * 8, 1, 1, TaskKind.TRAIN, 1, SMALL.digest, b"s" * 16, 1.0, 9.0, "float32", 9999)


def test_the_rows_are_written_beside_the_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "federation"
    folder.mkdir()
    federation = Federation("watches", rule=preset("median"))
    first = np.zeros(SMALL.size, np.float32)
    modelling = Modelling.found(federation, TASK.run, SMALL, first, folder=folder)
    body = federation.encoding.up.encode(first + 1, SMALL.sizes)
    update = Update(TASK.run, b"u" * 8, 1, SMALL.digest, Facts(5), {DELTA: body})
    modelling.begin(TASK)
    shutil.rmtree(folder)
    with pytest.raises(StoreError, match="federation"):
        modelling.absorb(update)
    folder.mkdir()
    modelling.begin(TASK)
    modelling.absorb(update)
    np.testing.assert_array_equal(modelling.finish(2).weights.vector, first + 1)
