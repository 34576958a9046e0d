"""A model file in use: one `LitertModel` for all devices of a process, and a few interpreters that take turns."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import numpy as np

from fedmq.errors import ConfigError
from fedmq.trainers.litert.file import (
    EVALUATE,
    GRADIENTS,
    UPDATE,
    ModelFile,
    input_ports,
    output_ports,
    read,
)
from fedmq.trainers.litert.runtime import open_interpreter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path
    from typing import Any, TypeAlias

    from numpy.typing import NDArray

    from fedmq.trainers.litert.file import Description, Port
    from fedmq.trainers.shares import Array
    from fedmq.vectors import Layout, Vector

    Floats: TypeAlias = NDArray[np.float32]
    Lite: TypeAlias = Any
    Detail: TypeAlias = Mapping[str, Any]
    View: TypeAlias = Callable[[], NDArray[Any]]


class LitertModel:
    """A file that `fedmq export` has made, ready to train.

    Any number of trainers, in any number of threads, may share one: `interpreter` lends them one interpreter each, and
    makes a new one only where all are lent. The file is read once, whole.

    Raises StoreError where `file` cannot be read, ConfigError where it is damaged or does not do what it says.
    """

    def __init__(self, file: Path | ModelFile) -> None:
        found = file if isinstance(file, ModelFile) else read(file)
        self.description: Final[Description] = found.description
        self.layout: Final[Layout] = found.description.layout
        self._content = found.model
        self._weights = found.weights
        self._idle: list[Interpreter] = []
        self._lock = threading.Lock()
        with self.interpreter():
            pass  # what is wrong with the file shows now

    def initial(self, scope: str = "shared") -> Vector:
        """Return the first weights of the variables of this scope, ``shared`` or ``personal``."""
        own = np.repeat(
            [v.scope == scope for v in self.layout.variables], [v.size for v in self.layout.variables]
        )
        weights: Vector = self._weights[own]
        return weights

    @contextmanager
    def interpreter(self) -> Iterator[Interpreter]:
        """Lend an interpreter that nobody else has. What it computes does not depend on who had it before."""
        with self._lock:
            found = self._idle.pop() if self._idle else None
        found = found or Interpreter(self._content, self.description)
        try:
            yield found
        finally:
            with self._lock:
                self._idle.append(found)


class Interpreter:
    """One LiteRT interpreter, on one thread; its inputs are where a model's weights live while they are trained.

    What `weights`, `inputs` and `results` return is LiteRT's own memory, good until the next `run`: nothing may hold it
    any longer, LiteRT refuses to run while something does.
    """

    def __init__(self, content: bytes, description: Description) -> None:
        self._lite = open_interpreter(content)
        self._update = None
        if description.optimizer.kind == "traced":
            beside = open_interpreter(
                content
            )  # LiteRT refuses to run while a runner of the same interpreter lives
            self._update = beside.get_signature_runner(UPDATE)
        self._variables = len(description.variables)
        self._inputs, self._outputs = _places(self._lite, description)

    def weights(self) -> list[Floats]:
        """Return one array for each variable, to read and to write."""
        return [view() for view in self._inputs[: self._variables]]

    def inputs(self) -> list[Array]:
        """Return what a batch is written to: x, y, `SHARE`, `VALID` and the layers' draws, as described."""
        return [view() for view in self._inputs[self._variables :]]

    def run(self) -> None:
        """Compute gradients, updated statistics and figures from what stands in weights and inputs."""
        self._lite.invoke()

    def results(self) -> list[Floats]:
        """Return what the last `run` gave: a gradient for each trainable variable, updated statistics, figures."""
        return [view() for view in self._outputs]

    @contextmanager
    def judge(self) -> Iterator[Callable[..., Mapping[str, Floats]]]:
        """Give `EVALUATE`, a function of inputs by name, weights among them; meanwhile, `run` cannot be called."""
        runner = [self._lite.get_signature_runner(EVALUATE)]
        try:
            yield lambda **inputs: runner[0](**inputs)  # noqa: PLW0108  # no reference to what is in the list
        finally:
            runner.clear()  # LiteRT counts it among the views, whoever still holds what was given

    def update(self, inputs: Mapping[str, Array]) -> Mapping[str, Floats]:
        """Return new weights and states of a traced optimizer."""
        assert self._update is not None  # noqa: S101  # who asks has read the description
        found: Mapping[str, Floats] = self._update(**inputs)
        return found


def _places(lite: Lite, description: Description) -> tuple[list[View], list[View]]:
    """Return where the inputs and outputs of `GRADIENTS` lie. Raises ConfigError where they are not as described."""
    runner = lite.get_signature_runner(GRADIENTS)
    inputs = _named(runner.get_input_details(), input_ports(description))
    outputs = _named(runner.get_output_details(), output_ports(description))
    primary = {
        detail["index"]: detail["name"] for detail in (*lite.get_input_details(), *lite.get_output_details())
    }
    if any(primary.get(detail["index"]) != detail["name"] for detail in (*inputs, *outputs)):
        raise ConfigError(f"signature {GRADIENTS} is not the model file's first: export it again")
    return [lite.tensor(detail["index"]) for detail in inputs], [
        lite.tensor(detail["index"]) for detail in outputs
    ]


def _named(details: Mapping[str, Detail], ports: Iterable[Port]) -> list[Detail]:
    """Return the details of these ports, in their order."""
    found = []
    for port in ports:
        detail = details.get(port.name)
        if detail is None or (tuple(detail["shape"]), np.dtype(detail["dtype"]).name) != (
            port.shape,
            port.dtype,
        ):
            raise ConfigError(
                f"the model file has no {port.name} of shape {port.shape} and type {port.dtype}: export it again"
            )
        found.append(detail)
    return found
