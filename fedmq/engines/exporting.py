"""Exports a user's model for the litert engine, in a process of its own: it takes what to do as one argument, JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from fedmq.engines.apart import serve
from fedmq.engines.keras import first_model

if TYPE_CHECKING:
    from collections.abc import Mapping

    import keras


def main(asked: Mapping[str, Any]) -> None:
    """Write the file that is `asked` for. Raises FedmqError where that model cannot be exported."""
    from fedmq.trainers.litert.export import export  # which imports TensorFlow, and is told how by then
    from fedmq.trainers.litert.file import to_bytes

    with np.load(asked["data"], allow_pickle=False) as data:
        examples = data["x"], data["y"]
    model = first_model(asked["module"], {"seed": asked.get("seed")})
    file = export(cast("keras.Model", model), examples, batch_size=asked.get("batch_size", 32)).file
    Path(asked["file"]).write_bytes(to_bytes(file))


if __name__ == "__main__":
    serve(main)
