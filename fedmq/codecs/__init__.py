"""Codecs: a vector to few bytes and back, as a chain of small stages such as ``int8 | lzma``.

Start at `parse`; `docs/reference/codecs.md` lists the stages and specifies their bytes.
"""

from fedmq.codecs.codec import Codec
from fedmq.codecs.entropy import ENTROPY
from fedmq.codecs.layout import LAYOUTS
from fedmq.codecs.parse import FAMILIES, PRESETS, STAGES, parse
from fedmq.codecs.quantise import QUANTISERS
from fedmq.codecs.stages import ErrorSize
from fedmq.codecs.transform import TRANSFORMS

__all__ = [
    "ENTROPY",
    "FAMILIES",
    "LAYOUTS",
    "PRESETS",
    "QUANTISERS",
    "STAGES",
    "TRANSFORMS",
    "Codec",
    "ErrorSize",
    "parse",
]
