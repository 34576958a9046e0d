"""Laws that every stage and every chain keeps; chains are made from the tables, so a new stage inherits them."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedmq.codecs import FAMILIES, PRESETS, STAGES, Codec, parse
from fedmq.codecs.feedback import FEEDBACKS
from fedmq.codecs.folding import Fold
from fedmq.codecs.quantise import Float32, Int8
from fedmq.codecs.rotation import Rotate
from fedmq.codecs.sampling import Sample
from fedmq.codecs.spelling import spell
from fedmq.errors import ConfigError, DecodeError, Refused
from tests.unit.codecs.transforms import Flip, Halve

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fedmq.codecs.stages import Stage
    from fedmq.vectors import Vector

LEFT_OUT = {"dense", "packed", "none", "feedback", "feedback(0.9)"}
"""Spellings that a canonical line leaves out, or that messages do not depend on."""

SAMPLED = 16
"""Chains that are drawn from all, of which about three in four are of use."""

FLOAT_MAX = float(np.finfo(np.float32).max)
SUBNORMAL = 2.0**-149


def spellings(table: Mapping[str, type[Stage]]) -> list[str]:
    return [line for stage in table.values() for line in stage.examples]


def chained(transform: str, quantiser: str, layout: str, coder: str) -> str | None:
    """Return the canonical line of a chain, with `rotate` in front if it wants that, or None where it is of no use."""
    for start in ("", "rotate"):
        try:
            return str(parse(" | ".join(filter(None, (start, transform, quantiser, layout, coder)))))
        except ConfigError:
            continue
    return None


def lines() -> list[str]:
    """Every spelling of every stage with the simplest partner that it has, a sample of all chains, and the presets."""
    transforms, quantisers, layouts, coders = (
        spellings(FAMILIES[family]) for family in ("transform", "quantiser", "layout", "entropy coder")
    )
    simple = [
        *(chained("", quantiser, "", "") for quantiser in quantisers),
        *(chained(transform, "int8", "", "") for transform in transforms),
        *(next(filter(None, (chained("", each, layout, "") for each in quantisers))) for layout in layouts),
        *(chained("", "int8", "", coder) for coder in coders),
    ]
    random = Random(0)
    pools = [["", *transforms, "rotate | sample", "fold | rotate"], quantisers, ["", *layouts], ["", *coders]]
    sample = [chained(*map(random.choice, pools)) for _ in range(SAMPLED)]
    return list(dict.fromkeys([line for line in (*simple, *sample, *PRESETS.values()) if line]))


# Transforms that do simpler things than the table's, in more and other places.
SLOT = [
    Codec(Float32(), transforms=(Flip(2.0),)),
    Codec(Int8(), transforms=(Flip(), Halve())),
    replace(parse("int8(stochastic) | lzma"), transforms=(Halve(), Flip(0.5))),
]
CODECS = [*map(parse, lines()), *SLOT]

every_codec = pytest.mark.parametrize("codec", CODECS, ids=str)
every_stage = pytest.mark.parametrize(
    "line", [line for table in FAMILIES.values() for line in spellings(table)]
)


def heavy(count: int, seed: int = 1) -> Vector:
    """Numbers like a trained delta's: many zeros, few large ones."""
    generator = np.random.default_rng(seed)
    numbers = generator.standard_t(3, count) * 1e-3 * (generator.random(count) > 0.2)
    return numbers.astype(np.float32)


BANK: dict[str, tuple[list[float] | Vector, tuple[int, ...]]] = {
    "no block": ([], ()),
    "empty blocks": ([], (0, 0)),
    "empty between": ([1, -2, 3], (0, 2, 0, 1, 0)),
    "one number": ([-0.7], (1,)),
    "blocks of one": ([1, 1e-9, -1e9, 0, 5], (1, 1, 1, 1, 1)),
    "zeros": ([0] * 9, (4, 5)),
    "signed zeros": ([0.0, -0.0, -0.0, 1.0], (2, 2)),
    "all equal": ([0.1] * 12, (5, 7)),
    "subnormal": ([SUBNORMAL, -2 * SUBNORMAL, 3 * SUBNORMAL, 2.0**-126, 2.0**-127], (3, 2)),
    "huge": ([FLOAT_MAX, -FLOAT_MAX, FLOAT_MAX / 3, 1, 65504, 65519, 65520, -7e4], (4, 4)),
    "huge beside tiny": ([FLOAT_MAX, SUBNORMAL, -1e-38, 1e20], (4,)),
    "every second": (heavy(400)[::2], (150, 50)),
    "heavy tails": (heavy(3000), (2000, 0, 990, 10)),
}


def banked(name: str) -> tuple[Vector, tuple[int, ...]]:
    numbers, sizes = BANK[name]
    vector = np.asarray(numbers, dtype=np.float32)
    vector.setflags(write=False)
    return vector, sizes


