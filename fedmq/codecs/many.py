"""Several vectors through one stage: together where the stage gains by that, else one after the other.

A fleet's updates are short, and NumPy's cost for each call is then most of what encoding and decoding them takes.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from fedmq.codecs.stages import (
        Alphabet,
        Quantised,
        Quantiser,
        ScaleForm,
        Sizes,
        SymbolLayout,
        Symbols,
        Transform,
    )
    from fedmq.vectors import Vector


class ManyTransform:
    """A transform of several vectors at once, each with a seed of its own; of one alone likewise."""

    __slots__ = ()

    @abstractmethod
    def encode_all(self, vectors: Sequence[Vector], sizes: Sizes, seeds: Sequence[int]) -> Sequence[Vector]:
        """Return for each what `Transform.encode` is to return."""

    @abstractmethod
    def decode_all(self, vectors: Sequence[Vector], sizes: Sizes, seeds: Sequence[int]) -> Sequence[Vector]:
        """Return for each what `Transform.decode` is to return."""

    def encode(self, vector: Vector, sizes: Sizes, seed: int) -> Vector:
        """Return one vector encoded."""
        return self.encode_all([vector], sizes, [seed])[0]

    def decode(self, vector: Vector, sizes: Sizes, seed: int) -> Vector:
        """Return one vector decoded."""
        return self.decode_all([vector], sizes, [seed])[0]


class ManyQuantiser:
    """A quantiser of several vectors at once, each with a seed of its own; of one alone likewise."""

    __slots__ = ()

    @abstractmethod
    def encode_all(
        self, vectors: Sequence[Vector], sizes: Sizes, seeds: Sequence[int]
    ) -> Sequence[Quantised]:
        """Return for each what `Quantiser.encode` is to return."""

    @abstractmethod
    def decode_all(self, quantised: Sequence[Quantised], sizes: Sizes) -> Sequence[Vector]:
        """Return for each what `Quantiser.decode` is to return."""

    def encode(self, vector: Vector, sizes: Sizes, seed: int) -> Quantised:
        """Return one vector quantised."""
        return self.encode_all([vector], sizes, [seed])[0]

    def decode(self, quantised: Quantised, sizes: Sizes) -> Vector:
        """Return the vector of one."""
        return self.decode_all([quantised], sizes)[0]


class ManyLayout:
    """A layout of several vectors' symbols at once; of one alone likewise."""

    __slots__ = ()

    @abstractmethod
    def encode_all(self, symbols: Sequence[Symbols], sizes: Sizes, alphabet: Alphabet) -> Sequence[bytes]:
        """Return for each what `SymbolLayout.encode` is to return."""

    @abstractmethod
    def decode_all(self, bodies: Sequence[bytes], sizes: Sizes, alphabet: Alphabet) -> Sequence[Symbols]:
        """Return for each what `SymbolLayout.decode` is to return; raises what that would for the first that is bad."""

    def encode(self, symbols: Symbols, sizes: Sizes, alphabet: Alphabet) -> bytes:
        """Return one vector's symbols as bytes."""
        return self.encode_all([symbols], sizes, alphabet)[0]

    def decode(self, body: bytes, sizes: Sizes, alphabet: Alphabet) -> Symbols:
        """Return the symbols; raises DecodeError as the layout says."""
        return self.decode_all([body], sizes, alphabet)[0]


class ManyScales:
    """A form of several vectors' scales at once; of one alone likewise."""

    __slots__ = ()

    @abstractmethod
    def write_all(self, scales: Sequence[NDArray[np.float32]]) -> Sequence[bytes]:
        """Return for each what `ScaleForm.write` is to return; they are of one length."""

    @abstractmethod
    def read_all(self, data: Sequence[bytes]) -> Sequence[NDArray[np.float32]]:
        """Return for each what `ScaleForm.read` is to return; they are of one length."""

    def write(self, scales: NDArray[np.float32]) -> bytes:
        """Return one vector's scales as bytes."""
        return self.write_all([scales])[0]

    def read(self, data: bytes) -> NDArray[np.float32]:
        """Return one vector's scales."""
        return self.read_all([data])[0]


def transformed(
    stage: Transform, vectors: Sequence[Vector], sizes: Sizes, seeds: Sequence[int]
) -> Sequence[Vector]:
    """Return `stage.encode` of each."""
    if isinstance(stage, ManyTransform):
        return stage.encode_all(vectors, sizes, seeds)
    return [stage.encode(vector, sizes, seed) for vector, seed in zip(vectors, seeds, strict=True)]


def restored(
    stage: Transform, vectors: Iterable[Vector], sizes: Sizes, seeds: Sequence[int]
) -> Iterable[Vector]:
    """Yield `stage.decode` of each. Where they come one by one, each when it is asked for: they may be large."""
    if isinstance(stage, ManyTransform):
        return stage.decode_all(list(vectors), sizes, seeds)
    return (stage.decode(vector, sizes, seed) for vector, seed in zip(vectors, seeds, strict=True))


def quantised(
    stage: Quantiser, vectors: Sequence[Vector], sizes: Sizes, seeds: Sequence[int]
) -> Sequence[Quantised]:
    """Return `stage.encode` of each."""
    if isinstance(stage, ManyQuantiser):
        return stage.encode_all(vectors, sizes, seeds)
    return [stage.encode(vector, sizes, seed) for vector, seed in zip(vectors, seeds, strict=True)]


def dequantised(stage: Quantiser, each: Sequence[Quantised], sizes: Sizes) -> Iterable[Vector]:
    """Yield `stage.decode` of each, as `restored` does."""
    if isinstance(stage, ManyQuantiser):
        return stage.decode_all(each, sizes)
    return (stage.decode(one, sizes) for one in each)


def symbols_written(
    stage: SymbolLayout, symbols: Sequence[Symbols], sizes: Sizes, alphabet: Alphabet
) -> Sequence[bytes]:
    """Return `stage.encode` of each."""
    if isinstance(stage, ManyLayout):
        return stage.encode_all(symbols, sizes, alphabet)
    return [stage.encode(some, sizes, alphabet) for some in symbols]


def symbols_read(
    stage: SymbolLayout, bodies: Sequence[bytes], sizes: Sizes, alphabet: Alphabet
) -> Sequence[Symbols]:
    """Return `stage.decode` of each."""
    if isinstance(stage, ManyLayout):
        return stage.decode_all(bodies, sizes, alphabet)
    return [stage.decode(body, sizes, alphabet) for body in bodies]


def scales_written(form: ScaleForm, scales: Sequence[NDArray[np.float32]]) -> Sequence[bytes]:
    """Return `form.write` of each."""
    return form.write_all(scales) if isinstance(form, ManyScales) else [form.write(each) for each in scales]


def scales_read(form: ScaleForm, data: Sequence[bytes]) -> Sequence[NDArray[np.float32]]:
    """Return `form.read` of each."""
    return form.read_all(data) if isinstance(form, ManyScales) else [form.read(each) for each in data]
