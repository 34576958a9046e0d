"""What a codec is made of: four families of stages, and what passes from one to the next.

A vector goes through any number of transforms, one quantiser, one symbol layout and one entropy coder::

    vector --transform--> vector --quantise--> scales, symbols --layout--> bytes --entropy--> bytes

A stage is a frozen dataclass whose fields are its parameters; a row in its family's table makes it known to the
parser, to the laws in `tests/laws/test_codecs.py` and to the check of the reference page.
"""

from __future__ import annotations

from dataclasses import Field, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from fedmq.vectors import Vector

Sizes: TypeAlias = tuple[int, ...]
"""Lengths of the consecutive blocks of a vector, from the model's manifest and never from a message."""

Symbols: TypeAlias = NDArray[np.float32 | np.float16 | np.int8 | np.uint8 | np.int16 | np.uint16]
Bound: TypeAlias = NDArray[np.float64]

ErrorSize: TypeAlias = Literal["none", "small", "moderate", "large"]
"""How far one decoded update may lie from what was encoded: not at all; by much less than its own size; by less than
its size, and by no more at some coordinates than at others; or by its size and more, or with most coordinates left out.
Rules that look at single updates cannot use the last."""


@dataclass(frozen=True, slots=True)
class Alphabet:
    """The symbols that a quantiser makes: numbers of the little-endian NumPy type `dtype`.

    Where a quantiser counts steps they lie in `low` … `high`; where every pattern of bits is a symbol there are none.
    """

    dtype: str
    low: int | None = None
    high: int | None = None

    @property
    def width(self) -> int:
        """Bytes per symbol."""
        return np.dtype(self.dtype).itemsize

    @property
    def bits(self) -> int:
        """Bits that tell its symbols apart: 1 for two of them, 2 for three or four."""
        if self.low is None or self.high is None:
            return 8 * self.width
        return (self.high - self.low).bit_length()

    def holds(self, symbols: Symbols) -> bool:
        """Tell whether every symbol is one of the alphabet's."""
        if self.low is None or self.high is None:
            return True
        return not np.any((symbols < self.low) | (symbols > self.high))


@dataclass(frozen=True, slots=True)
class Quantised:
    """A quantised vector: one symbol per coordinate, and the non-negative float32 scales that give them meaning."""

    scales: NDArray[np.float32]
    symbols: Symbols


class Stage(Protocol):
    """What all stages have. `name` is how a chain spells it; `examples` are the spellings the laws run over."""

    name: ClassVar[str]
    examples: ClassVar[tuple[str, ...]]
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


class Lossy(Stage, Protocol):
    """A stage that may lose something, and says what."""

    @property
    def unbiased(self) -> bool:
        """True where the mean of the decoded vector over seeds is the encoded one, so that averaging removes noise."""

    @property
    def error(self) -> ErrorSize:
        """How large the error of one decoded vector may be."""


class ScaleForm(Protocol):
    """How scales are written, without loss for those that its quantisers make."""

    def size(self, count: int) -> int:
        """Return the bytes that `count` scales take, whatever they are."""

    def write(self, scales: NDArray[np.float32]) -> bytes:
        """Return the scales as bytes."""

    def read(self, data: bytes) -> NDArray[np.float32]:
        """Return scales, all finite and not negative; raises DecodeError for bytes that no encoder writes."""


class Transform(Lossy, Protocol):
    """Vector to vector: a map that makes what follows cheaper, drawn from `seed` where it is random."""

    @property
    def evens(self) -> bool:
        """True where what it makes has numbers of like size: a grid of few bits leaves few of them out."""

    def sizes(self, sizes: Sizes) -> Sizes:
        """Return the block lengths of what `encode` returns for blocks of lengths `sizes`."""

    def encode(self, vector: Vector, sizes: Sizes, seed: int) -> Vector:
        """Return a new vector; `vector` stays as it is."""

    def decode(self, vector: Vector, sizes: Sizes, seed: int) -> Vector:
        """Return a vector of blocks of `sizes` (those of the vector before `encode`)."""

    def bound(self, vector: Vector, sizes: Sizes, seed: int, inner: Bound) -> Bound:
        """Return the largest error per coordinate of `vector`, where `inner` is that of the transformed vector."""


class Quantiser(Lossy, Protocol):
    """Vector to symbols."""

    @property
    def even_error(self) -> ErrorSize:
        """`error`, where the numbers are of like size."""

    @property
    def alphabet(self) -> Alphabet:
        """The symbols it makes."""

    @property
    def scale_form(self) -> ScaleForm:
        """How its scales are written."""

    def scales(self, sizes: Sizes) -> int:
        """Return how many scales go with blocks of `sizes`."""

    def encode(self, vector: Vector, sizes: Sizes, seed: int) -> Quantised:
        """Return symbols and scales of a finite vector."""

    def decode(self, quantised: Quantised, sizes: Sizes) -> Vector:
        """Return the vector.

        The codec has checked that there are as many scales as `scales` says, finite and not negative, and that the
        symbols are the alphabet's; afterwards it refuses numbers that are not finite, unless it is exact.
        """

    def bound(self, vector: Vector, sizes: Sizes) -> Bound:
        """Return the largest error per coordinate of `decode(encode(vector))`, whatever the seed."""


class SymbolLayout(Stage, Protocol):
    """Symbols to bytes, without loss."""

    def accepts(self, alphabet: Alphabet) -> bool:
        """Tell whether it is of use for such symbols."""

    def most_bytes(self, sizes: Sizes, alphabet: Alphabet) -> int:
        """Return the most bytes that `encode` makes of blocks of `sizes`."""

    def encode(self, symbols: Symbols, sizes: Sizes, alphabet: Alphabet) -> bytes:
        """Return the symbols, which are the alphabet's, as bytes."""

    def decode(self, body: bytes, sizes: Sizes, alphabet: Alphabet) -> Symbols:
        """Return the symbols; raises DecodeError unless `body` holds exactly one per coordinate."""


class EntropyCoder(Stage, Protocol):
    """Bytes to fewer bytes, without loss."""

    def most_bytes(self, most: int) -> int:
        """Return the longest `data` that `decode` takes where `encode` was given at most `most` bytes."""

    def encode(self, body: bytes) -> bytes:
        """Return `body`, shorter where it has a pattern."""

    def decode(self, data: bytes, most: int) -> bytes:
        """Return the body; raises DecodeError unless `data` is one whole stream that holds at most `most` bytes."""