def roomy(codec: Codec) -> bool:
    """Tell whether huge numbers go through all of the codec's transforms; where they do not, they are refused."""
    return not any(isinstance(stage, Flip | Halve) for stage in codec.transforms)


def bounded(codec: Codec) -> bool:
    """Tell whether a transform refuses a vector whose norm is beyond 2⁶⁴."""
    return any(isinstance(stage, Fold | Rotate | Sample) for stage in codec.transforms)


def cases(codec: Codec) -> list[str]:
    """Return the names of the vectors that go through it; one test for all of them, since there are many codecs."""
    return [case for case in BANK if roomy(codec) or not case.startswith("huge")]


def check_bound(codec: Codec, vector: Vector, sizes: tuple[int, ...], seed: int) -> None:
    try:
        message = codec.encode(vector, sizes, seed=seed)
    except Refused:
        assert bounded(codec)
        assert np.linalg.norm(vector.astype(np.float64)) > 0.99 * 2.0**64
        return
    decoded = codec.decode(message, sizes, seed=seed)
    assert decoded.dtype == np.float32
    assert decoded.shape == vector.shape
    error = np.abs(decoded.astype(np.float64) - vector.astype(np.float64))
    assert np.all(error <= codec.bound(vector, sizes, seed=seed))
    if codec.exact and roomy(codec):
        assert decoded.tobytes() == vector.tobytes()


@every_codec
def test_the_error_is_within_the_bound_and_exact_is_exact(codec: Codec) -> None:
    for case, seed in product(cases(codec), (0, 1, 2**64 - 1)):
        check_bound(codec, *banked(case), seed)


finite_blocks = st.lists(
    hnp.arrays(np.float32, st.integers(0, 20), elements=st.floats(-FLOAT_MAX, FLOAT_MAX, width=32)),
    max_size=4,
)


@every_codec
@settings(max_examples=10, deadline=None)
@given(blocks=finite_blocks, seed=st.integers(0, 2**64 - 1))
def test_the_bound_holds_for_any_finite_vector(codec: Codec, blocks: list[Vector], seed: int) -> None:
    if not roomy(codec):
        blocks = [block * np.float32(2.0**-4) for block in blocks]
    if bounded(codec):
        blocks = [block * np.float32(2.0**-68) for block in blocks]
    vector = np.concatenate([np.empty(0, dtype=np.float32), *blocks])
    check_bound(codec, vector, tuple(block.size for block in blocks), seed)


@every_codec
def test_a_message_is_no_longer_than_announced_and_says_the_same_again(codec: Codec) -> None:
    for case in cases(codec):
        check_message(codec, *banked(case))


def check_message(codec: Codec, vector: Vector, sizes: tuple[int, ...]) -> None:
    before = vector.tobytes()
    try:
        message = codec.encode(vector, sizes, seed=5)
    except Refused:
        assert bounded(codec)
        return
    assert len(message) <= codec.most_bytes(sizes)
    assert message == codec.encode(vector, sizes, seed=5)
    assert vector.tobytes() == before


@every_codec
def test_what_is_decoded_is_the_callers_own(codec: Codec) -> None:
    vector, sizes = banked("heavy tails")
    message = codec.encode(vector, sizes)
    decoded = codec.decode(message, sizes)
    assert decoded.flags.writeable
    assert decoded.flags.c_contiguous
    decoded[:] = 7
    assert not np.array_equal(codec.decode(message, sizes), decoded)


@every_codec
@settings(max_examples=5, deadline=None)
@given(seeds=st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=9))
def test_several_vectors_together_are_each_as_alone(codec: Codec, seeds: list[int]) -> None:
    """So whoever encodes or decodes beside a device changes nothing for it."""
    sizes = (2000, 0, 90, 400)
    vectors = [heavy(sum(sizes), place) * np.float32(2.0**place) for place in range(len(seeds))]
    messages = [codec.encode(vector, sizes, seed=seed) for vector, seed in zip(vectors, seeds, strict=True)]
    assert codec.encode_all(vectors, sizes, seeds) == messages
    alone = [codec.decode(message, sizes, seed=seed) for message, seed in zip(messages, seeds, strict=True)]
    together = list(codec.decode_all(messages, sizes, seeds))
    assert [vector.tobytes() for vector in together] == [vector.tobytes() for vector in alone]


@every_codec
def test_nothing_together_is_nothing(codec: Codec) -> None:
    assert codec.encode_all([], (3, 4), []) == []
    assert list(codec.decode_all([], (3, 4), [])) == []


