"""Encodings by name: how updates and models travel, as a whole. Each was chosen by measurement."""

from __future__ import annotations

import difflib
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from fedmq.aggregator.settings import Encoding
from fedmq.codecs import parse
from fedmq.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping


class Named(NamedTuple):
    """One preset, and what it is for in one line."""

    encoding: Encoding
    purpose: str


def _encoding(up: str, down: str, key: str, keyframe_every: int) -> Encoding:
    return Encoding(up=parse(up), down=parse(down), key=parse(key), keyframe_every=keyframe_every)


_STEPS: Final = "lowrank(12) | int4 | huffman"
"""Steps between models: what is too small for one of them is in the next, for each is taken from what devices hold."""

_NAMED: Final[Mapping[str, Named]] = {
    "exact": Named(
        _encoding("exact", "exact", "exact", 1),
        "Every bit as it was, in about half of the bytes.",
    ),
    "safe": Named(
        _encoding("safe", "safe", "half", 10),
        "For any rule and any fleet: errors far below what devices learn, in about a ninth of the bytes.",
    ),
    "stateless": Named(
        _encoding("stateless", _STEPS, "half", 20),
        "For rules that average many devices, some 600 times fewer bytes up; devices keep nothing.",
    ),
    "lean": Named(
        _encoding("lean", _STEPS, "half", 20),
        "For averages and robust rules, some 140 times fewer bytes up; devices keep what is lost.",
    ),
    "extreme": Named(
        _encoding("extreme", _STEPS, "half", 20),
        "For rules that average many devices for many rounds, some 1,400 times fewer bytes up.",
    ),
}

ENCODINGS: Final[Mapping[str, Encoding]] = MappingProxyType(
    {name: named.encoding for name, named in _NAMED.items()}
)
"""Every preset by name."""

ENCODING_PURPOSES: Final[Mapping[str, str]] = MappingProxyType(
    {name: named.purpose for name, named in _NAMED.items()}
)
"""What each preset is for, in one line."""

DEFAULT: Final = "safe"
"""The preset where a file names none, under any rule: what it loses is not seen, with however few devices, and it has
them keep nothing. Encodings of fewer bytes go by how many devices there are, or write to each device's disk."""


class Thriftiest(NamedTuple):
    """The encodings of fewest bytes that cost a rule half a point of accuracy at most, where nobody lies.

    `many` is that with 20 devices in each round; `few` that with 5 of 20, on very uneven data too.
    """

    many: str
    few: str


THRIFTIEST: Final[Mapping[str, Thriftiest]] = MappingProxyType(
    {
        **dict.fromkeys(("average", "weighted", "quality", "fedavg"), Thriftiest("extreme", "lean")),
        **dict.fromkeys(("fedasync", "fedbuff", "hybrid"), Thriftiest("extreme", "lean")),
        **dict.fromkeys(("fedadam", "fedyogi"), Thriftiest("stateless", "lean")),
        **dict.fromkeys(("fedavgm", "median", "trimmed", "meamed"), Thriftiest("lean", "lean")),
        **dict.fromkeys(("rfa", "multi_krum", "bulyan", "robust"), Thriftiest("lean", "lean")),
        "signs": Thriftiest("lean", "safe"),
        **dict.fromkeys(("fedadagrad", "krum", "clipped", "centred", "qfedavg"), Thriftiest("safe", "safe")),
    }
)
"""By the rule's preset; the tables are in docs/how-to/save-bytes.md, from `python -m benchmarks.encodings`."""


def encoding(name: str) -> Encoding:
    """Return the encoding called `name`; raise ConfigError, naming the nearest, where there is none."""
    if name in ENCODINGS:
        return ENCODINGS[name]
    near = difflib.get_close_matches(name, ENCODINGS, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(ENCODINGS)}"
    raise ConfigError(f"there is no encoding {name!r}: {hint}")
