"""Transforms: vector to vector, before anything is rounded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fedmq.codecs.folding import Fold
from fedmq.codecs.lowrank import Lowrank
from fedmq.codecs.rotation import Rotate
from fedmq.codecs.sampling import Sample
from fedmq.codecs.selection import Threshold, Topk

if TYPE_CHECKING:
    from fedmq.codecs.stages import Transform

TRANSFORMS: Final[dict[str, type[Transform]]] = {
    stage.name: stage for stage in (Fold, Rotate, Sample, Topk, Threshold, Lowrank)
}
"""Every transform by name."""
