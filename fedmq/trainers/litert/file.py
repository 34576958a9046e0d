"""The file that `fedmq export` makes: a LiteRT model that trains, and what a device must know of it.

It is an ordinary LiteRT file (``.tflite``) with a small ZIP archive after its end, the way in which LiteRT's own
metadata carries associated files: LiteRT reads the front, ``unzip -p model.tflite fedmq.json`` the back. The archive
holds ``fedmq.json``, a `Description`, and ``weights.f32``, the model's first weights as little-endian float32; nothing
in it is compressed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import cattrs
import numpy as np

from fedmq.errors import ConfigError, FedmqError, StoreError
from fedmq.vectors import Layout, Variable, Vector

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FORMAT: Final = 1
SUFFIX: Final = ".tflite"
DESCRIPTION: Final = "fedmq.json"
WEIGHTS: Final = "weights.f32"

GRADIENTS: Final = "gradients"
EVALUATE: Final = "judge"
UPDATE: Final = "update"

SHARE: Final = "share"
"""Input: the weight of each row in the loss; 0 for rows that only fill a batch up."""
DRAW: Final = "draw_"
"""What the names of inputs for random numbers begin with."""
VALID: Final = "valid"
"""Input: 1 for rows that are examples, 0 for those that only fill a batch up."""

MOST_BYTES: Final = 2**31
MOST_DESCRIPTION_BYTES: Final = 2**22
_MOST_ROWS: Final = 2**16


@dataclass(frozen=True, slots=True)
class Port:
    """One array of examples that a signature takes: its name, the shape of one example, and a NumPy type's name."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, slots=True)
class State:
    """One array that an optimizer remembers from step to step: `first` everywhere before a round's first step."""

    shape: tuple[int, ...]
    dtype: str
    first: float


@dataclass(frozen=True, slots=True)
class Optimizer:
    """What moves the weights.

    `rate` is the learning rate that the model was compiled with, None where a schedule decides. `kind` ``sgd`` is
    Keras' SGD with `momentum`, in Nesterov's form where `nesterov`; the device computes it itself. ``traced`` is any
    other: the signature `UPDATE` holds Keras' own arithmetic.
    """

    kind: Literal["sgd", "traced"]
    rate: float | None
    momentum: float = 0.0
    nesterov: bool = False
    states: tuple[State, ...] = ()


@dataclass(frozen=True, slots=True)
class Draw:
    """Random numbers that a layer wants in every step, uniform in [0, 1): an input of that name and shape.

    `generator` is the number of the Keras seed generator that they come from, `place` how many draws that generator has
    made in a step before this one, `draws` how many it makes in all.
    """

    name: str
    shape: tuple[int, ...]
    generator: int
    place: int
    draws: int


@dataclass(frozen=True, slots=True)
class Description:
    """What a device knows of a model, besides its weights.

    `batch_size` rows go into one call of `GRADIENTS` and of `EVALUATE`; fewer are padded. `variables` are all of the
    model's floating-point weights, in Keras' order. `updated` are the numbers of those that a forward pass changes (the
    statistics of batch normalisation). `x` are the model's inputs, `y` its target. `classes`, where there are any, is
    how many classes the labels may name. `metrics` are the names of the compiled ones, each a mean over examples.
    `averaged` says that the loss is divided by the number of rows, `indivisible` that a batch cannot be taken in parts,
    as its rows (or a penalty on weights) count together. `generators` is the number of Keras' seed generators. `engine`
    says what it was made with, `sha256` is the digest of the LiteRT part.
    """

    format: int
    engine: str
    sha256: str
    batch_size: int
    variables: tuple[Variable, ...]
    updated: tuple[int, ...]
    x: tuple[Port, ...]
    y: Port
    classes: int | None
    metrics: tuple[str, ...]
    optimizer: Optimizer
    averaged: bool
    indivisible: bool
    generators: int = 0
    draws: tuple[Draw, ...] = ()

    @property
    def layout(self) -> Layout:
        """The layout that all devices of a federation share."""
        return Layout(self.variables)

    @property
    def trainable(self) -> tuple[int, ...]:
        """Numbers of the variables that have a gradient."""
        return tuple(i for i, variable in enumerate(self.variables) if variable.kind == "trainable")


@dataclass(frozen=True, slots=True, eq=False)
class ModelFile:
    """A file's three parts: the LiteRT model, what is known of it, and its first weights, personal ones included."""

    model: bytes
    description: Description
    weights: Vector


def input_ports(description: Description) -> Iterator[Port]:
    """Yield what `GRADIENTS` takes, in the order that devices keep; shapes have the batch's rows in them."""
    rows = description.batch_size
    yield from (Port(f"w{i}", v.shape, "float32") for i, v in enumerate(description.variables))
    yield from (Port(port.name, (rows, *port.shape), port.dtype) for port in (*description.x, description.y))
    yield from (Port(name, (rows,), "float32") for name in (SHARE, VALID))
    yield from (Port(draw.name, (rows, *draw.shape), "float32") for draw in description.draws)


