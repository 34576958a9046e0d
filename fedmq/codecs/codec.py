"""A chain of stages as one codec: vector to bytes and back, with its bound and the facts that rules ask for."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import starmap
from typing import TYPE_CHECKING, Final, get_args

import numpy as np

from fedmq.codecs import many
from fedmq.codecs.counter import SEEDS
from fedmq.codecs.eden import Eden
from fedmq.codecs.entropy import Plain
from fedmq.codecs.layout import Dense, usual_layout
from fedmq.codecs.rotation import Rotate
from fedmq.codecs.spelling import spell
from fedmq.codecs.stages import Bound, ErrorSize, Quantised
from fedmq.errors import ConfigError, DecodeError, MisuseError, Refused
from fedmq.vectors import is_finite

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fedmq.codecs.feedback import Feedback
    from fedmq.codecs.stages import EntropyCoder, Lossy, Quantiser, Sizes, SymbolLayout, Transform
    from fedmq.vectors import Vector

_ERROR_SIZES: Final[tuple[ErrorSize, ...]] = get_args(ErrorSize)


@dataclass(frozen=True, slots=True)
class Codec:
    """Any number of transforms, a quantiser, a layout and an entropy coder; `str` gives the line that `parse` reads.

    Where there is a `feedback`, whoever encodes adds to each vector what earlier ones lost; `encode` and `decode` know
    nothing of it, and messages are no different.

    Raises ConfigError when the layout is of no use for the quantiser's symbols, or `eden` is not behind `rotate`.
    """

    quantiser: Quantiser
    transforms: tuple[Transform, ...] = ()
    layout: SymbolLayout = field(default_factory=Dense)
    entropy: EntropyCoder = field(default_factory=Plain)
    feedback: Feedback | None = None

    def __post_init__(self) -> None:
        if not self.layout.accepts(self.quantiser.alphabet):
            raise ConfigError(
                f"layout `{self.layout.name}` is of no use for the symbols of `{spell(self.quantiser)}`: "
                f"take `{Dense.name}`, or leave it out"
            )
        if isinstance(self.quantiser, Eden) and not self._rotations:
            raise ConfigError(
                f"`{spell(self.quantiser)}` takes all numbers to be alike, which a rotation makes them: "
                f"write `{Rotate.name} | {spell(self.quantiser)}`"
            )

    def __str__(self) -> str:
        usual = (usual_layout(self.quantiser.alphabet), Plain())
        rest = [
            stage for stage, plain in zip((self.layout, self.entropy), usual, strict=True) if stage != plain
        ]
        memory = () if self.feedback is None else (self.feedback,)
        return " | ".join(map(spell, (*memory, *self.transforms, self.quantiser, *rest)))

    @property
    def unbiased(self) -> bool:
        """True where the mean over seeds is the encoded vector: the codec's noise averages out."""
        return all(stage.unbiased for stage in self._lossy)

    @property
    def per_update_error(self) -> ErrorSize:
        """How far one decoded update may lie from the encoded one: the largest of the stages' answers."""
        even = any(stage.evens for stage in self.transforms)
        last = self.quantiser.even_error if even else self.quantiser.error
        return max((*(stage.error for stage in self.transforms), last), key=_ERROR_SIZES.index)

    @property
    def exact(self) -> bool:
        """True where decoding gives back every bit."""
        return self.per_update_error == "none"

    @property
    def reproducible(self) -> bool:
        """True where all machines decode to the same bits: a model's frames, whose digests are compared, need that.

        A rotation adds in an order of the library's own. Behind one, `eden` alone gives numbers whose sums are exact.
        """
        if not self._rotations:
            return True
        sums = max(stage.block for stage in self._rotations)
        return (
            len(self._rotations) == 1
            and isinstance(self.quantiser, Eden)
            and self.quantiser.sums_exactly(sums)
        )

    @property
    def stable(self) -> bool:
        """True where what was decoded comes through `encode` and `decode` once more, on any machine, unchanged.

        Its quantiser has to say so; one that says nothing is taken not to be.
        """
        return not self.transforms and bool(getattr(self.quantiser, "stable", False))

    @property
    def _rotations(self) -> list[Rotate]:
        return [stage for stage in self.transforms if isinstance(stage, Rotate)]

    @property
    def _lossy(self) -> tuple[Lossy, ...]:
        return (*self.transforms, self.quantiser)

    def most_bytes(self, sizes: Sequence[int]) -> int:
        """Return the length of the longest message that `decode` takes for blocks of `sizes`; `encode` keeps to it."""
        inner = self._steps(sizes)[-1]
        body = self.layout.most_bytes(inner, self.quantiser.alphabet)
        return self._scale_bytes(inner) + self.entropy.most_bytes(body)

    def encode(self, vector: Vector, sizes: Sequence[int], *, seed: int = 0) -> bytes:
        """Return `vector`, whose blocks have the lengths `sizes`, as bytes; `seed` drives random stages.

        Raises Refused when a number is not finite, whatever the quantiser: a diverged training is heard of where it
        happened, and no such model is published. Raises MisuseError when type, length or seed do not fit.
        """
        return self.encode_all([vector], sizes, [seed])[0]

    def encode_all(
        self, vectors: Sequence[Vector], sizes: Sequence[int], seeds: Sequence[int]
    ) -> list[bytes]:
        """Return each of `vectors` as `encode` would, under its own seed; raises what that would for any of them.

        Where stages can, they work on all of them together: for a fleet's short updates a multiple as fast.
        """
        if not vectors:
            return []
        steps = self._steps(sizes)
        with np.errstate(all="ignore"):  # underflow is within the bound, overflow is refused in our words
            inner = self._forward(vectors, steps, seeds)[-1]
            quantised = many.quantised(self.quantiser, inner, steps[-1], seeds)
        symbols = [each.symbols for each in quantised]
        bodies = many.symbols_written(self.layout, symbols, steps[-1], self.quantiser.alphabet)
        heads = many.scales_written(self.quantiser.scale_form, [each.scales for each in quantised])
        return [head + self.entropy.encode(body) for head, body in zip(heads, bodies, strict=True)]

    def decode(self, data: bytes, sizes: Sequence[int], *, seed: int = 0) -> Vector:
        """Return the vector that `data` stands for, a new array of ``sum(sizes)`` numbers.

        Raises DecodeError for anything but exactly one encoded vector of these sizes, in time and memory bounded by
        them. The numbers are finite, unless the codec is exact: then they are what was sent. Raises MisuseError when
        the seed does not fit.
        """
        return next(self.decode_all([data], sizes, [seed]))

    def decode_all(
        self, data: Sequence[bytes], sizes: Sequence[int], seeds: Sequence[int]
    ) -> Iterator[Vector]:
        """Yield what `decode` would return for each of `data` under its own seed; raises what that would for any.

        As with `encode_all`, that is faster than one by one. Stages that take one vector at a time wait until it is
        asked for, so there need not be memory for all.
        """
        if not data:
            return
        for seed in seeds:
            _check_seed(seed)
        steps = self._steps(sizes)
        quantised = self._read(data, steps[-1], self.most_bytes(sizes))
        with np.errstate(all="ignore"):  # as in `encode_all`
            vectors = iter(many.dequantised(self.quantiser, quantised, steps[-1]))
            for stage, before in zip(reversed(self.transforms), reversed(steps[:-1]), strict=True):
                vectors = iter(many.restored(stage, vectors, before, seeds))
        for _ in data:
            with np.errstate(all="ignore"):  # not over what our caller does with the vector
                vector = next(vectors)
                strays = not self.exact and _strays(vector)
            if strays:
                raise DecodeError("data decodes to NaN or infinity, which no encoder sends: was it damaged?")
            yield vector

    def rounded(self, vector: Vector, sizes: Sequence[int], *, seed: int = 0) -> Vector:
        """Return what `decode` makes of the encoded vector; the vector itself where the codec is exact.

        Raises like `encode`.
        """
        return vector if self.exact else self.decode(self.encode(vector, sizes, seed=seed), sizes, seed=seed)

    def bound(self, vector: Vector, sizes: Sequence[int], *, seed: int = 0) -> Bound:
        """Return the largest possible error of each coordinate of `vector` after `encode` and `decode`.

        Raises like `encode`.
        """
        steps = self._steps(sizes)
        with np.errstate(all="ignore"):  # as in `encode`
            passed = [vectors[0] for vectors in self._forward([vector], steps, [seed])]
            bound = self.quantiser.bound(passed[-1], steps[-1])
            for index in reversed(range(len(self.transforms))):
                bound = self.transforms[index].bound(passed[index], steps[index], seed, bound)
        return bound

    def _steps(self, sizes: Sequence[int]) -> list[Sizes]:
        """Return the block lengths before each transform and after the last."""
        if any(size < 0 for size in sizes):
            raise MisuseError(f"sizes are {tuple(sizes)}, a block cannot have less than 0: take the layout's")
        steps = [tuple(sizes)]
        for stage in self.transforms:
            steps.append(stage.sizes(steps[-1]))
        return steps

    def _forward(
        self, vectors: Sequence[Vector], steps: Sequence[Sizes], seeds: Sequence[int]
    ) -> list[Sequence[Vector]]:
        """Return the vectors before each transform and after the last, all of them finite."""
        for vector, seed in zip(vectors, seeds, strict=True):
            _check_vector(vector, sum(steps[0]))
            _check_seed(seed)
        passed = [vectors]
        for stage, before in zip(self.transforms, steps, strict=False):
            passed.append(many.transformed(stage, passed[-1], before, seeds))
            for vector in passed[-1]:
                _check_finite(vector)
        return passed

    def _scale_bytes(self, inner: Sizes) -> int:
        return self.quantiser.scale_form.size(self.quantiser.scales(inner))

    def _read(self, data: Sequence[bytes], inner: Sizes, most: int) -> list[Quantised]:
        """Return scales and symbols of each, all checked."""
        cut = self._scale_bytes(inner)
        for each in data:
            if not cut <= len(each) <= most:
                raise DecodeError(
                    f"data has {len(each)} bytes, the model's takes {cut} to {most}: was it for another?"
                )
        alphabet = self.quantiser.alphabet
        longest = self.layout.most_bytes(inner, alphabet)
        bodies = [self.entropy.decode(each[cut:], longest) for each in data]
        symbols = many.symbols_read(self.layout, bodies, inner, alphabet)
        if not all(map(alphabet.holds, symbols)):
            raise DecodeError(
                f"data holds a symbol outside {alphabet.low} … {alphabet.high}, which no encoder makes: was it damaged?"
            )
        scales = many.scales_read(self.quantiser.scale_form, [each[:cut] for each in data])
        return list(starmap(Quantised, zip(scales, symbols, strict=True)))


def _check_vector(vector: Vector, size: int) -> None:
    if vector.dtype != np.float32 or vector.shape != (size,):
        raise MisuseError(
            f"vector is {vector.dtype} of shape {vector.shape}, the sizes want float32 of ({size},): "
            f"was it made for another model?"
        )
    _check_finite(vector)


def _check_finite(vector: Vector) -> None:
    strays = _strays(vector)
    if strays:
        raise Refused(
            f"{strays} of {vector.size} numbers are not finite, none may be sent: did the training diverge?"
        )


def _strays(vector: Vector) -> int:
    """Count NaN and infinities."""
    return 0 if is_finite(vector) else vector.size - int(np.count_nonzero(np.isfinite(vector)))


def _check_seed(seed: int) -> None:
    if not 0 <= seed < SEEDS:
        raise MisuseError(f"seed is {seed}, it must be a whole number from 0 to 2⁶⁴ - 1: cut it to 64 bits")
