"""One round's steps: batches into an interpreter, gradients out, and what is done to them on the way to the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from fedmq.errors import ConfigError
from fedmq.trainers.litert.draws import Drawing
from fedmq.trainers.litert.file import DRAW, input_ports

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from fedmq.trainers.batches import Rows
    from fedmq.trainers.litert.examples import Examples
    from fedmq.trainers.litert.file import Description
    from fedmq.trainers.litert.model import Interpreter
    from fedmq.trainers.litert.optimizers import Mover
    from fedmq.trainers.shares import Array

    Floats = Sequence[NDArray[np.float32]]
    Run = Callable[..., Mapping[str, NDArray[np.float32]]]


ROWS_JUDGED_AT_ONCE: Final = 512


class Descent:
    """The weights in an interpreter, on their way down over one device's examples.

    `start` are the round's first weights, `linear` and `strength` a pull's terms (see `fedmq.descent.Pull`), all as one
    array for each variable of the model.
    """

    def __init__(  # noqa: PLR0913  # what a round consists of
        self,
        interpreter: Interpreter,
        description: Description,
        examples: Examples,
        mover: Mover,
        start: Floats,
        *,
        linear: Floats | None,
        strength: float,
        seed: int,
    ) -> None:
        self._interpreter = interpreter
        self._description = description
        self._examples = examples
        self._mover = mover
        self._numbers = description.trainable
        shared = [
            place for place, i in enumerate(self._numbers) if description.variables[i].scope == "shared"
        ]
        self._start = [(place, start[self._numbers[place]]) for place in shared] if strength else []
        self._linear = [] if linear is None else [(place, linear[self._numbers[place]]) for place in shared]
        self._strength = np.float32(strength)
        self._drawing = Drawing(description, seed)
        for weight, value in zip(interpreter.weights(), start, strict=True):
            weight[...] = value

    def collect(self, into: Floats) -> None:
        """Copy the weights as they are now to these arrays, one for each variable."""
        for weight, target in zip(self._interpreter.weights(), into, strict=True):
            target[...] = weight

    def step(self, rows: Rows) -> NDArray[np.float64]:
        """Take one optimizer step on these rows; return the batch's loss and, for each metric, a sum and a count."""
        drawn = self._drawing.step(len(rows))
        gradients, figures = self._slopes(rows, drawn)
        weights = self._interpreter.weights()
        moved = [weights[i] for i in self._numbers]
        self._steer(gradients, moved)
        self._mover.move(moved, gradients)
        return figures

    def _slopes(
        self, rows: Rows, drawn: Sequence[Array]
    ) -> tuple[list[NDArray[np.float32]], NDArray[np.float64]]:
        """Return gradients and figures of a batch, of whatever size, and bring the model's statistics up to date."""
        most, count = self._description.batch_size, len(rows)
        if count <= most:
            found, told = self._run(rows, drawn, count)
            return found, told.astype(np.float64)
        if self._description.indivisible:
            raise ConfigError(
                f"batch_size is {count}, the model was exported for {most} and a batch of it cannot be taken in parts: "
                f"export it with --batch-size {count}, or ask for no more than {most}"
            )
        gradients = [np.zeros(self._description.variables[i].shape, np.float32) for i in self._numbers]
        figures = np.zeros(1 + 2 * len(self._description.metrics))
        for begin in range(0, count, most):
            part = slice(begin, begin + most)
            figures += self._add(gradients, rows[part], [draw[part] for draw in drawn], count)
        return gradients, figures

    def _add(self, sums: Floats, rows: Rows, drawn: Sequence[Array], batch: int) -> NDArray[np.float32]:
        """Add the gradients of a part of a batch to `sums`; return its figures."""
        gradients, figures = self._run(rows, drawn, batch)
        for total, gradient in zip(sums, gradients, strict=True):
            np.add(total, gradient, out=total)
        return figures.copy()

    def _run(
        self, rows: Rows, drawn: Sequence[Array], batch: int
    ) -> tuple[list[NDArray[np.float32]], NDArray[np.float32]]:
        fill(self._interpreter.inputs(), self._description, self._examples, rows, batch, drawn)
        self._interpreter.run()
        results = self._interpreter.results()
        figures, count = results.pop(), len(self._numbers)
        if self._description.updated:
            weights = self._interpreter.weights()
            for number, value in zip(self._description.updated, results[count:], strict=True):
                weights[number][...] = value
        return results[:count], figures

    def _steer(self, gradients: Floats, weights: Floats) -> None:
        """Add a pull's terms to the gradients of what is shared; what stays on the device is not pulled."""
        for place, term in self._linear:
            np.add(gradients[place], term, out=gradients[place])
        for place, base in self._start:
            np.add(gradients[place], self._strength * (weights[place] - base), out=gradients[place])


class Judge:
    """A model's figures on examples that nothing is learned from; they are taken together as Keras' trainer does."""

    def __init__(
        self, run: Run, description: Description, examples: Examples, weights: Sequence[Array]
    ) -> None:
        self._run = run
        self._description = description
        self._examples = examples
        ports = [port for port in input_ports(description) if not port.name.startswith(DRAW)]
        self._room = [np.zeros(port.shape, port.dtype) for port in ports[len(weights) :]]
        self._inputs = dict(zip([port.name for port in ports], (*weights, *self._room), strict=True))

    def batches(self) -> Iterator[Rows]:
        """Yield the numbers of all rows, in order, in batches."""
        return self._examples.batches(
            self._description.batch_size if self._description.indivisible else ROWS_JUDGED_AT_ONCE
        )

    def figures(self, rows: Rows) -> NDArray[np.float64]:
        """Return the loss of these rows and, for each metric, a sum and a count."""
        most = self._description.batch_size
        figures = np.zeros(1 + 2 * len(self._description.metrics))
        for begin in range(0, len(rows), most):
            fill(self._room, self._description, self._examples, rows[begin : begin + most], len(rows))
            figures += self._run(**self._inputs)["figures"]
        return figures


def fill(  # noqa: PLR0913, PLR0917  # a batch
    inputs: Sequence[Array],
    description: Description,
    examples: Examples,
    rows: Rows,
    batch: int,
    drawn: Sequence[Array] = (),
) -> None:
    """Write these rows, which are part of a batch of `batch`, to an interpreter's `inputs`; zeros to what is left."""
    count, parts = len(rows), len(examples.parts)
    for target, array in zip(inputs, examples.parts, strict=False):
        array.take(rows, axis=0, out=target[:count], mode="clip")  # "raise" would write to a copy first
    share, valid = inputs[parts], inputs[parts + 1]
    examples.weights.take(rows, out=share[:count], mode="clip")
    if description.averaged:  # the graph divides by its own number of rows
        np.multiply(share[:count], np.float32(description.batch_size / batch), out=share[:count])
    valid[:count] = 1
    for target, numbers in zip(inputs[parts + 2 :], drawn, strict=False):
        target[:count] = numbers
    if count < description.batch_size:
        for target in inputs:
            target[count:] = 0
