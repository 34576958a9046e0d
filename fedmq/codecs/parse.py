"""One readable line to a codec: the tables of stages, the presets and the parser."""

from __future__ import annotations

from collections import ChainMap
from typing import TYPE_CHECKING, Final, cast

from fedmq.codecs.codec import Codec
from fedmq.codecs.entropy import ENTROPY, Plain
from fedmq.codecs.feedback import FEEDBACKS
from fedmq.codecs.layout import LAYOUTS, usual_layout
from fedmq.codecs.quantise import QUANTISERS
from fedmq.codecs.spelling import read, spell
from fedmq.codecs.transform import TRANSFORMS
from fedmq.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fedmq.codecs.feedback import Feedback
    from fedmq.codecs.stages import EntropyCoder, Quantiser, Stage, SymbolLayout, Transform

FAMILIES: Final[Mapping[str, Mapping[str, type[Stage]]]] = {
    "feedback": cast("Mapping[str, type[Stage]]", FEEDBACKS),
    "transform": TRANSFORMS,
    "quantiser": QUANTISERS,
    "layout": LAYOUTS,
    "entropy coder": ENTROPY,
}
"""The families in the order in which a chain runs through them."""

STAGES: Final[Mapping[str, type[Stage]]] = ChainMap(
    *(cast("dict[str, type[Stage]]", f) for f in FAMILIES.values())
)
"""Every stage of every family by name."""

PRESETS: Final[Mapping[str, str]] = {
    "exact": "float32 | bitmap | huffman",
    "half": "float16 | planes | huffman",
    "safe": "int8 | huffman",
    "lean": "feedback | lowrank(12) | int4 | huffman",
    "stateless": "fold | rotate | eden",
    "extreme": "rotate | sample(0.02) | eden",
}
"""Chains that cover most needs, by the name that `parse` takes for them; each was chosen by measurement."""

LONGEST_LINE: Final = 200
"""Characters of the longest line that is read; the longest sensible one has a third of that."""


def parse(line: str) -> Codec:
    """Return the codec that `line` spells: a preset's name, or stages joined by ``|`` in the order of their families.

    Raises ConfigError, one sentence with the nearest line that would do, when it spells none.

    >>> str(parse("int8|lzma"))
    'int8 | lzma'
    """
    if len(line) > LONGEST_LINE:
        raise ConfigError(
            f"a codec's line has {len(line)} characters, at most {LONGEST_LINE} are read: shorten it"
        )
    line = PRESETS.get(line.strip(), line)
    stages = [read(part.strip(), STAGES) for part in line.split("|")]
    _check_order(stages)
    memories, transforms, quantisers, layouts, coders = (_of_family(stages, family) for family in FAMILIES)
    quantiser = cast("Quantiser", _only(quantisers, "quantiser", line, None))
    usual = usual_layout(quantiser.alphabet)
    return Codec(
        quantiser=quantiser,
        transforms=cast("tuple[Transform, ...]", tuple(transforms)),
        layout=cast("SymbolLayout", _only(layouts, "layout", line, usual)),
        entropy=cast("EntropyCoder", _only(coders, "entropy coder", line, Plain())),
        feedback=cast("Feedback | None", _only(memories, "feedback", line, None)) if memories else None,
    )


def _family(stage: Stage) -> int:
    return next(place for place, table in enumerate(FAMILIES.values()) if stage.name in table)


def _of_family(stages: Sequence[Stage], family: str) -> list[Stage]:
    return [stage for stage in stages if stage.name in FAMILIES[family]]


def _check_order(stages: Sequence[Stage]) -> None:
    ordered = sorted(stages, key=_family)
    if ordered != list(stages):
        first = next(stage for stage, wanted in zip(stages, ordered, strict=True) if stage != wanted)
        raise ConfigError(
            f"`{spell(first)}` stands too early, the order is {', '.join(FAMILIES)}: write `{_line(ordered)}`"
        )


def _only(found: Sequence[Stage], family: str, line: str, absent: Stage | None) -> Stage:
    """Return the one stage of a family, or `absent` where there is none."""
    if len(found) > 1:
        named = " and ".join(f"`{spell(stage)}`" for stage in found)
        raise ConfigError(f"`{line}` names {named}, a codec has one {family}: keep one of them")
    if found:
        return found[0]
    if absent is None:
        names = ", ".join(f"`{name}`" for name in QUANTISERS)
        raise ConfigError(f"`{line}` names no quantiser: put one of {names} before it")
    return absent


def _line(stages: Sequence[Stage]) -> str:
    return " | ".join(map(spell, stages))