@every_codec
def test_one_that_is_no_good_is_heard_of_among_several(codec: Codec) -> None:
    vectors = [heavy(50), heavy(50), np.full(50, np.nan, np.float32), heavy(50)]
    with pytest.raises(Refused, match="not finite"):
        codec.encode_all(vectors, (25, 25), range(4))
    message = codec.encode(heavy(50), (25, 25))
    with pytest.raises(DecodeError):
        list(codec.decode_all([message, message * 100, message], (25, 25), [0, 0, 0]))


DIGESTS = """
import sys
from tests.laws.test_codecs import digests
sys.stdout.write("\\n".join(digests()))
"""


def digests() -> list[str]:
    vector, sizes = banked("heavy tails")
    return [hashlib.sha256(codec.encode(vector, sizes, seed=11)).hexdigest() for codec in CODECS]


def test_another_process_encodes_to_the_same_bytes() -> None:
    root, program = Path(__file__).parents[2], [sys.executable, "-c", DIGESTS]
    done = subprocess.run(program, cwd=root, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == digests()


@every_codec
@pytest.mark.parametrize("stray", [np.nan, np.inf, -np.inf])
def test_no_codec_sends_what_is_not_finite(codec: Codec, stray: float) -> None:
    vector = heavy(50)
    for place in (0, 24, 49):
        with pytest.raises(Refused, match="not finite"):
            codec.encode(np.where(np.arange(50) == place, np.float32(stray), vector), (25, 25))


@pytest.mark.parametrize("codec", [codec for codec in CODECS if codec.unbiased and not codec.exact], ids=str)
def test_the_mean_over_seeds_is_what_was_encoded(codec: Codec) -> None:
    """Hoeffding: within 0.42 bounds at each of 300 coordinates but for one run in a million; a bias does not shrink."""
    vector, sizes, seeds = heavy(300), (200, 100), range(256)
    draws = [codec.decode(codec.encode(vector, sizes, seed=seed), sizes, seed=seed) for seed in seeds]
    bound = np.max([codec.bound(vector, sizes, seed=seed) for seed in seeds], axis=0)
    off = np.abs(np.mean(draws, axis=0, dtype=np.float64) - vector)
    assert np.all(off <= 0.42 * bound + 1e-9)


@every_codec
def test_the_stated_size_of_the_error_is_true(codec: Codec) -> None:
    vector = np.random.default_rng(3).standard_normal(2000).astype(np.float32)
    decoded = codec.decode(codec.encode(vector, (1500, 500)), (1500, 500))
    relative = float(np.linalg.norm(decoded - vector) / np.linalg.norm(vector))
    sizes = {
        "none": relative == 0,
        "small": 0 < relative < 0.1,
        "moderate": 0.09 <= relative < 1,
        "large": relative >= 0.09,
    }
    assert sizes[codec.per_update_error]


@pytest.mark.parametrize("codec", [*map(parse, lines())], ids=str)
def test_the_line_reads_back(codec: Codec) -> None:
    assert parse(str(codec)) == codec
    assert str(parse(str(codec))) == str(codec)


@every_stage
def test_a_stage_is_spelled_as_its_examples_say(line: str) -> None:
    name = line.partition("(")[0]
    assert STAGES[name].name == name
    assert STAGES[name].examples[0] == name == spell(STAGES[name]())
    assert STAGES[name].__doc__


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_canonical(preset: str) -> None:
    assert str(parse(preset)) == PRESETS[preset] in lines()


def test_exact_is_exact() -> None:
    assert parse("exact").exact


def test_the_laws_run_over_every_stage() -> None:
    used = {
        stage.name for c in map(parse, lines()) for stage in (*c.transforms, c.quantiser, c.layout, c.entropy)
    }
    assert used | set(FEEDBACKS) == set(STAGES)
    spelled = {part for line in lines() for part in line.split(" | ")}
    assert {each for family in FAMILIES for each in spellings(FAMILIES[family])} <= spelled | LEFT_OUT


@pytest.mark.parametrize("stage", [Fold(), Fold(3), Rotate(), Rotate(64), Sample(), Sample(0.5)], ids=spell)
def test_linear_stages_are_linear(stage: Fold | Rotate | Sample) -> None:
    sizes = (200, 0, 93)
    one, other = heavy(293, seed=1), heavy(293, seed=2)
    whole = stage.encode(one * np.float32(-3) + other, sizes, seed=4)
    pieces = stage.encode(one, sizes, seed=4) * np.float32(-3) + stage.encode(other, sizes, seed=4)
    assert np.allclose(whole, pieces, rtol=0, atol=1e-6 * np.abs(whole).max())
    back = stage.decode(whole * np.float32(2), sizes, seed=4)
    assert np.allclose(back, 2 * stage.decode(whole, sizes, seed=4), rtol=0, atol=1e-6 * np.abs(back).max())