def output_ports(description: Description) -> Iterator[Port]:
    """Yield what `GRADIENTS` gives: gradients, updated statistics, and the loss with each metric's sum and count."""
    variables = description.variables
    yield from (Port(f"g{i}", variables[i].shape, "float32") for i in description.trainable)
    yield from (Port(f"s{i}", variables[i].shape, "float32") for i in description.updated)
    yield Port("figures", (1 + 2 * len(description.metrics),), "float32")


def digest(model: bytes) -> str:
    """Return the digest that a description has of its LiteRT model."""
    return hashlib.sha256(model).hexdigest()


def to_bytes(file: ModelFile) -> bytes:
    """Return the file's content: the model, and the archive after it."""
    stream = io.BytesIO()
    stream.write(file.model)
    text = json.dumps(dataclasses.asdict(file.description), indent=1)
    with zipfile.ZipFile(stream, "a", zipfile.ZIP_STORED) as archive:
        for name, content in ((DESCRIPTION, text.encode()), (WEIGHTS, file.weights.astype("<f4").tobytes())):
            archive.writestr(zipfile.ZipInfo(name), content)  # with no date: the same model, the same bytes
    return stream.getvalue()


def read(path: Path) -> ModelFile:
    """Read a file that `fedmq export` has made.

    Raises StoreError where it cannot be read, ConfigError where it is damaged or something else. All sizes are checked
    before anything is taken from it, and the LiteRT part by its digest before LiteRT sees it. That is against
    accidents: whoever can write the file can have the device train whatever they like.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ConfigError(f"{path} is larger than the 2 GiB that a LiteRT file can have: export it again")
        content = path.read_bytes()
    except OSError as error:
        raise StoreError(
            f"model file {path} cannot be read ({error.strerror}): make it with `fedmq export` where TensorFlow is, "
            "and copy it here"
        ) from None
    return parse(content, str(path))


def parse(content: bytes, what: str) -> ModelFile:
    """Return the parts of a file's `content`; `what` names it in errors. Raises ConfigError."""
    try:
        return _parse(content)
    except _UNREADABLE as error:
        raise ConfigError(
            f"{what} is damaged, or no file of `fedmq export` ({_gist(error)}): export it again"
        ) from None


def _parse(content: bytes) -> ModelFile:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = archive.infolist()
        text = _member(archive, DESCRIPTION, MOST_DESCRIPTION_BYTES)
        description = _description(json.loads(text))
        size = 4 * sum(variable.size for variable in description.variables)
        raw = _member(archive, WEIGHTS, size)
        model = content[: min(member.header_offset for member in members)]
    if len(raw) != size:
        raise ValueError(f"weights of {len(raw)} bytes where {size} were wanted")
    if digest(model) != description.sha256:
        raise ValueError("its checksum is another")
    return ModelFile(model, description, np.frombuffer(raw, "<f4").astype(np.float32))


def _member(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    info = archive.getinfo(name)
    if (
        info.compress_type != zipfile.ZIP_STORED
        or info.file_size != info.compress_size
        or info.file_size > most
    ):
        raise ValueError(f"{name} is compressed, or larger than {most} bytes")
    return archive.read(info)


def _description(given: object) -> Description:
    if not isinstance(given, dict) or given.get("format") != FORMAT:
        raise ValueError(f"{DESCRIPTION} is not of format {FORMAT}")
    found = _converter.structure(given, Description)
    shapes = [
        *(v.shape for v in found.variables),
        *(p.shape for p in (*found.x, found.y)),
        *(d.shape for d in found.draws),
    ]
    sizes = [size for shape in shapes for size in shape]
    if (
        not 0 < found.batch_size <= _MOST_ROWS
        or min(sizes, default=1) < 1
        or max(sizes, default=1) > MOST_BYTES
    ):
        raise ValueError("its sizes are out of range")
    if not all(0 <= number < len(found.variables) for number in found.updated):
        raise ValueError("it updates variables that it does not have")
    return found


def _exact(kind: type) -> Any:  # noqa: ANN401  # what cattrs calls
    """Return a hook that takes a value of just this type: cattrs alone would make one of a text or a float."""

    def take(value: object, _: object) -> object:
        if type(value) is kind or (kind is float and type(value) is int):
            return value
        raise ValueError(f"{value!r} is no {kind.__name__}")

    return take


def _gist(error: Exception) -> str:
    return (
        "its description is incomplete"
        if isinstance(error, cattrs.BaseValidationError)
        else str(error).rstrip(".")
    )


_converter: Final = cattrs.Converter(forbid_extra_keys=True)
for _kind in (bool, int, float, str):
    _converter.register_structure_hook(_kind, _exact(_kind))

_UNREADABLE: Final = (
    ArithmeticError,
    AttributeError,
    EOFError,
    FedmqError,
    LookupError,
    NotImplementedError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    cattrs.BaseValidationError,
    zipfile.BadZipFile,
)
"""All that the ZIP and JSON readers and cattrs have for bytes that are not theirs."""
